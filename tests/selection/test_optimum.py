"""Brute force and the linear program find the optimum; searches without a gradient come near it."""

from __future__ import annotations

import numpy as np
import pytest
from device_instances import instance, objective, plain_optimum

from geojax.errors import ConfigError
from geojax.selection.brute_force import optimum
from geojax.selection.genetic import GeneticConfig, evolve
from geojax.selection.milp import solved
from geojax.selection.problem import problem_of
from geojax.selection.registry import SELECTIONS, build_selection, choose
from geojax.selection.sampling import best_of_draws


@pytest.mark.parametrize(
    "sizes",
    [(9, 4, 3), (9, 4, 20), (8, 5, 6), (10, 3, 6), (7, 2, 6), (6, 6, 6), (6, 1, 6), (11, 6, 2)],
)
def test_brute_force_is_the_best_of_all_sets(sizes):
    for seed in range(6):
        problem = problem_of(instance(*sizes, seed=seed), 0)
        assert optimum(problem).tolist() == plain_optimum(problem)


def test_of_equal_sets_brute_force_takes_the_first():
    choice = instance(8, 4, 3)
    choice.counts[:] = choice.counts[0]
    assert optimum(problem_of(choice, 0)).tolist() == [0, 1, 2, 3]
    choice.counts[[0, 3, 5]] = choice.counts[0, [1, 2, 0]]
    problem = problem_of(choice, 0)
    assert optimum(problem).tolist() == plain_optimum(problem)


def test_blocks_of_pairs_make_no_difference(monkeypatch):
    problem = problem_of(instance(12, 6, 5), 0)
    whole = optimum(problem)
    monkeypatch.setattr("geojax.selection.brute_force.BLOCK", 7)
    assert optimum(problem).tolist() == whole.tolist()


@pytest.mark.parametrize("sizes", [(9, 4, 3), (10, 4, 12), (8, 6, 5), (6, 1, 4)])
def test_the_linear_program_has_the_same_optimum(sizes):
    for seed in range(3):
        problem = problem_of(instance(*sizes, seed=seed), 0)
        assert problem.value(solved(problem, 10**5)) == problem.value(optimum(problem))


@pytest.mark.nightly
def test_the_linear_program_has_the_same_optimum_on_20_devices():
    for seed in range(3):
        problem = problem_of(instance(20, 5, 30, seed=seed, batch=32), 0)
        assert problem.value(solved(problem, 10**6)) == problem.value(optimum(problem))


def test_a_linear_program_that_is_not_proved_is_refused():
    choice = instance(20, 6, 30)
    selection = build_selection(
        SELECTIONS.settings("milp", devices=6, random_devices=0, most_nodes=1)
    )
    with pytest.raises(ConfigError, match=r"not proved optimal within selection\.most_nodes = 1"):
        choose(selection, choice)


def test_an_instance_with_too_many_sets_is_refused():
    keys = {"devices": 10, "random_devices": 2}
    choice = instance(80, 10, 30)
    says = r"C\(78, 8\) = 23,446,881,315 sets, more than selection\.most_sets = 1,000,000,000; use"
    with pytest.raises(ConfigError, match=says):
        choose(build_selection(SELECTIONS.settings("brute_force", **keys)), choice)


def test_more_tries_and_generations_come_nearer():
    problem = problem_of(instance(24, 8, 20, batch=32), 0)
    best = objective(problem, optimum(problem))

    def mean(search):
        return np.mean([problem.value(search(np.random.default_rng(i))) for i in range(6)])

    tries = [mean(lambda draws, n=n: best_of_draws(problem, draws, n)) for n in (1, 30, 300)]
    assert tries[0] > tries[1] > tries[2] >= best

    def bred(generations, mutation=0.0):
        config = GeneticConfig(population=30, generations=generations, mutation=mutation)
        return mean(lambda draws: evolve(problem, draws, config))

    assert bred(0) > bred(3) > bred(40) >= best
    assert bred(40) > bred(40, mutation=0.3) >= best  # it finds devices that no parent has
