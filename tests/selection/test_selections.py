"""The conformance table of selections: one row each, and every row meets every check."""

from __future__ import annotations

import numpy as np
import pytest
from device_instances import BATCH, instance

from geojax.config import SelectionConfig
from geojax.errors import ConfigError, DataError
from geojax.selection.registry import (
    SELECTIONS,
    Choice,
    Selection,
    build_selection,
    choose,
    choose_all,
    draws_for,
)  # fmt: skip

FEW = {"initial": 2, "iterations": 1}

# name of the row -> the member and its keys
SELECTION_ROWS = {
    "everyone": ("everyone", {}),
    "random": ("random", {}),
    "gbp_cs": ("gbp_cs", {}),
    "gbp_cs from zero": ("gbp_cs", {"init": "zero"}),
    "gbp_cs from random": ("gbp_cs", {"init": "random"}),
    "exact swap": ("gbp_cs", {"swap": "exact"}),
    "exact swap with restarts": ("gbp_cs", {"swap": "exact", "restarts": 2}),
    "monte_carlo": ("monte_carlo", {"tries": 20}),
    "genetic": ("genetic", {"population": 21, "generations": 5}),
    "genetic with mutation": ("genetic", {"population": 20, "generations": 5, "mutation": 0.3}),
    "bayesian": ("bayesian", FEW),
    "brute_force": ("brute_force", {}),
    "milp": ("milp", {}),
}
BY_COUNTS = [row for row, (name, _) in SELECTION_ROWS.items() if name not in ("everyone", "random")]

each_row = pytest.mark.parametrize("row", SELECTION_ROWS)
each_by_counts = pytest.mark.parametrize("row", BY_COUNTS)


def build(row: str, **more) -> Selection:
    name, keys = SELECTION_ROWS[row]
    if name == "everyone":
        more = {}
    return build_selection(SELECTIONS.settings(name, **keys, **more))


def asked(selection: Selection, choice: Choice, seed: int = 0) -> np.ndarray:
    """What is chosen; everyone means everyone."""
    present = len(choice.counts)
    devices = choice.devices if selection.devices is not None else selection.wanted(present)
    return choose(selection, choice._replace(devices=devices, draws=np.random.default_rng(seed)))


def test_every_registered_selection_has_a_row():
    assert {name for name, _ in SELECTION_ROWS.values()} == set(SELECTIONS)


def test_a_wrong_name_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"selection\.name = 'everone': did you mean 'everyone'"):
        build_selection(SelectionConfig(name="everone"))


@each_row
@pytest.mark.parametrize(
    ("devices", "chosen", "random_devices"),
    [(12, 5, 2), (9, 3, 3), (4, 4, 1), (5, 4, 0), (3, 1, 0), (1, 1, 0), (6, 2, 1)],
)
def test_it_chooses_as_many_as_asked_each_once_ascending(row, devices, chosen, random_devices):
    name, _ = SELECTION_ROWS[row]
    more = {} if name == "random" else {"random_devices": random_devices}
    selection = build(row, devices=chosen, **more)
    choice = instance(devices, chosen)
    before = choice.counts.copy()
    found = asked(selection, choice)
    assert found.dtype == np.int64
    assert (np.diff(found) > 0).all()
    assert 0 <= found[0] <= found[-1] < devices
    assert len(found) == (devices if row == "everyone" else chosen)
    assert np.array_equal(choice.counts, before)


@each_row
def test_the_choice_is_fixed_by_its_arguments(row):
    first, second = build(row, devices=4), build(row, devices=4)
    choices = [instance(9, 4, seed=seed) for seed in range(3)]
    forwards = [asked(first, choice, 7).tolist() for choice in choices]
    backwards = [asked(second, choice, 7).tolist() for choice in reversed(choices)]
    assert forwards == backwards[::-1]


@each_row
def test_choosing_for_all_groups_is_choosing_for_each(row):
    selection = build(row, devices=4)
    sizes = (7, 12, 4, 9)
    choices = [instance(size, selection.wanted(size), seed=size) for size in sizes]
    alone = [asked(selection, choice, 3).tolist() for choice in choices]
    fresh = [choice._replace(draws=np.random.default_rng(3)) for choice in choices]
    assert [found.tolist() for found in choose_all(selection, fresh)] == alone


@each_row
def test_every_device_gets_its_turn(row):
    selection = build(row, devices=4)
    rounds = 10 if row in ("milp", "bayesian") else 60
    if row == "bayesian":
        selection = build(row, devices=4, random_devices=3)
    choice = instance(6, 4, seed=5)
    seen = {int(i) for seed in range(rounds) for i in asked(selection, choice, seed)}
    assert seen == set(range(6))  # random devices see to it


