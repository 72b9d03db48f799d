"""Which devices make a super node, step by step."""

import numpy as np
import pytest

from geojax.config import SelectionConfig
from geojax.devices.fleet import Fleet
from geojax.devices.links import InternalLinks
from geojax.devices.super_node import SuperNode
from geojax.errors import ConfigError
from geojax.selection.gbp_cs import GbpCsConfig
from geojax.selection.registry import build_selection
from geojax.selection.sampling import RandomConfig

CLASSES, BATCH, DEVICES = 4, 6, 7
LABELS = np.random.default_rng(1).integers(0, CLASSES, 350).astype(np.int32)
SHARES = np.bincount(LABELS, minlength=CLASSES) / len(LABELS)
BY_COUNTS = GbpCsConfig(devices=3, random_devices=1)


def node_of(selection: SelectionConfig = BY_COUNTS, **settings):
    order = np.argsort(LABELS, kind="stable")  # devices of one or two classes
    parts = np.array_split(order, DEVICES)
    fleet = Fleet(LABELS, parts, batch_size=BATCH, classes=CLASSES, seed=0)
    options = {"seed": 0, "worker_index": 0, **settings}
    return SuperNode(fleet, build_selection(selection), SHARES, **options)


def test_a_step_is_the_next_batches_of_the_chosen_devices_in_their_order():
    node = node_of()
    for step in range(5):
        chosen, offered = node.chosen, node.fleet.next()
        assert len(chosen) == 3
        assert (np.diff(chosen) > 0).all()
        assert np.array_equal(node.chosen, chosen), "the same until the step is made"
        assert node(step).tolist() == offered[chosen].ravel().tolist()
        moved = (node.fleet.next() != offered).any(axis=1)
        assert np.flatnonzero(moved).tolist() == chosen.tolist()
    assert (node.batch_size, node.step) == (3 * BATCH, 5)
    with pytest.raises(ValueError, match="step 3: the devices stand at step 5"):
        node(3)


def test_divergence_is_how_far_the_union_batch_is_from_the_target():
    node = node_of()
    for step in range(4):
        found = node.facts(node.step).divergence
        counts = np.bincount(LABELS[node(step)], minlength=CLASSES)
        assert found == pytest.approx(np.sqrt(((counts / (3 * BATCH) - SHARES) ** 2).sum()))


def test_everyone_takes_part_where_nothing_else_is_said():
    node = node_of(SelectionConfig())
    assert node.chosen.tolist() == list(range(DEVICES))
    assert node.batch_size == DEVICES * BATCH


def test_choices_can_be_repeated_up_to_any_step():
    walked, kept = node_of(), {}
    for step in range(9):
        kept[step] = walked.state_dict(), walked.chosen
        walked(step)
    for step in (8, 3, 5, 0):  # forward from the start, and back
        again = node_of()
        again.skip_to(6)
        again.skip_to(step)
        state, chosen = kept[step]
        assert again.step == step
        assert np.array_equal(again.state_dict()["taken"], state["taken"])
        assert np.array_equal(again.chosen, chosen)
        loaded = node_of()
        loaded.load_state(state, step)
        assert np.array_equal(loaded.chosen, chosen)
        assert np.array_equal(loaded(step), again(step))


def test_choices_depend_on_seed_and_worker():
    def first(**settings):
        node = node_of(RandomConfig(devices=3), **settings)
        return [node(step).tolist() for step in range(3)]

    alike = [first(), first()]
    assert alike[0] == alike[1]
    assert len({str(each) for each in (first(), first(seed=1), first(worker_index=1))}) == 3


def test_a_round_may_have_the_same_random_devices_in_all_its_steps():
    node = node_of(RandomConfig(devices=3, reuse_random_within_round=True), round_steps=4)
    chosen = []
    for step in range(12):
        chosen.append(tuple(node.chosen.tolist()))
        node(step)
    rounds = [set(chosen[start : start + 4]) for start in (0, 4, 8)]
    assert [len(found) for found in rounds] == [1, 1, 1]
    assert len(set.union(*rounds)) > 1


def test_more_devices_than_there_are_cannot_be_chosen():
    node = node_of(RandomConfig(devices=8), name="c2")
    with pytest.raises(ConfigError, match=r"selection\.devices = 8: c2 has 7 devices; use from 1"):
        node(0)


def test_transfers_cost_what_the_table_says():
    links = InternalLinks(rate=8.0, rtt=20.0)  # 1 MB/s
    assert links.seconds(250_000) == pytest.approx(2.0 + 0.02)
    assert links.seconds(250_000, classes=250) == pytest.approx(2.001 + 0.02)
    assert links.step_bytes(250_000, 3) == 3 * 2 * 1_000_000
    assert links.step_bytes(250_000, 3, reports=7, classes=10) == 6_000_000 + 280
