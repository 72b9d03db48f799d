"""How close the selected devices come to the target: ``python -m experiments.bench.selection``.

For every kind of skew a table of selectors: mean, median, standard deviation, largest and smallest
divergence ||P - p||_2 of the union of the chosen batches, over the same instances for each, and the
CPU time of one selection. Two of ten devices are random, except for ``random``. The last row is no
selection: as many samples as ten batches have, drawn from p itself. ``selection=exact_swap`` is the
row with two restarts.

``brute_force`` knows the true optimum. It solves the first --optimum instances (of those with less
than 2e8 sets), and the column "gap" says by how much each selector's mean exceeds the optimum's on
these. ``bayesian`` takes seconds an instance; it solves the first --bayesian ones, if asked to.

The last table is the time of one call that selects for ten groups at once.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import command
from experiments.bench import report
from experiments.bench.selection_instances import (
    BATCH,
    DEVICES,
    GROUPS,
    Instances,
    dirichlet_instances,
    label_mixture_instances,
    writer_instances,
)
from geojax.selection.choice import Choice
from geojax.selection.divergence import divergence, iid_divergence, shares_of
from geojax.selection.registry import SELECTIONS, Selection, build_selection, choose, choose_all
from geojax.settings import load_plugins

ROWS: dict[str, dict[str, Any]] = {
    "random": {"name": "random"},
    "monte_carlo": {"name": "monte_carlo"},
    "genetic": {"name": "genetic"},
    "genetic, mutation .1": {"name": "genetic", "mutation": 0.1},
    "gbp_cs": {"name": "gbp_cs"},
    "gbp_cs, zero": {"name": "gbp_cs", "init": "zero"},
    "gbp_cs, random": {"name": "gbp_cs", "init": "random"},
    "exact swap": {"name": "gbp_cs", "swap": "exact"},
    "exact swap, 2 restarts": {"name": "gbp_cs", "swap": "exact", "restarts": 2},
    "exact swap, 4 restarts": {"name": "gbp_cs", "swap": "exact", "restarts": 4},
    "exact swap, zero": {"name": "gbp_cs", "init": "zero", "swap": "exact"},
}
OPTIMUM, BAYESIAN, ORACLE = "brute_force", "bayesian", "IID batch"
MOST_SETS = 2e8  # of an instance that brute_force is asked to solve
SKEWS = (0.1, 0.3, 1.0)
LABELS, WRITERS = "Label mixture, 62 classes", "MNIST by writer"
DIRICHLET = "MNIST's labels, Dirichlet({:g})"
COLUMNS = ("selector", "instances", "mean", "median", "std", "max", "min", "gap", "CPU ms")
CALLS = 30  # of which the last table gives the median


class Outcome(NamedTuple):
    """What a selector reached on some of the instances."""

    divergences: dict[int, float]  # by the instance's number
    seconds: float  # CPU time of one selection, on average


def selections(names: Sequence[str] | None = None) -> dict[str, Selection]:
    """The selectors of the table; ``names``: rows of :data:`ROWS`, or members of the registry.

    Raises:
      ConfigError: there is no such member.
    """
    chosen = {name: ROWS.get(name, {"name": name}) for name in names or ROWS}
    return {
        row: build_selection(SELECTIONS.settings(keys["name"], **keys))
        for row, keys in chosen.items()
    }


def evaluate(selection: Selection, instances: Mapping[int, Choice], seed: int) -> Outcome:
    """Solves the instances, by their numbers; randomness is fixed by number and ``seed``."""
    found, seconds = {}, 0.0
    for number, instance in instances.items():
        choice = instance._replace(draws=np.random.default_rng((seed, number)))
        start = time.process_time()
        chosen = choose(selection, choice)
        seconds += time.process_time() - start
        found[number] = divergence(shares_of(choice.counts, chosen), choice.target)
    return Outcome(found, seconds / max(1, len(found)))


def outcomes(
    drawn: Instances,
    count: int,
    names: Sequence[str] | None,
    optimum: int,
    bayesian: int,
    seed: int,
) -> dict[str, Outcome]:
    """Every selector's outcome on ``count`` instances; :data:`ORACLE` is among them."""
    instances = dict(enumerate(islice(drawn, count)))
    found = {row: evaluate(each, instances, seed) for row, each in selections(names).items()}
    small = [number for number, each in instances.items() if _sets(each) <= MOST_SETS]
    for row, some in ((BAYESIAN, list(instances)[:bayesian]), (OPTIMUM, small[:optimum])):
        if some:
            part = {number: instances[number] for number in some}
            found[row] = evaluate(selections([row])[row], part, seed)
    draws = np.random.default_rng(seed)
    oracle = {
        number: iid_divergence(each.target, BATCH * DEVICES, draws)
        for number, each in instances.items()
    }
    return {**found, ORACLE: Outcome(oracle, 0.0)}


