"""Selection by a genetic algorithm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geojax.selection.choice import SELECTIONS, Choice, CountsConfig, Selection, by_counts
from geojax.selection.problem import Problem, problem_of
from geojax.settings import key


@dataclass
class GeneticConfig(CountsConfig):
    """Keys of ``selection=genetic``."""

    name: str = "genetic"
    population: int = key(100, "sets of a generation", least=2)
    generations: int = key(100, "of sets", least=0)
    tournament: int = key(3, "sets that compete for being a parent", least=1)
    mutation: float = key(
        0.0, "chance that a child swaps a device; 0: as the authors' code does in effect",
        least=0, most=1,
    )  # fmt: skip


@SELECTIONS.register("genetic", GeneticConfig)
def genetic(config: GeneticConfig) -> Selection:
    """The authors' constants: population 100, 100 generations, tournaments of 3.

    In their code a mutation (probability .001 a gene) edits a copy, so it has no effect. The
    default does what that code does: crossover and tournaments alone. With ``mutation`` above 0 a
    child swaps one device that it has for one that it has not: ours, and it works.
    """

    def select(choice: Choice) -> np.ndarray:
        problem = problem_of(choice, config.random_devices)
        return problem.devices(evolve(problem, choice.draws, config))

    return by_counts("genetic", config, select)


def evolve(problem: Problem, draws: np.random.Generator, config: GeneticConfig) -> np.ndarray:
    """The best set of the last generation, bool (C,).

    A generation: as many parents as there are sets, each the best of a tournament; pairs of them
    exchange what lies between two cuts; children that have not L_sel devices are dropped. Of old
    sets and children together the best stay (reconstructed: the notes on the authors' code do not
    say who survives).
    """
    everyone, size = len(problem.counts), config.population
    ranks = draws.random((size, everyone)).argsort(axis=1).argsort(axis=1)
    sets = ranks < problem.picks
    if not 0 < problem.picks < everyone:
        return sets[0]
    values = problem.values(sets)
    for _ in range(config.generations):
        rivals = draws.integers(size, size=(size - size % 2, config.tournament))
        places = np.arange(len(rivals))
        winners = rivals[places, np.argmin(values[rivals], axis=1)]
        children = _crossed(sets[winners], draws)
        children = children[children.sum(axis=1) == problem.picks]
        _mutate(children, draws, config.mutation)
        sets = np.concatenate([sets, children])
        values = np.concatenate([values, problem.values(children)])
        best = np.argsort(values, kind="stable")[:size]
        sets, values = sets[best], values[best]
    return sets[0] if config.generations else sets[np.argmin(values)]


def _crossed(parents: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Two-point crossover of each pair of rows: both children keep the outside of a parent."""
    first, second = parents[::2], parents[1::2]
    cuts = np.sort(draws.integers(parents.shape[1] + 1, size=(len(first), 2)), axis=1)
    genes = np.arange(parents.shape[1])
    between = (genes >= cuts[:, :1]) & (genes < cuts[:, 1:])
    return np.concatenate([np.where(between, second, first), np.where(between, first, second)])


def _mutate(children: np.ndarray, draws: np.random.Generator, chance: float) -> None:
    """In place: some rows swap one of their devices for another one."""
    if not chance:
        return
    for place in np.flatnonzero(draws.random(len(children)) < chance):
        on, off = np.flatnonzero(children[place]), np.flatnonzero(~children[place])
        children[place, draws.choice(on)] = False
        children[place, draws.choice(off)] = True
