"""What every partition promises, and what each adds. A new partition is one row of ROWS."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from geojax.config import PartitionConfig
from geojax.data import PARTITIONS, partition
from geojax.data.partitions import ByWriterConfig, DirichletConfig, ShardsConfig, SizeSkewConfig
from geojax.errors import ConfigError, DataError

ROWS = [  # (settings, depends on the seed)
    pytest.param(PartitionConfig("iid"), True, id="iid"),
    pytest.param(PartitionConfig("by_class"), False, id="by_class"),
    pytest.param(DirichletConfig(alpha=0.05), True, id="dirichlet-0.05"),
    pytest.param(DirichletConfig(alpha=100.0), True, id="dirichlet-100"),
    pytest.param(ShardsConfig(shards=1), True, id="shards-1"),
    pytest.param(ShardsConfig(shards=3), True, id="shards-3"),
    pytest.param(SizeSkewConfig(skew=1.0), True, id="size_skew-1"),
    pytest.param(SizeSkewConfig(skew=8.0), True, id="size_skew-8"),
    pytest.param(ByWriterConfig(), True, id="by_writer-uniform"),
    pytest.param(ByWriterConfig(grouping="even"), True, id="by_writer-even"),
]
LABELS = np.random.default_rng(0).integers(0, 10, 500).astype(np.int32)
NAMES = [f"c{center}/w{worker}" for center in (1, 2, 3) for worker in (0, 1)]

label_arrays = st.lists(st.integers(0, 61), min_size=1, max_size=200).map(np.array)
worker_counts = st.integers(1, 12)
seeds = st.integers(0, 2**32)


def deal(config, labels, workers, seed):
    """As a run does; every second sample is by a new writer."""
    return partition(config, labels, workers, seed, np.arange(len(labels)) // 2)


def names(count):
    return [f"c{i}/w0" for i in range(count)]


def assert_dealt_once(parts, workers, labels):
    assert list(parts) == list(workers)
    assert all(part.dtype == np.int64 and part.ndim == 1 for part in parts.values())
    assert all(len(part) for part in parts.values())
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(labels)))


def dealt_or_refused(config, labels, workers, seed):
    try:
        return deal(config, labels, names(workers), seed)
    except DataError as problem:
        return problem


def test_the_table_has_every_partition():
    assert {row.values[0].name for row in ROWS} == set(PARTITIONS)


@pytest.mark.parametrize(("config", "seeded"), ROWS)
class TestEveryPartition:
    def test_deals_each_sample_to_one_worker(self, config, seeded):
        assert_dealt_once(deal(config, LABELS, NAMES, 3), NAMES, LABELS)

    def test_is_fixed_by_the_seed(self, config, seeded):
        first, again, other = (deal(config, LABELS, NAMES, seed) for seed in (3, 3, 4))
        assert all(np.array_equal(first[name], again[name]) for name in NAMES)
        same = all(np.array_equal(first[name], other[name]) for name in NAMES)
        assert same == (not seeded)

    def test_its_own_seed_goes_before_the_runs(self, config, seeded):
        fixed = replace(config, seed=9)
        first, other = (deal(fixed, LABELS, NAMES, seed) for seed in (3, 4))
        own = deal(config, LABELS, NAMES, 9)
        for name in NAMES:
            np.testing.assert_array_equal(first[name], other[name])
            np.testing.assert_array_equal(first[name], own[name])

    def test_leaves_the_labels_alone(self, config, seeded):
        labels = LABELS.copy()
        deal(config, labels, NAMES, 0)
        np.testing.assert_array_equal(labels, LABELS)

    def test_gives_everything_to_a_single_worker(self, config, seeded):
        parts = deal(config, LABELS, ["c1/w0"], 0)
        assert_dealt_once(parts, ["c1/w0"], LABELS)

    def test_refuses_more_workers_than_samples(self, config, seeded):
        with pytest.raises(DataError, match=r"501 workers.*501 in all.*500 samples; use fewer"):
            deal(config, LABELS, names(501), 0)
        with pytest.raises(DataError, match="the data has 0 samples"):
            deal(config, LABELS[:0], ["c1/w0"], 0)

    @given(labels=label_arrays, workers=worker_counts, seed=seeds)
    def test_deals_any_labels_or_says_why_not(self, config, seeded, labels, workers, seed):
        answer = dealt_or_refused(config, labels, workers, seed)
        if isinstance(answer, DataError):
            assert len(labels) < 16 * workers or config.name == "dirichlet"
            assert str(len(labels)) in str(answer)
            assert str(workers) in str(answer)
            assert "use " in str(answer)
        else:
            assert_dealt_once(answer, names(workers), labels)


@given(labels=label_arrays, workers=worker_counts, seed=seeds)
def test_iid_parts_are_equally_large(labels, workers, seed):
    assume(len(labels) >= workers)
    sizes = [
        len(p) for p in partition(PartitionConfig("iid"), labels, names(workers), seed).values()
    ]
    assert max(sizes) - min(sizes) <= 1


def test_iid_mixes_the_classes():
    labels = np.repeat(np.arange(10), 1000)
    for part in partition(PartitionConfig("iid"), labels, NAMES, 0).values():
        assert np.bincount(labels[part]).min() > 100  # of 167 on average


@given(labels=label_arrays, workers=worker_counts)
def test_by_class_is_the_stable_order_cut_in_equal_runs(labels, workers):
    assume(len(labels) >= workers)
    parts = list(partition(PartitionConfig("by_class"), labels, names(workers), 0).values())
    expected = sorted(range(len(labels)), key=lambda i: (labels[i], i))
    assert np.concatenate(parts).tolist() == expected
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def distance(labels, part, classes=10):
    """Total variation between a part's label mix and that of all."""
    mixes = [np.bincount(x, minlength=classes) / len(x) for x in (labels, labels[part])]
    return np.abs(mixes[0] - mixes[1]).sum() / 2