@each_by_counts
def test_it_uses_the_random_devices_it_drew(row):
    choice = instance(10, 5, seed=2)
    drawn = np.random.default_rng(4).choice(10, 3, replace=False)
    found = asked(build(row, devices=5, random_devices=3), choice, 4)
    assert set(drawn) <= set(found)


@each_by_counts
def test_the_same_grid_serves_centers_with_more_samples(row):
    choice = instance(8, 4, batch=1000, seed=1)
    assert len(asked(build(row, devices=4, random_devices=0), choice)) == 4


def test_everyone_is_everyone():
    assert asked(build("everyone"), instance(5, 1)).tolist() == [0, 1, 2, 3, 4]


@each_row
def test_more_devices_than_there_are_is_refused(row):
    choice = instance(5, 6)
    says = r"selection\.devices = 6: plant has 5 devices; use from 1 to 5, or more devices"
    with pytest.raises(ConfigError, match=says):
        choose(build(row, devices=6), choice, "plant")


@each_by_counts
def test_more_random_devices_than_devices_is_refused(row):
    with pytest.raises(ConfigError, match=r"selection\.random_devices = 5: .* use at most 4"):
        build(row, devices=4, random_devices=5)
    selection = build(row, devices=4, random_devices=3)
    with pytest.raises(ConfigError, match=r"selection\.random_devices = 3: .* use at most 2"):
        choose(selection, instance(6, 2))


@each_by_counts
def test_a_target_that_does_not_sum_to_one_is_refused(row):
    choice = instance(8, 4)
    with pytest.raises(DataError, match=r"plant: the target's shares sum to 1\.5"):
        choose(build(row, devices=4), choice._replace(target=1.5 * choice.target), "plant")
    negative = choice.target.copy()
    negative[:2] += [-1, 1]
    with pytest.raises(DataError, match="the least is -"):
        choose(build(row, devices=4), choice._replace(target=negative))


@each_by_counts
@pytest.mark.parametrize("change", [[1, 0], [-1, 0], [0.5, -0.5], [-99, 99], [np.nan, 0]])
def test_counts_that_are_no_full_batch_are_refused(row, change):
    choice = instance(8, 4)
    choice.counts[3, :2] += change
    with pytest.raises(DataError, match=rf"counts of device 3 are no batch of {BATCH} samples"):
        choose(build(row, devices=4), choice)


def test_a_target_of_other_classes_is_refused():
    choice = instance(8, 4, classes=6)
    with pytest.raises(DataError, match=r"shape \(8, 6\) do not go with a target of shape \(5,\)"):
        choose(build("gbp_cs", devices=4), choice._replace(target=np.full(5, 0.2)))


def test_more_samples_than_sums_can_hold_are_refused():
    choice = instance(8, 4, batch=2**17)
    with pytest.raises(ConfigError, match=r"batch_size = 131072: .* at most 262144"):
        choose(build("gbp_cs", devices=4), choice)


@pytest.mark.parametrize(
    "wrong", [[0, 1], [0, 1, 1], [2, 1, 0], [-1, 0, 1], [0, 1, 8], [0.0, 1.0, 2.0]]
)
def test_a_selection_that_returns_something_else_is_refused(wrong):
    selection = Selection("mine", lambda _: np.array(wrong), devices=3)
    says = r"selection\.name = 'mine': return 3 different positions below 8, ascending"
    with pytest.raises(ConfigError, match=says):
        choose(selection, instance(8, 3))
    with pytest.raises(ConfigError, match=says):
        choose_all(selection, [instance(8, 3)])


@pytest.mark.parametrize("row", ["random", "gbp_cs", "monte_carlo"])
def test_randomness_is_fresh_in_every_step_unless_it_is_reused(row):
    choice = instance(20, 6)

    def steps(selection, round_number):
        return [
            choose(
                selection, choice._replace(draws=draws_for(selection, 1, 0, round_number, step))
            ).tolist()
            for step in range(4)
        ]

    fresh = build(row, devices=6, reuse_random_within_round=False)
    assert len({tuple(each) for each in steps(fresh, 0)}) > 1
    reused = build(row, devices=6, reuse_random_within_round=True)
    assert len({tuple(each) for each in steps(reused, 0)}) == 1
    assert steps(reused, 0)[0] == steps(fresh, 0)[0]
    assert steps(reused, 0) != steps(reused, 1)


def test_without_its_package_bayesian_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bayes_opt", None)
    with pytest.raises(ConfigError, match="pip install 'bayesian-optimization>=3'"):
        build("bayesian")
