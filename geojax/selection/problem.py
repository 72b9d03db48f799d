"""The integer least squares problem behind a selection, in exact arithmetic.

Of K devices, L_rnd are drawn at random; their counts sum to b. Of the C = K - L_rnd candidates,
L_sel = L - L_rnd are to be chosen:

    min || A x - y ||_2   over x in {0, 1}^C with sum(x) = L_sel,   y = n L p - b,

where column k of A (F x C) holds candidate k's counts (Li et al. 2022, FedGS, arXiv 2202.01512).
Divided by n L the objective is the divergence of the whole super node.

y is rounded to a grid of 1/4096 sample, which moves each p_f by at most 1 / (8192 n L): 4e-7 where
n L = 320. On the grid all sums are whole numbers: they do not depend on the order of addition, so
comparisons and ties are exact, on every backend. Only the Moore-Penrose start is worked out in
floating point; its scores are rounded before they are compared, and a score just between two steps
may round differently elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from geojax.errors import ConfigError
from geojax.selection.choice import Choice, check_random

GRID = 4096  # steps of the grid in one sample
MOST_SAMPLES = 2**18  # n L; beyond it squares on the grid would not fit 64 bits


class Problem(NamedTuple):
    """Which of the candidates to take."""

    candidates: np.ndarray  # (C,): their positions among all devices
    fixed: np.ndarray  # (L_rnd,): the random devices' positions
    counts: np.ndarray  # int64 (C, F): A, transposed
    targets: np.ndarray  # int64 (L_sel + 1, F): row m is y on the grid if m are to be taken

    @property
    def picks(self) -> int:
        """L_sel."""
        return len(self.targets) - 1

    def residual(self, taken: np.ndarray) -> np.ndarray:
        """A x - y on the grid, int64 (F,); ``taken``: x as bool (C,) or as positions."""
        return GRID * self.counts[taken].sum(axis=0) - self.targets[-1]

    def value(self, taken: np.ndarray) -> int:
        """||A x - y||^2 in grid steps squared."""
        residual = self.residual(taken)
        return int(residual @ residual)

    def values(self, sets: np.ndarray) -> np.ndarray:
        """:meth:`value` of each row of ``sets``, bool (N, C); int64 (N,)."""
        # Counts are small: their sums are exact in float64, whose product is the fast one.
        sums = sets.astype(np.float64) @ self.counts.astype(np.float64)
        residuals = GRID * sums.astype(np.int64) - self.targets[-1]
        return np.einsum("nf,nf->n", residuals, residuals)

    def devices(self, taken: np.ndarray) -> np.ndarray:
        """The super node's devices, random ones included: positions (L,), ascending."""
        return np.sort(np.concatenate([self.fixed, self.candidates[taken]]))


def problem_of(choice: Choice, random_devices: int) -> Problem:
    """Draws the random devices of a choice; what is left to decide.

    Raises:
      ConfigError: more random devices than devices, or too many samples for exact sums.
    """
    check_random(random_devices, choice.devices)
    if choice.batch * choice.devices > MOST_SAMPLES:
        fix = f"times selection.devices = {choice.devices} at most {MOST_SAMPLES}"
        raise ConfigError("batch_size", choice.batch, fix)
    everyone = np.arange(len(choice.counts))
    fixed = np.sort(choice.draws.choice(everyone, random_devices, replace=False))
    candidates = np.delete(everyone, fixed)
    counts = np.asarray(choice.counts).astype(np.int64)
    sizes = np.arange(random_devices, choice.devices + 1)[:, np.newaxis]
    wanted = np.rint(GRID * choice.batch * sizes * np.asarray(choice.target, np.float64))
    targets = wanted.astype(np.int64) - GRID * counts[fixed].sum(axis=0)
    return Problem(candidates, fixed, counts[candidates], targets)
