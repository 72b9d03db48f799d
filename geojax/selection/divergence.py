"""How far the class shares of the chosen batches are from the target."""

from __future__ import annotations

import numpy as np

METRICS = ("l2", "l1", "cosine", "jensen_shannon", "wasserstein")


def shares_of(counts: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Class shares of the union of the chosen rows of ``counts`` (K, F): float64 (F,)."""
    total = np.asarray(counts, np.float64)[chosen].sum(axis=0)
    return total / total.sum()


def divergence(shares: np.ndarray, target: np.ndarray, metric: str = "l2") -> float:
    """The distance of two distributions over F classes.

    Args:
      shares: P_m of a super node (F,).
      target: p (F,).
      metric: ``l2``: ||P_m - p||_2, what FedGS reports; ``l1``; ``cosine``: one minus the cosine;
        ``jensen_shannon``: square root of the divergence, in nats; ``wasserstein``: with the
        classes' numbers as places on a line.

    >>> divergence(np.array([0.5, 0.5]), np.array([0.8, 0.2])).__round__(6)
    0.424264
    """
    shares, target = np.asarray(shares, np.float64), np.asarray(target, np.float64)
    if metric == "l2":
        return float(np.linalg.norm(shares - target))
    if metric == "l1":
        return float(np.abs(shares - target).sum())
    if metric == "cosine":
        norms = np.linalg.norm(shares) * np.linalg.norm(target)
        return float(1 - shares @ target / norms)
    if metric == "wasserstein":
        return float(np.abs(np.cumsum(shares - target)).sum())
    if metric == "jensen_shannon":
        from scipy.spatial.distance import jensenshannon

        return float(jensenshannon(shares, target))
    raise ValueError(f"metric {metric!r}: one of {', '.join(METRICS)}")


def iid_divergence(target: np.ndarray, samples: int, draws: np.random.Generator) -> float:
    """The oracle's: ||P - p||_2 of ``samples`` labels drawn from p itself.

    What a super node of n L samples would have if its data were homogeneous. It is a yardstick, no
    selection: no set of devices stands behind it.
    """
    return divergence(draws.multinomial(samples, target) / samples, target)
