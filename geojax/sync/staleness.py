"""s(τ): what an offer counts that is τ merges older than the parameters it is merged into."""

from __future__ import annotations

from collections.abc import Callable

from geojax.errors import ConfigError

Weighting = Callable[[int], float]
"""``τ -> s(τ)``, in (0, 1], with s(0) = 1."""

NAMES = ("constant", "hinge", "polynomial")
# FedAsync's values of a. Its b = 4 is by the paper's count, τ + 1, and so 3 by ours: our default is
# one merge wider.
_POLYNOMIAL_A = 0.5
_HINGE_A, _HINGE_B = 10.0, 4


def constant() -> Weighting:
    """s(τ) = 1."""
    return lambda _: 1.0


def polynomial(a: float = _POLYNOMIAL_A) -> Weighting:
    """s(τ) = (1 + τ)^(−a).

    >>> polynomial(0.5)(3)
    0.5
    """
    return lambda staleness: (1 + staleness) ** -a


def hinge(a: float = _HINGE_A, b: int = _HINGE_B) -> Weighting:
    """s(τ) = 1 up to τ = b, then 1 / (a·(τ − b) + 1).

    >>> hinge(10, 4)(4), hinge(10, 4)(6)
    (1.0, 0.047619047619047616)
    """
    return lambda staleness: 1.0 if staleness <= b else 1 / (a * (staleness - b) + 1)


def build_weighting(name: str, a: float | None, b: int | None) -> Weighting:
    """The configured s, of Xie et al. (2019), §5.1.

    Args:
      name: ``constant``, ``polynomial`` or ``hinge``.
      a: None: 0.5 for ``polynomial``, 10 for ``hinge``.
      b: of ``hinge``, by our count, in which a fresh offer has τ = 0; None: 4, which is 5 by the
        paper's, where it has 1.

    Raises:
      ConfigError: a or b would go unused.
    """
    if name == "constant" and a is not None:
        raise ConfigError("sync.a", a, "set sync.s to polynomial or hinge too")
    if name != "hinge" and b is not None:
        raise ConfigError("sync.b", b, "set sync.s to hinge too")
    if name == "polynomial":
        return polynomial() if a is None else polynomial(a)
    if name == "hinge":
        return hinge(_HINGE_A if a is None else a, _HINGE_B if b is None else b)
    return constant()
