"""Linear programs that a signal may interrupt."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csc_array, csr_array

from geojax.errors import GeojaxError

SIGNAL_PERIOD_S = 0.1  # in which a signal that did not interrupt the wait is heard


class Solution(NamedTuple):
    """What a linear program was found to be.

    Attributes:
      value: of the objective.
      x: where it is reached.
      prices: of the rows: what the value gains when a limit rises by one; at least 0.
    """

    value: float
    x: np.ndarray
    prices: np.ndarray


def maximize(
    gains: np.ndarray, matrix: csr_array | csc_array, limits: np.ndarray, *, what: str,
    method: str = "highs-ds",
) -> Solution:  # fmt: skip
    """Maximizes gains·x subject to matrix x ≤ limits and x ≥ 0.

    The solver (HiGHS) runs in a thread, so that the main thread still hears signals: a handler that
    raises ends the wait, and the thread with the process.

    Args:
      gains: of each column.
      matrix: rows and columns.
      limits: of each row.
      what: is not found if it fails, for the message.
      method: of :func:`scipy.optimize.linprog`.

    Raises:
      GeojaxError: if the solver fails.
    """
    results: list = []
    over = threading.Lock()  # one step in C: an exception in the midst of an Event leaves it broken
    over.acquire()

    def solve() -> None:
        try:
            results.append(linprog(0.0 - gains, A_ub=matrix, b_ub=limits, method=method))
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is wanted
            results.append(error)
        finally:
            over.release()

    threading.Thread(target=solve, name="linear program", daemon=True).start()
    while not over.acquire(timeout=SIGNAL_PERIOD_S):
        pass  # what came between two steps of the interpreter does not end a wait in C
    (solved,) = results
    if isinstance(solved, BaseException):
        raise solved
    if not solved.success:
        raise GeojaxError(f"{what} not found: {solved.message}")
    return Solution(-float(solved.fun), solved.x, np.maximum(-solved.ineqlin.marginals, 0.0))