def gap(outcome: Outcome, best: Outcome) -> float | None:
    """By what share the mean exceeds the optimum's, on the instances that both have solved."""
    both = sorted(outcome.divergences.keys() & best.divergences.keys())
    if not both:
        return None
    ours, least = (sum(each.divergences[number] for number in both) for each in (outcome, best))
    return ours / least - 1


def time_of_all(selection: Selection, instances: Sequence[Choice]) -> float:
    """Median CPU seconds of a call that selects for all groups, compiled before."""
    times = []
    for number in range(CALLS + 1):
        choices = [each._replace(draws=np.random.default_rng(number)) for each in instances]
        start = time.process_time()
        choose_all(selection, choices)
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def _sets(choice: Choice) -> int:
    return math.comb(len(choice.counts) - 2, choice.devices - 2)


def _table(title: str, found: Mapping[str, Outcome]) -> Table:
    table = report.empty_table(title, COLUMNS)
    for row, outcome in found.items():
        values = np.array(list(outcome.divergences.values()))
        figures = values.mean(), np.median(values), values.std(), values.max(), values.min()
        over = gap(outcome, found[OPTIMUM]) if OPTIMUM in found else None
        table.add_row(
            row, str(len(values)), *(f"{figure:.4f}" for figure in figures),
            "" if over is None else f"{100 * over:.1f} %",
            "" if row == ORACLE else f"{1e3 * outcome.seconds:.2f}",
        )  # fmt: skip
    return table


def _times(names: Sequence[str] | None, seed: int) -> Table:
    table = report.empty_table(f"{GROUPS} groups in one call, 62 classes", ("selector", "CPU ms"))
    instances = list(islice(label_mixture_instances(np.random.default_rng(seed)), GROUPS))
    for row, selection in selections(names).items():
        if selection.select_all is not None:
            table.add_row(row, f"{1e3 * time_of_all(selection, instances):.2f}")
    table.add_row("load of the machine, 1 min", f"{os.getloadavg()[0]:.2f}")
    return table


def main() -> None:
    """Draws, selects and prints the tables."""
    parser = report.parser("selection", __doc__)
    parser.add_argument("--instances", type=int, default=150, help="groups of each kind of skew")
    parser.add_argument("--writers", help="file of MNIST's writers, see data.writers; adds a table")
    parser.add_argument("--data-path", help="folder of MNIST, for --writers")
    parser.add_argument("--kinds", nargs="+", help="tables, by words of their titles; default: all")
    parser.add_argument("--selectors", nargs="+", help=f"of: {', '.join([*ROWS, 'or a member'])}")
    parser.add_argument("--optimum", type=int, default=10, help="instances with a known optimum")
    parser.add_argument("--bayesian", type=int, default=0, help="instances that bayesian solves")
    parser.add_argument("--plugins", nargs="+", default=[], help="modules with own selections")
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn")
    asked = parser.parse_args()
    if asked.instances < 1:
        parser.error("--instances: at least 1")
    titles = [LABELS, WRITERS, *map(DIRICHLET.format, SKEWS)]
    for word in asked.kinds or ():
        if not any(word in title for title in titles):
            parser.error(f"--kinds {word}: in none of {', '.join(titles)}")
    with command.refusing():
        load_plugins(asked.plugins)
        kinds: dict[str, Callable[[np.random.Generator], Instances]] = {
            LABELS: label_mixture_instances
        }
        if asked.writers:
            kinds[WRITERS] = writer_instances(asked.writers, asked.data_path)
        kinds |= {DIRICHLET.format(alpha): dirichlet_instances(alpha) for alpha in SKEWS}
        console = Console(width=max(100, Console().width))
        for title, instances in kinds.items():
            if not any(word in title for word in asked.kinds or [""]):
                continue
            drawn = instances(np.random.default_rng(asked.seed))
            limits = asked.optimum, asked.bayesian
            found = outcomes(drawn, asked.instances, asked.selectors, *limits, asked.seed)
            console.print(_table(title, found))
        console.print(_times(asked.selectors, asked.seed))


if __name__ == "__main__":
    main()