def test_dirichlet_skew_falls_with_alpha():
    labels = np.repeat(np.arange(10), 2000)
    mean = {}
    for alpha in (0.05, 0.5, 5.0, 1e6):
        parts = partition(DirichletConfig(alpha=alpha), labels, NAMES, 0)
        mean[alpha] = np.mean([distance(labels, part) for part in parts.values()])
    assert mean[0.05] > 1.5 * mean[0.5] > 3 * mean[5.0] > 10 * mean[1e6]
    assert mean[0.05] > 0.6
    assert mean[1e6] < 0.01


def test_dirichlet_shares_have_the_moments_of_the_distribution():
    # share of one worker in one class: mean 1/n, variance (1/n)(1 - 1/n) / (n·alpha + 1)
    labels = np.repeat(np.arange(10), 1000)
    shares = []
    for seed in range(40):
        parts = partition(DirichletConfig(alpha=0.5), labels, names(4), seed)
        shares += [np.bincount(labels[part], minlength=10) / 1000 for part in parts.values()]
    shares = np.array(shares)
    assert shares.mean() == pytest.approx(1 / 4)
    assert shares.var() == pytest.approx((1 / 4) * (3 / 4) / (4 * 0.5 + 1), rel=0.1)


def test_dirichlet_draws_again_until_nobody_is_empty():
    labels = np.repeat([0, 1], 50)  # a first draw leaves one of five workers empty, mostly
    for seed in range(20):
        parts = partition(DirichletConfig(alpha=0.2), labels, names(5), seed)
        assert_dealt_once(parts, names(5), labels)


def test_dirichlet_gives_up_with_all_the_numbers():
    config = DirichletConfig(alpha=1e-6)  # one worker per class, and three classes
    with pytest.raises(DataError, match=r"300 samples in 3 classes.* 4 workers .*alpha = 1e-06"):
        partition(config, np.repeat([0, 1, 2], 100), names(4), 0)


def test_two_shards_give_a_worker_few_classes():
    labels = np.repeat(np.arange(10), 600)
    parts = partition(ShardsConfig(shards=2), labels, names(100), 0)
    assert {len(part) for part in parts.values()} == {60}
    assert max(len(set(labels[part])) for part in parts.values()) == 2
    assert len({tuple(sorted(set(labels[part]))) for part in parts.values()}) > 20  # at random


def test_shards_need_a_sample_each():
    config = ShardsConfig(shards=4)
    assert_dealt_once(partition(config, LABELS[:12], names(3), 0), names(3), LABELS[:12])
    with pytest.raises(
        DataError, match=r"3 workers with 4 shards.*12 in all.*11 samples.*fewer sh"
    ):
        partition(config, LABELS[:11], names(3), 0)


@given(
    count=st.integers(1, 5000),
    workers=worker_counts,
    skew=st.floats(1, 50, allow_nan=False),
    seed=seeds,
)
def test_size_skew_sizes_are_geometric(count, workers, skew, seed):
    weights = [skew ** -(i / max(workers - 1, 1)) for i in range(workers)]
    assume(count * weights[-1] / sum(weights) >= 1)
    config = SizeSkewConfig(skew=skew)
    parts = partition(config, np.zeros(count, int), names(workers), seed)
    for part, weight in zip(parts.values(), weights, strict=True):
        assert abs(len(part) - count * weight / sum(weights)) <= 1


def test_size_skew_needs_a_sample_in_the_smallest_part():
    config = SizeSkewConfig(skew=99.0)
    sizes = [len(p) for p in partition(config, np.zeros(100), names(2), 0).values()]
    assert sizes == [99, 1]
    with pytest.raises(DataError, match=r"skew = 99 .*100 in all.*has 99 samples.*smaller part"):
        partition(config, np.zeros(99), names(2), 0)


