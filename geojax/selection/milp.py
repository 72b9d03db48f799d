"""The true optimum as a mixed-integer linear program, solved by HiGHS.

The objective is a sum of squares, and yet the program is no approximation. The super node's count
z_f of a class is a whole number, and t_f >= (z_f - w_f)^2 has to hold at whole numbers only. The
lines through the parabola's neighbouring points at k and k + 1,

    t_f >= (k - w_f)^2 + (2 k + 1 - 2 w_f)(z_f - k),

form a convex function that meets the parabola at every whole number. So

    min sum_f t_f   over x in {0, 1}^C, sum(x) = L_sel, z = A x, and these lines

has the optimum of min || A x - y ||_2, with w = y. It shares nothing with
:mod:`geojax.selection.brute_force`, and is much slower at the published sizes: its relaxation is
loose.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geojax.errors import ConfigError
from geojax.selection.choice import SELECTIONS, Choice, CountsConfig, Selection, by_counts
from geojax.selection.problem import GRID, Problem, problem_of
from geojax.settings import key


@dataclass
class MilpConfig(CountsConfig):
    """Keys of ``selection=milp``."""

    name: str = "milp"
    most_nodes: int = key(
        100_000, "nodes of the search; an instance that needs more is refused", least=1
    )


@SELECTIONS.register("milp", MilpConfig)
def milp(config: MilpConfig) -> Selection:
    """The set with the smallest divergence, proved by branch and bound."""

    def select(choice: Choice) -> np.ndarray:
        problem = problem_of(choice, config.random_devices)
        return problem.devices(solved(problem, config.most_nodes))

    return by_counts("milp", config, select)


def solved(problem: Problem, most_nodes: int) -> np.ndarray:
    """The best set, bool (C,).

    Raises:
      ConfigError: not proved optimal within ``most_nodes``.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    devices, classes = problem.counts.shape
    wanted = problem.targets[-1] / GRID
    largest = np.sort(problem.counts, axis=0)[devices - problem.picks :].sum(axis=0)
    smallest = np.sort(problem.counts, axis=0)[: problem.picks].sum(axis=0)
    rows, columns, entries, least = [], [], [], []
    for label in range(classes):
        holders = np.flatnonzero(problem.counts[:, label])
        # At least one line a class; it is exact where the count cannot vary.
        for k in range(smallest[label], max(largest[label], smallest[label] + 1)):
            slope = 2 * k + 1 - 2 * wanted[label]
            rows += [len(least)] * (len(holders) + 1)
            columns += [devices + label, *holders]
            entries += [1.0, *(-slope * problem.counts[holders, label])]
            least.append((k - wanted[label]) ** 2 - slope * k)
    lines = coo_array((entries, (rows, columns)), shape=(len(least), devices + classes)).tocsr()
    most = np.concatenate([np.ones(devices), np.full(classes, np.inf)])
    members = np.concatenate([np.ones(devices), np.zeros(classes)])
    result = milp(
        np.concatenate([np.zeros(devices), np.ones(classes)]),
        integrality=members,
        bounds=Bounds(0, most),  # type: ignore[arg-type]
        constraints=[
            LinearConstraint(lines, lb=np.array(least)),  # type: ignore[arg-type]
            LinearConstraint(members[np.newaxis], problem.picks, problem.picks),
        ],
        options={"node_limit": most_nodes, "mip_rel_gap": 0.0},
    )
    if result.status != 0 or result.x is None:
        fix = (
            f"not proved optimal within selection.most_nodes = {most_nodes}; raise it, or use "
            f"selection=brute_force"
        )
        raise ConfigError("selection.name", "milp", fix)
    return result.x[:devices] > 0.5
