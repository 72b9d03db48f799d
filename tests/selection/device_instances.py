"""Devices to choose from, and GBP-CS in plain loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from geojax.selection.choice import Choice
from geojax.selection.problem import GRID, Problem

BATCH = 16


def instance(devices=12, chosen=5, classes=6, seed=0, batch=BATCH) -> Choice:
    """Batches of skewed devices, and a target of its own."""
    draws = np.random.default_rng((devices, chosen, classes, seed))
    shares = draws.dirichlet(np.full(classes, 0.7), size=devices)
    counts = draws.multinomial(batch, shares).astype(np.float32)
    target = draws.dirichlet(np.full(classes, 5.0))
    return Choice(counts, target, chosen, batch, np.random.default_rng(seed))


def objective(problem: Problem, taken) -> int:
    """||A x - y||^2, number by number."""
    total = 0
    for label in range(problem.counts.shape[1]):
        have = sum(int(problem.counts[k, label]) for k in taken)
        total += (GRID * have - int(problem.targets[-1, label])) ** 2
    return total


def gradients(problem: Problem, taken, wanted) -> list[int]:
    residual = [
        GRID * sum(int(problem.counts[k, label]) for k in taken) - int(wanted[label])
        for label in range(problem.counts.shape[1])
    ]
    return [sum(int(a) * r for a, r in zip(row, residual, strict=True)) for row in problem.counts]


def plain_gbp_cs(problem: Problem, init: str, swap: str) -> list[list[int]]:
    """All sets of a search, each ascending: the published algorithm, spelled out."""
    everyone = range(len(problem.counts))
    if init == "moore_penrose":
        inverse = np.linalg.pinv(problem.counts.T.astype(float), rtol=1e-5)
        scores = np.round((inverse @ problem.targets[-1] / GRID) * 2**20)
        taken = sorted(sorted(everyone, key=lambda k: (-scores[k], k))[: problem.picks])
    else:
        taken = []
        for count in range(problem.picks):
            gradient = gradients(problem, taken, problem.targets[count])
            off = [k for k in everyone if k not in taken]
            taken = sorted([*taken, min(off, key=lambda k: (gradient[k], k))])
    sets = [taken]
    while True:
        on, off = sets[-1], [k for k in everyone if k not in sets[-1]]
        if not on or not off:
            return sets
        now = objective(problem, on)
        if swap == "first_order":
            gradient = gradients(problem, on, problem.targets[-1])
            pairs = [
                (min(off, key=lambda k: (gradient[k], k)), min(on, key=lambda k: (-gradient[k], k)))
            ]
        else:
            pairs = [(i, j) for i in off for j in on]
        swapped = [sorted([*(k for k in on if k != j), i]) for i, j in pairs]
        best = min(swapped, key=lambda each: objective(problem, each))  # the first of equal ones
        if objective(problem, best) >= now:
            return sets
        sets.append(best)


def plain_optimum(problem: Problem) -> list[int]:
    """Every set, one after the other; of equal ones the first."""
    sets = combinations(range(len(problem.counts)), problem.picks)
    return list(min(sets, key=lambda taken: objective(problem, taken)))
