"""Labels of many writers without their images: a mixture of Dirichlet-multinomials.

A writer belongs to one of two groups, has class shares of its own, drawn from the group's
Dirichlet distribution, and so many samples as writers of the group have. The mixture was fitted to
FEMNIST's 62 classes (digits, A-Z, a-z) by Apple's pfl-research (publications/mdm, Apache-2.0); its
constants are theirs, sizes are our rounded reading of FEMNIST's two-peaked histogram.
"""

from __future__ import annotations

import numpy as np

CLASSES = 62
WEIGHTS = (0.396, 0.604)  # of the two groups
SIZES = (340, 165)  # samples of a writer, about

_DIGITS = (
    (12.49, 13.53, 11.76, 12.55, 11.48, 10.29, 11.92, 12.59, 11.84, 11.94),
    (44.5, 50.7, 45.0, 45.5, 44.3, 41.8, 45.3, 47.1, 44.5, 44.5),
)
_UPPER = (
    (
        3.96, 2.28, 7.35, 2.61, 2.15, 6.58, 1.22, 1.61, 8.22, 2.23, 1.21, 2.75, 6.85, 5.17, 20.39,
        6.25, 1.24, 2.30, 16.82, 6.53, 9.81, 2.79, 3.03, 1.31, 2.97, 1.34,
    ),
    (
        3.97, 3.77, 4.40, 3.72, 3.45, 3.72, 3.48, 3.44, 5.73, 3.74, 3.41, 4.39, 3.75, 4.09, 4.21,
        4.05, 3.74, 3.84, 3.95, 3.91, 3.94, 4.16, 3.98, 3.93, 3.67, 4.00,
    ),
)  # fmt: skip
_LOWER = (
    (
        6.93, 3.53, 1.37, 7.72, 19.72, 1.19, 2.24, 6.16, 1.33, 1.03, 1.27, 9.84, 1.25, 8.00, 1.32,
        1.15, 1.78, 10.35, 1.33, 14.27, 1.37, 1.40, 1.34, 1.36, 1.20, 1.38,
    ),
    (
        3.94, 3.90, 3.88, 3.79, 3.81, 3.80, 3.40, 4.05, 3.54, 2.29, 3.35, 5.79, 3.80, 3.82, 3.87,
        3.48, 2.95, 3.83, 3.97, 3.96, 3.88, 4.14, 3.95, 4.00, 3.30, 3.84,
    ),
)  # fmt: skip
ALPHAS = np.array(
    [
        [*digits, *upper, *lower]
        for digits, upper, lower in zip(_DIGITS, _UPPER, _LOWER, strict=True)
    ]
)
"""Concentrations of the groups' Dirichlet distributions, (2, 62)."""


def writer_groups(writers: int, draws: np.random.Generator) -> np.ndarray:
    """Which of the two groups each writer is in: 0 or 1, int64 (writers,)."""
    return draws.choice(len(WEIGHTS), size=writers, p=WEIGHTS)


def writer_shares(groups: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Class shares of writers in these groups: float64 (writers, 62), rows sum to one."""
    gammas = draws.standard_gamma(ALPHAS[groups])
    return gammas / gammas.sum(axis=1, keepdims=True)


def mean_shares() -> np.ndarray:
    """Class shares of all samples of infinitely many writers: float64 (62,)."""
    samples = np.array(WEIGHTS) * SIZES
    shares = ALPHAS / ALPHAS.sum(axis=1, keepdims=True)
    return samples @ shares / samples.sum()
