"""Delay compensation: what a late gradient would be at the parameters that it is applied to.

A center computes g(w_bak) at the parameters w_bak that it pulled; when its push arrives, others
have moved them to w. The first-order expansion of the gradient, with the outer product of the
gradient in place of the Hessian and only its diagonal kept, is (Zheng et al., 2017, eq. 9-10)::

    g(w) ~ g(w_bak) + lam * g(w_bak) * g(w_bak) * (w - w_bak)        (element by element)

References:
  Zheng et al., *Asynchronous Stochastic Gradient Descent with Delay Compensation*, ICML 2017,
  arXiv 1609.08326.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from geojax.errors import ConfigError, nearest
from geojax.sync.algorithm import State

CONSTANT_LAM = 0.04  # MXNet's DCASGD, which GeoMX ships
ADAPTIVE_LAM = 2.0  # the paper's, for its adaptive variant
_MEMORY = 0.95  # the paper's m
_EPS = np.float32(1e-7)


class Compensation(NamedTuple):
    """What is done to a gradient that is older than the parameters which it is applied to.

    Attributes:
      name: as configured.
      needs_backup: whether ``apply`` looks at ``backup``; else none has to be kept.
      init: ``elements -> state``, a mapping of float32 arrays of that many elements.
      apply: ``(gradient, now, backup, state) -> (gradient, state)``: ``now`` are the parameters
        that the gradient will be applied to, ``backup`` those that its sender computed it at.
        Changes none of its arguments.
    """

    name: str
    needs_backup: bool
    init: Callable[[int], State]
    apply: Callable[[np.ndarray, np.ndarray, np.ndarray, State], tuple[np.ndarray, State]]


def constant(*, lam: float = CONSTANT_LAM) -> Compensation:
    """DC-ASGD-c: the same λ at all times; with λ = 0 gradients stay as they are.

    Args:
      lam: λ, at least 0.

    >>> now, backup = np.array([3.0], np.float32), np.array([1.0], np.float32)
    >>> rule = constant(lam=0.5)
    >>> rule.apply(np.array([2.0], np.float32), now, backup, rule.init(1))[0]
    array([6.], dtype=float32)
    """
    factor = np.float32(_valid(lam))

    def apply(
        gradient: np.ndarray, now: np.ndarray, backup: np.ndarray, state: State
    ) -> tuple[np.ndarray, State]:
        return gradient + factor * gradient * gradient * (now - backup), state

    return Compensation("constant", True, lambda _: {}, apply)


def adaptive(*, lam: float = ADAPTIVE_LAM, memory: float = _MEMORY) -> Compensation:
    """DC-ASGD-a: λ falls, element by element, where gradients are large (§5 of the paper).

    With ``mean_square ← m·mean_square + (1 − m)·g⊙g``, zero at first, λ at each push is
    ``lam / √(mean_square + 1e-7)``. There is one ``mean_square`` for the pushes of all centers, in
    their order, as the paper writes it; the updaters that its authors published keep one for each
    worker.

    Args:
      lam: λ0, at least 0.
      memory: m, in [0, 1).
    """
    factor, kept = np.float32(_valid(lam)), np.float32(memory)

    def init(elements: int) -> State:
        return {"mean_square": np.zeros(elements, np.float32)}

    def apply(
        gradient: np.ndarray, now: np.ndarray, backup: np.ndarray, state: State
    ) -> tuple[np.ndarray, State]:
        square = gradient * gradient
        mean_square = kept * state["mean_square"] + (np.float32(1) - kept) * square
        scale = factor / np.sqrt(mean_square + _EPS)
        return gradient + scale * square * (now - backup), {"mean_square": mean_square}

    return Compensation("adaptive", True, init, apply)


def build_compensation(name: str, lam: float | None) -> Compensation | None:
    """The configured compensation; ``none`` gives None.

    Args:
      name: ``none``, ``constant`` or ``adaptive``.
      lam: λ, or None for the published value.

    Raises:
      ConfigError: the name is unknown, or λ is negative or would go unused.
    """
    members = {"constant": constant, "adaptive": adaptive}
    if name == "none":
        if lam is not None:
            raise ConfigError("sync.lam", lam, "set sync.compensation to constant or adaptive too")
        return None
    if name not in members:
        raise ConfigError("sync.compensation", name, nearest(name, ["none", *members]))
    return members[name]() if lam is None else members[name](lam=lam)


def _valid(lam: float) -> float:
    if not 0 <= lam < np.inf:
        raise ConfigError("sync.lam", lam, "use 0 or a small positive number")
    return lam
