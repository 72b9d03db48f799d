"""The target and the distances to it."""

from __future__ import annotations

import numpy as np
import pytest
from device_instances import instance, objective

from geojax.errors import DataError
from geojax.selection.choice import Choice
from geojax.selection.divergence import METRICS, divergence, iid_divergence, shares_of
from geojax.selection.problem import problem_of
from geojax.selection.registry import SELECTIONS, build_selection, choose
from geojax.selection.target import as_batches, target_of

TRAIN, TEST = np.array([0, 0, 1, 2]), np.array([2, 2, 2, 2])


def test_the_target_counts_train_labels_and_test_labels_only_when_asked():
    assert target_of(TRAIN, 3).tolist() == [0.5, 0.25, 0.25]
    assert target_of(TRAIN, 3, TEST).tolist() == [0.5, 0.25, 0.25]
    assert target_of(TRAIN, 3, TEST, faithful=True).tolist() == [0.25, 0.125, 0.625]


@pytest.mark.parametrize(
    ("labels", "classes", "says"),
    [
        ([0, 2, 2, 4], 6, r"no device has a sample of class 1, 3, 5 \(3 of 6 classes\); take more"),
        (np.zeros(5, int), 20, r"class 1, 2, 3, 4, 5, 6, 7, 8, … \(19 of 20"),
        ([0, 1, 7], 3, r"labels from 0 to 7 are not in \[0, 3\)"),
        ([-1, 1], 3, "labels from -1 to 1"),
        ([0.5, 1.0], 2, "goes by class labels, one integer a sample; these are float64"),
        ([[0, 1]], 2, r"shape \(1, 2\); use selection=everyone"),
        (np.zeros(0, int), 2, r"shape \(0,\)"),
    ],
)
def test_labels_that_make_no_target_are_refused(labels, classes, says):
    with pytest.raises(DataError, match=says):
        target_of(np.array(labels), classes)


def test_a_class_that_only_tests_have_is_there_for_the_faithful_target_alone():
    train, test = np.array([0, 0, 1]), np.array([2])
    with pytest.raises(DataError, match="no device has a sample of class 2"):
        target_of(train, 3, test)
    assert target_of(train, 3, test, faithful=True).tolist() == [0.5, 0.25, 0.25]
    with pytest.raises(DataError, match=r"selection\.faithful = true counts test labels"):
        target_of(train, 3, faithful=True)


def test_the_settings_say_whether_the_target_is_faithful():
    for faithful in (False, True):
        settings = SELECTIONS.settings("gbp_cs", faithful=faithful)
        assert build_selection(settings).faithful is faithful


def test_holders_of_any_size_become_batches_of_their_shares():
    counts = np.array([[100, 0, 0], [1, 1, 1], [7, 2, 1]])
    batches = as_batches(counts, 10)
    assert batches.tolist() == [[10, 0, 0], [4, 3, 3], [7, 2, 1]]
    draws = np.random.default_rng(0)
    counts = draws.integers(0, 50, size=(40, 7))
    batches = as_batches(counts, 64)
    assert (batches.sum(axis=1) == 64).all()
    assert np.abs(batches / 64 - counts / counts.sum(axis=1, keepdims=True)).max() < 1 / 64
    with pytest.raises(DataError, match="device 1 has no samples"):
        as_batches(np.array([[1, 2], [0, 0]]), 8)


def test_centers_are_chosen_by_their_whole_data():
    counts = np.array([[900, 0], [0, 30], [500, 510], [800, 10]])
    choice = Choice(
        as_batches(counts, 1000), np.array([0.5, 0.5]), 2, 1000, np.random.default_rng()
    )
    selection = build_selection(
        SELECTIONS.settings("gbp_cs", devices=2, random_devices=0, swap="exact")
    )
    assert choose(selection, choice).tolist() == [0, 1]


def test_the_objective_is_the_divergence_of_the_whole_super_node():
    choice = instance(10, 5, 7)
    problem = problem_of(choice, 2)
    for taken in ([0, 1, 2], [3, 5, 6]):
        far = divergence(shares_of(choice.counts, problem.devices(taken)), choice.target)
        on_grid = objective(problem, taken) ** 0.5 / 4096 / (choice.batch * choice.devices)
        assert on_grid == pytest.approx(far, abs=5e-6)


def test_distances():
    from scipy.stats import wasserstein_distance  # slow to load, and every process reads this file

    here, there = np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.3, 0.5])
    assert divergence(here, there) == pytest.approx((0.09 + 0.04 + 0.25) ** 0.5)
    assert divergence(here, there, "l1") == pytest.approx(1.0)
    cosine = 0.25 / (0.5 * 0.38) ** 0.5
    assert divergence(here, there, "cosine") == pytest.approx(1 - cosine)
    places = wasserstein_distance([0, 1, 2], [0, 1, 2], here, there)
    assert divergence(here, there, "wasserstein") == pytest.approx(places)
    middle = (here + there) / 2
    parts = [np.sum(p[p > 0] * np.log(p[p > 0] / middle[p > 0])) for p in (here, there)]
    assert divergence(here, there, "jensen_shannon") == pytest.approx((sum(parts) / 2) ** 0.5)
    for metric in METRICS:
        assert divergence(here, here, metric) == pytest.approx(0, abs=1e-7)
    with pytest.raises(ValueError, match="one of l2, l1"):
        divergence(here, there, "l3")


def test_the_oracle_is_as_far_as_sampling_makes_it():
    """E ||P - p||^2 = (1 - ||p||^2) / samples for a multinomial draw."""
    target = np.array([0.5, 0.3, 0.1, 0.1])
    draws = np.random.default_rng(0)
    squares = np.mean([iid_divergence(target, 320, draws) ** 2 for _ in range(4000)])
    assert squares == pytest.approx((1 - target @ target) / 320, rel=0.05)
