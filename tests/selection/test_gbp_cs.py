"""GBP-CS: against plain loops and brute force, alone and for all groups at once."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from device_instances import instance, objective, plain_gbp_cs
from hypothesis import given, strategies

from geojax.selection.batched import search
from geojax.selection.brute_force import optimum
from geojax.selection.gbp_cs import STARTS, path
from geojax.selection.problem import problem_of

INITS, SWAPS = ("moore_penrose", "zero"), ("first_order", "exact")
each_init = pytest.mark.parametrize("init", INITS)
each_swap = pytest.mark.parametrize("swap", SWAPS)


def problems(count, random_devices=2, **sizes):
    return [problem_of(instance(seed=seed, **sizes), random_devices) for seed in range(count)]


def ones(taken):
    return np.flatnonzero(taken).tolist()


@each_init
@each_swap
@pytest.mark.parametrize(
    "sizes",
    [
        {"devices": 12, "chosen": 5, "classes": 20},  # A has more rows than columns
        {"devices": 14, "chosen": 6, "classes": 4},  # and fewer
        {"devices": 9, "chosen": 9},
        {"devices": 9, "chosen": 2},  # nothing is left to choose
    ],
)
def test_every_set_of_a_search_is_that_of_plain_loops(init, swap, sizes):
    for problem in problems(8, **sizes):
        start = STARTS[init](problem, np.random.default_rng(0))
        found = [ones(taken) for taken in path(problem, start, swap)]
        assert found == plain_gbp_cs(problem, init, swap)


@each_swap
@given(
    seed=strategies.integers(0, 10**6), devices=strategies.integers(3, 20),
    classes=strategies.integers(1, 12), random_devices=strategies.integers(0, 2),
    init=strategies.sampled_from(sorted(STARTS)),
)  # fmt: skip
def test_sets_are_feasible_and_the_objective_falls_strictly(
    swap, seed, devices, classes, random_devices, init
):
    chosen = 1 + seed % devices
    choice = instance(devices, chosen, classes, seed)
    problem = problem_of(choice, min(random_devices, chosen))
    sets = list(path(problem, STARTS[init](problem, choice.draws), swap))
    assert all(taken.sum() == problem.picks for taken in sets)
    values = [objective(problem, ones(taken)) for taken in sets]
    assert values == [problem.value(taken) for taken in sets]
    assert (np.diff(values) < 0).all()


@pytest.mark.parametrize(
    ("init", "swap", "classes"),
    [
        ("moore_penrose", "first_order", 5),
        ("moore_penrose", "exact", 40),
        ("zero", "first_order", 40),
        ("zero", "exact", 5),
        ("random", "exact", 5),
    ],
)
def test_all_groups_at_once_find_what_each_finds(init, swap, classes):
    sizes = [(12, 5, 2), (20, 7, 2), (31, 10, 2), (5, 5, 1), (6, 2, 2), (33, 12, 0), (1, 1, 0)]
    drawn = [
        (problem_of(choice, random_devices), choice.draws)
        for devices, chosen, random_devices in sizes
        for choice in [instance(devices, chosen, classes, seed=devices)]
    ]
    starts = [STARTS[init](problem, draws) for problem, draws in drawn]
    alone = [
        list(path(problem, start, swap))[-1]
        for (problem, _), start in zip(drawn, starts, strict=True)
    ]
    together = search([problem for problem, _ in drawn], init, swap, starts)
    assert [ones(taken) for taken in together] == [ones(taken) for taken in alone]


@each_swap
def test_singular_groups_are_no_exception_in_one_call(swap):
    """Equal devices make A^T A singular, and its start goes by eigenvalues then."""
    choice = instance(12, 5, classes=40, seed=3)
    choice.counts[1::2] = choice.counts[::2]
    regular = instance(12, 5, classes=40, seed=4)
    both = [problem_of(each, 0) for each in (choice, regular)]
    alone = [
        list(path(problem, STARTS["moore_penrose"](problem, choice.draws), swap))[-1]
        for problem in both
    ]
    assert [ones(found) for found in search(both, "moore_penrose", swap)] == list(map(ones, alone))
    assert [ones(found) for found in alone] == [
        plain_gbp_cs(problem, "moore_penrose", swap)[-1] for problem in both
    ]


@each_init
@each_swap
def test_the_order_of_devices_makes_no_difference(init, swap):
    draws = np.random.default_rng(0)
    for seed in range(10):
        choice = instance(14, 6, 9, seed)
        order = draws.permutation(14)
        problem = problem_of(choice, 0)
        other = problem_of(choice._replace(counts=choice.counts[order]), 0)
        if init == "zero":  # without random devices the first target is zero, and all are equal
            problem, other = (
                each._replace(targets=each.targets + 7 * np.arange(9)) for each in (problem, other)
            )
        found, moved = (
            list(path(each, STARTS[init](each, draws), swap))[-1] for each in (problem, other)
        )
        assert ones(found) == sorted(order[moved].tolist())


@each_swap
def test_of_equal_devices_the_first_are_taken(swap):
    choice = instance(12, 5, classes=40)  # and two groups: as singular ones, for one compilation
    choice.counts[:] = choice.counts[0]
    problem, first = problem_of(choice, 0), [*range(5)]
    for init in INITS:
        assert ones(list(path(problem, STARTS[init](problem, choice.draws), swap))[-1]) == first
    assert [ones(each) for each in search([problem] * 2, "moore_penrose", swap)] == [first] * 2


@each_swap
def test_of_equal_swaps_the_first_is_taken(swap):
    choice = instance(6, 2, 2)
    choice.counts[:] = [[16, 0], [16, 0], [0, 16], [0, 16], [0, 16], [16, 0]]
    problem = problem_of(choice._replace(target=np.array([0.5, 0.5])), 0)
    start = np.array([True, True, False, False, False, False])
    assert ones(list(path(problem, start, swap))[-1]) == [1, 2]
    assert ones(search([problem], "random", swap, [start])[0]) == [1, 2]


def gaps(count, swap):
    """How far above the optimum of C(20, 5) the divergence is, as shares of it."""
    found = []
    for problem in problems(count, 0, devices=20, chosen=5, classes=30, batch=32):
        best = problem.value(optimum(problem))
        last = list(path(problem, STARTS["moore_penrose"](problem, np.random.default_rng()), swap))
        found.append((problem.value(last[-1]) / best) ** 0.5 - 1)
    return np.array(found)


def test_it_comes_as_close_to_the_optimum_as_was_measured():
    """40 instances of C(20, 5): 6.4 % above it on average by the gradient, 1.3 % by exact changes.

    They find the optimum itself 9 and 26 times. On 40 other instances, before this was written, it
    had been 5.9 % and 1.0 %, 6 and 24 times; neither is published.
    """
    first_order, exact = gaps(40, "first_order"), gaps(40, "exact")
    assert min(first_order.min(), exact.min()) >= 0
    assert first_order.mean() == pytest.approx(0.064, abs=0.003)
    assert exact.mean() == pytest.approx(0.0134, abs=0.002)
    hits = (first_order < 1e-9).sum(), (exact < 1e-9).sum()
    assert hits == pytest.approx((9, 26), abs=1)


def test_the_registry_and_a_choice_load_no_jax():
    program = (
        "import sys, numpy as np\n"
        "from geojax.selection.registry import *\n"
        "s = build_selection(SELECTIONS.settings('gbp_cs', devices=2, random_devices=0))\n"
        "c = Choice(np.eye(3, dtype=np.float32), np.full(3, 1 / 3), 2, 1, "
        "np.random.default_rng(0))\n"
        "print(choose(s, c).tolist(), 'jax' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "[0, 1] False\n", done.stderr
