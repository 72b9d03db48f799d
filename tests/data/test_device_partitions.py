"""A worker's samples dealt to its devices: by every partition, and what is refused."""

import numpy as np
import pytest
from test_partitions import ROWS

from geojax.axes import change, complete
from geojax.config import PartitionConfig, RunConfig
from geojax.data import DEVICE_PARTITIONS, PARTITIONS, deal_devices, partition
from geojax.data.partitions import ByWriterConfig, DirichletConfig
from geojax.errors import ConfigError, DataError

LABELS = np.random.default_rng(0).integers(0, 10, 2000).astype(np.int32)
GROUPS = np.random.default_rng(1).integers(0, 60, 2000).astype(np.int32)
POSITIONS = np.flatnonzero(GROUPS % 3 == 1)  # of one worker: 20 writers


def deal(config, count, seed=3, groups=GROUPS, positions=POSITIONS, **keys):
    return deal_devices(config, positions, LABELS, groups, count, seed, **keys)


def assert_dealt(devices, positions=POSITIONS):
    assert all(device.dtype == np.int64 and len(device) for device in devices)
    assert sorted(np.concatenate(devices)) == sorted(positions)


@pytest.mark.parametrize(("config", "seeded"), ROWS)
class TestEveryPartition:
    def test_deals_each_sample_of_the_worker_to_one_device(self, config, seeded):
        devices = deal(config, 7)
        assert len(devices) == 7
        assert_dealt(devices)

    def test_is_fixed_by_the_seed_and_the_worker(self, config, seeded):
        first = deal(config, 7)
        for other, same in (
            (deal(config, 7), True),
            (deal(config, 7, seed=4), not seeded),
            (deal(config, 7, worker=1), not seeded),
        ):
            equal = all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
            assert equal == same

    def test_refuses_what_cannot_be_dealt_in_the_words_of_devices(self, config, seeded):
        with pytest.raises(
            DataError, match=r"^c1/w0: 5 devices need .*fewer devices \(devices.cou"
        ):
            deal(config, 5, positions=POSITIONS[:4], name="c1/w0")
        with pytest.raises(ConfigError, match=r"devices\.count = 0: give at least one"):
            deal(config, 0)


def test_both_groups_have_the_same_members(monkeypatch):
    assert list(DEVICE_PARTITIONS) == list(PARTITIONS)
    made = [np.array([1, 0]), np.array([2, 3])]
    monkeypatch.setitem(PARTITIONS._members, "own", lambda *_: made)
    devices = deal(PartitionConfig("own"), 2, positions=np.array([40, 30, 20, 10]))
    assert [device.tolist() for device in devices] == [[30, 40], [20, 10]]
    with pytest.raises(ConfigError, match=r"device_partition\.name = 'own': .*each of 3 devices"):
        deal(PartitionConfig("own"), 3, positions=np.array([40, 30, 20, 10]))


def test_a_run_has_its_own_keys_for_devices():
    config = complete(RunConfig())
    settings = {"device_partition": "dirichlet", "device_partition.alpha": 0.1, "partition": "iid"}
    change(config, settings)
    assert (config.device_partition.name, config.device_partition.alpha) == ("dirichlet", 0.1)
    assert config.partition.name == "iid"
    with pytest.raises(ConfigError, match=r"device_partition\.alpha = 0\.0: give"):
        deal(DirichletConfig(alpha=0.0), 3)
    with pytest.raises(ConfigError, match=r"device_partition\.grouping = 'odd'"):
        deal(ByWriterConfig(grouping="odd"), 3)


def test_without_a_count_a_device_is_a_writer():
    devices = deal(ByWriterConfig(), None)
    assert [set(GROUPS[device]) for device in devices] == [{w} for w in range(1, 60, 3)]
    assert_dealt(devices)
    for config in (PartitionConfig("iid"), DirichletConfig()):
        with pytest.raises(
            ConfigError, match=r"devices\.count = None: null is one device a writer"
        ):
            deal(config, None)


def test_with_a_count_whole_writers_are_dealt():
    for grouping in ("even", "uniform"):
        devices = deal(ByWriterConfig(grouping=grouping), 6)
        hands = [set(GROUPS[device]) for device in devices]
        assert sum(map(len, hands)) == len(set().union(*hands)) == 20


def test_by_writer_says_what_is_missing():
    for count in (3, None):
        with pytest.raises(
            ConfigError, match=r"device_partition\.name = 'by_writer': .*data=mnist"
        ):
            deal(ByWriterConfig(), count, groups=None)
    with pytest.raises(DataError, match=r"21 devices need a writer each, but .* samples are by 20"):
        deal(ByWriterConfig(), 21)


def test_a_device_with_less_than_half_a_batch_is_named():
    positions = POSITIONS[:70]
    assert min(map(len, deal(PartitionConfig("iid"), 10, positions=positions, batch_size=14))) == 7
    with pytest.raises(DataError) as caught:
        deal(PartitionConfig("iid"), 10, positions=positions, batch_size=15, name="south/w1")
    for words in (
        "south/w1: device 0 of 10 has 7 samples",
        "batch_size = 15, so at least 8",
        "use a smaller batch_size, fewer devices (devices.count), or fewer centers",
    ):
        assert words in str(caught.value)


def test_a_dirichlet_draw_may_ask_for_batches():
    config = DirichletConfig(alpha=0.1)
    with pytest.raises(DataError, match=r"larger device_partition\.min_samples, a larger .*alpha"):
        deal(config, 8, batch_size=32)
    config.min_samples = 16
    devices = deal(config, 8, batch_size=32)
    assert min(map(len, devices)) >= 16
    with pytest.raises(
        DataError, match=r"leave one of 30 devices empty in 1000 draws .*larger dev"
    ):
        deal(DirichletConfig(alpha=0.001), 30)


def distance(part, whole):
    mixes = [np.bincount(LABELS[some], minlength=10) / len(some) for some in (part, whole)]
    return np.abs(mixes[0] - mixes[1]).sum() / 2


def test_skew_among_devices_comes_on_top_of_skew_among_workers():
    workers = partition(DirichletConfig(alpha=0.5), LABELS, ["a/w0", "b/w0", "c/w0"], 0)
    for index, own in enumerate(workers.values()):
        devices = deal(DirichletConfig(alpha=0.1), 5, positions=own, worker=index)
        assert_dealt(devices, own)
        skew = np.average([distance(d, own) for d in devices], weights=[len(d) for d in devices])
        even = [distance(d, own) for d in deal(PartitionConfig("iid"), 5, positions=own)]
        assert skew > 0.3 > 2 * np.mean(even)