def test_dirichlet_draws_again_until_every_part_is_large_enough():
    labels = np.repeat([0, 1, 2], 100)
    for seed in range(20):
        parts = partition(DirichletConfig(alpha=0.2, min_samples=25), labels, names(5), seed)
        assert min(map(len, parts.values())) >= 25
    free = [partition(DirichletConfig(alpha=0.2), labels, names(5), seed) for seed in range(20)]
    assert min(len(part) for parts in free for part in parts.values()) < 25
    with pytest.raises(DataError, match=r"5 workers with partition.min_samples = 61 .*305 in all"):
        partition(DirichletConfig(min_samples=61), labels, names(5), 0)
    with pytest.raises(DataError, match=r"with fewer than 60 samples in 1000 draws.*larger part"):
        partition(DirichletConfig(min_samples=60), labels, names(5), 0)


def writers_of(parts, groups):
    return [set(groups[part].tolist()) for part in parts.values()]


@given(
    more=st.lists(st.integers(0, 80), max_size=120),
    workers=st.integers(1, 6),
    grouping=st.sampled_from(["even", "uniform"]),
    seed=seeds,
)
def test_a_writer_is_never_divided(more, workers, grouping, seed):
    groups = np.array([*range(0, 12 * workers, 3), *more])
    config, found = ByWriterConfig(grouping=grouping), set(groups.tolist())
    parts = partition(config, np.zeros(len(groups), int), names(workers), seed, groups)
    assert_dealt_once(parts, names(workers), groups)
    hands = writers_of(parts, groups)
    assert sum(map(len, hands)) == len(set().union(*hands)) == len(found)
    if grouping == "even":
        assert max(map(len, hands)) - min(map(len, hands)) <= 1


def test_uniform_groups_are_as_uneven_as_independent_draws():
    # writers of a group: binomial(360, 1/10), as in FedGS: 36 on average, deviation 5.7
    groups = np.arange(360)
    dealt = [partition(ByWriterConfig(), groups, names(10), seed, groups) for seed in range(60)]
    sizes = np.array([[len(part) for part in parts.values()] for parts in dealt])
    assert sizes.mean() == 36
    assert sizes.std() == pytest.approx((360 * 0.1 * 0.9) ** 0.5, rel=0.1)


def test_as_many_parts_as_writers_are_the_writers_in_order():
    groups = np.array([9, 2, 9, 5, 2])
    parts = partition(ByWriterConfig(), groups, names(3), 0, groups)
    assert [part.tolist() for part in parts.values()] == [[1, 4], [3], [0, 2]]


def test_by_writer_says_what_is_missing():
    labels, groups = np.zeros(60, int), np.arange(60) // 10
    with pytest.raises(
        ConfigError, match=r"partition\.name = 'by_writer': .*data\.writers.* or an"
    ):
        partition(ByWriterConfig(), labels, names(2), 0)
    with pytest.raises(
        DataError, match=r"7 workers need a writer each, but 60 samples are by 6; use fewer ce"
    ):
        partition(ByWriterConfig(), labels, names(7), 0, groups)
    many = np.arange(60)
    with pytest.raises(DataError, match=r"60 writers leave one of 50 workers .*grouping=even, few"):
        partition(ByWriterConfig(), labels, names(50), 0, many)
    even = partition(ByWriterConfig(grouping="even"), labels, names(50), 0, many)
    assert_dealt_once(even, names(50), labels)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            PartitionConfig("dirichlett"),
            r"partition\.name = 'dirichlett': did you mean 'dirichlet'",
        ),
        (DirichletConfig(alpha=0.0), r"partition\.alpha = 0\.0: give"),
        (DirichletConfig(alpha=float("nan")), r"partition\.alpha = nan: give"),
        (DirichletConfig(alpha=float("inf")), r"partition\.alpha = inf: give"),
        (ShardsConfig(shards=0), r"partition\.shards = 0: give"),
        (DirichletConfig(min_samples=0), r"partition\.min_samples = 0: give"),
        (ByWriterConfig(grouping="evn"), r"partition\.grouping = 'evn': did you mean 'even'"),
        (SizeSkewConfig(skew=0.5), r"partition\.skew = 0\.5: give"),
        (SizeSkewConfig(skew=float("nan")), r"partition\.skew = nan: give"),
        (PartitionConfig("iid", seed=-1), r"seed = -1: use"),
    ],
)
def test_wrong_settings_are_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        deal(config, LABELS, NAMES, 0)


def test_workers_need_names_of_their_own():
    for wrong in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="different names"):
            partition(PartitionConfig(), LABELS, wrong, 0)


@pytest.mark.parametrize(
    "parts", [[[0, 1], [2]], [[0, 1, 1], [2, 3]], [[0, 1, 2, 3], []], [[0, 1, 2, 3]]]
)
def test_an_own_partition_that_does_not_deal_every_sample_once_is_refused(monkeypatch, parts):
    made = [np.array(part, np.int64) for part in parts]
    monkeypatch.setitem(PARTITIONS._members, "own", lambda *_: made)
    sizes = ", ".join(str(len(part)) for part in parts)
    with pytest.raises(ConfigError, match=f"each of 4 samples once.* made parts of {sizes}"):
        partition(PartitionConfig("own"), np.arange(4), ["a", "b"], 0)


def test_importing_the_data_brings_no_heavy_package():
    code = (
        "import sys, geojax.data, geojax.data.__main__\n"
        "print(*({'jax', 'flax', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == ""
