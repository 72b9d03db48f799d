"""The devices of a base station: their streams, against a loop too simple to be wrong."""

import numpy as np
import pytest

from geojax.data.batches import BatchOrder
from geojax.data.streams import stream
from geojax.devices.fleet import Fleet
from geojax.errors import DataError

LABELS = np.random.default_rng(0).integers(0, 5, 200).astype(np.int32)
PARTS = [np.arange(0, 40), np.arange(40, 47), np.arange(47, 52), np.arange(52, 200)]
BATCH = 8


def fleet_of(parts=PARTS, **settings):
    return Fleet(LABELS, parts, **{"batch_size": BATCH, "classes": 5, "seed": 3, **settings})


def stream_of(part, batches, seed=3, number=0):
    """A device as the authors' code has it: a batch is always full, and what is left of an epoch
    comes first in the next one."""
    left, epoch, found = [], 0, []
    while len(found) < batches:
        while len(left) < BATCH:
            left += list(part[stream("batches", seed, number, epoch).permutation(len(part))])
            epoch += 1
        found.append(left[:BATCH])
        left = left[BATCH:]
    return found


def test_every_device_streams_full_batches_and_keeps_the_tail_of_an_epoch():
    fleet = fleet_of()
    taken = [fleet.take(range(4)) for _ in range(12)]
    for number, part in enumerate(PARTS):
        expected = stream_of(part, 12, number=number)
        assert [batch[number].tolist() for batch in taken] == expected
    assert fleet.sizes.tolist() == [40, 7, 5, 148]


def test_only_devices_that_take_part_go_on():
    fleet = fleet_of()
    before = fleet.next()
    taken = fleet.take([3, 1])
    assert np.array_equal(taken, before[[3, 1]])
    after = fleet.next()
    assert np.array_equal(after[[0, 2]], before[[0, 2]])
    assert (after[[1, 3]] != before[[1, 3]]).any(axis=1).all()
    assert fleet.taken.tolist() == [0, 1, 0, 1]


def test_counts_are_those_of_the_next_batches():
    fleet = fleet_of()
    for devices in ([0], [1, 2], [0, 3], []):
        for counted, batch in zip(fleet.counts(), fleet.next(), strict=True):
            assert counted.tolist() == [int((LABELS[batch] == c).sum()) for c in range(5)]
        assert fleet.counts().sum(axis=1).tolist() == [BATCH] * 4
        assert fleet.counts().dtype == np.float32
        fleet.take(devices)
    assert fleet.class_counts().sum(axis=1).tolist() == [40, 7, 5, 148]
    assert fleet.class_counts()[1].tolist() == np.bincount(LABELS[40:47], minlength=5).tolist()


def test_a_batch_depends_on_seed_device_and_its_number_alone():
    one, other = fleet_of(), fleet_of()
    for devices in ([0, 1], [0], [2], [0, 2]):
        one.take(devices)
    for devices in ([2], [0, 1, 2], [0]):
        other.take(devices)
    assert one.taken.tolist() == [3, 1, 2, 0]
    other.take([0])
    assert other.taken.tolist() == [3, 1, 2, 0]
    assert np.array_equal(one.next(), other.next())
    assert not np.array_equal(fleet_of(seed=4).next()[3], fleet_of().next()[3])
    alike = fleet_of([PARTS[3]] * 2).next()
    assert not np.array_equal(alike[0], alike[1])


def test_devices_are_numbered_over_all_fleets_as_workers_are():
    fleet = fleet_of(first=7)
    for number, part in enumerate(PARTS):
        order = BatchOrder(len(part), BATCH, 3, 7 + number)
        assert np.array_equal(fleet.next()[number], part[order(0)])


def test_a_state_brings_every_device_back():
    fleet = fleet_of()
    fleet.take([0, 1])
    kept, expected = fleet.state_dict(), fleet.next()
    walked = fleet.take([1, 2])
    other = fleet_of()
    other.load_state(kept)
    assert np.array_equal(other.next(), expected)
    assert np.array_equal(other.take([1, 2]), walked)
    assert kept["taken"].tolist() == [1, 1, 0, 0]
    with pytest.raises(ValueError, match="the state of 3 devices, but there are 4"):
        other.load_state({"taken": np.zeros(3, np.int64)})


def test_without_labels_there_is_nothing_to_count():
    targets = np.zeros((200, 2), np.float32)
    fleet = Fleet(targets, PARTS, batch_size=BATCH, classes=0, seed=3)
    assert fleet.counts().shape == fleet.class_counts().shape == (4, 0)
    assert np.array_equal(fleet.next(), fleet_of().next())


def test_a_device_needs_half_a_batch():
    fleet_of([np.arange(4), np.arange(9)])
    with pytest.raises(DataError, match=r"device 1 of 2 has 3 samples.*at least 4\); use a small"):
        fleet_of([np.arange(9), np.arange(3)])
    with pytest.raises(DataError, match=r"has no devices; set devices\.count"):
        fleet_of([])


@pytest.mark.parametrize("devices", [[0, 0], [4], [-1]])
def test_devices_are_named_once(devices):
    with pytest.raises(ValueError, match="of 4: name each once"):
        fleet_of().take(devices)
