"""TiFL's tiers, and the policies by which one of them is drawn for each round."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ADAPTIVE = "adaptive"
PUBLISHED = {  # the paper's policies for five tiers
    "fast1": (0.225, 0.225, 0.225, 0.225, 0.1),
    "fast2": (0.2375, 0.2375, 0.2375, 0.2375, 0.05),
    "fast3": (0.25, 0.25, 0.25, 0.25, 0.0),
    "random": (0.7, 0.1, 0.1, 0.05, 0.05),
}


class TierPolicy:
    """Draws the tier of a round; the adaptive policy learns by which parameters do better where.

    Args:
      name: of :func:`probabilities`, or ``adaptive``.
      interval: I of the adaptive policy.
      credit: rounds that each tier may get, of the adaptive policy.

    Attributes:
      tiers: the centers of each, the fastest first; empty: they are not known yet.
      chances: the probability of each.
      credits: rounds that each may still get, of the adaptive policy.
    """

    def __init__(self, name: str, *, interval: int, credit: int):
        self._name, self._interval, self._credit = name, interval, credit
        self.tiers: list[list[str]] = []
        self.chances: tuple[float, ...] = ()
        self.credits: list[int] = []
        self._accuracy: list[float | None] = []  # A_t, at the last comparison

    def part(self, tier_of: Mapping[str, int]) -> None:
        """The tiers are known: that of each center."""
        count = 1 + max(tier_of.values())
        self.tiers = [[c for c in tier_of if tier_of[c] == tier] for tier in range(count)]
        self.chances = probabilities(self._name, count)
        self.credits = [self._credit] * count
        self._accuracy = [None] * count

    def compares(self, rounds: int) -> bool:
        """Whether accuracies are compared so many rounds after the tiers were known."""
        return self._name == ADAPTIVE and rounds % self._interval == 0

    def draw(self, stream: np.random.Generator, living: Sequence[Sequence[str]]) -> int | None:
        """The tier of a round, among those with living centers and credits; None: nobody lives."""
        lives = [bool(tier) for tier in living]
        if not any(lives):
            return None
        if self._name == ADAPTIVE:
            if not any(c for c, here in zip(self.credits, lives, strict=True) if here):
                self.credits = [self._credit] * len(living)
            lives = [here and c > 0 for c, here in zip(self.credits, lives, strict=True)]
        chances = np.where(lives, self.chances, 0.0)
        if not chances.sum():
            chances = np.array(lives, float)
        tier = int(stream.choice(len(living), p=chances / chances.sum()))
        if self._name == ADAPTIVE:
            self.credits[tier] -= 1
        return tier

    def compare(self, present: Sequence[float | None], tier: int) -> None:
        """Takes the accuracy of each tier now: is the one drawn last (−1: none) doing better?"""
        before = self._accuracy
        self._accuracy = [a if a is not None else b for a, b in zip(present, before, strict=True)]
        old, new = (before[tier], self._accuracy[tier]) if tier >= 0 else (None, None)
        if old is not None and new is not None and new <= old:
            self.chances = changed(self._accuracy, self.credits)

    def record(self) -> dict[str, Any]:
        """What was compared last, and what follows from it."""
        return {
            "accuracy": list(self._accuracy), "chances": list(self.chances),
            "credits": list(self.credits),
        }  # fmt: skip


def probabilities(policy: str, count: int) -> tuple[float, ...]:
    """The probability of each tier, the fastest first; of ``adaptive`` the one to begin with.

    A policy for five tiers gives the slowest ones' share to the others where dropouts leave fewer.

    >>> probabilities("fast", 3), probabilities("slow", 2)
    ((1.0, 0.0, 0.0), (0.0, 1.0))
    >>> [sum(probabilities(policy, 5)) for policy in ("uniform", "adaptive", *PUBLISHED)]
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if policy in ("fast", "slow"):
        chosen = 0 if policy == "fast" else count - 1
        return tuple(float(tier == chosen) for tier in range(count))
    cut = PUBLISHED.get(policy, (1 / count,) * count)[:count]
    return cut if sum(cut) == 1 else tuple(each / sum(cut) for each in cut)


def changed(accuracy: Sequence[float | None], credit: Sequence[int]) -> tuple[float, ...]:
    """ChangeProbs of the adaptive policy: the worse a tier does, the likelier it is drawn.

    Of the n tiers that have credits, in ascending order of their accuracies, the i-th gets
    (n − i) / D with D = n(n − 1)/2; so the best one gets 0, and a single one 1. Tiers without
    credits get 0, which is reconstructed: the paper's loop is over all tiers, while its n is not.
    Of equal ones the faster comes first; one whose accuracy was never told comes before all.

    >>> changed([0.9, 0.5, 0.7], [4, 4, 4])
    (0.0, 0.6666666666666666, 0.3333333333333333)
    >>> changed([0.9, 0.5, 0.7], [4, 0, 4]), changed([0.9, 0.5], [0, 3])
    ((0.0, 0.0, 1.0), (0.0, 1.0))
    """
    left = [tier for tier, left_of in enumerate(credit) if left_of > 0]
    left.sort(key=lambda tier: -1.0 if accuracy[tier] is None else accuracy[tier])  # type: ignore[arg-type, return-value]
    count, found = len(left), [0.0] * len(credit)
    for place, tier in enumerate(left, 1):
        found[tier] = 1.0 if count == 1 else (count - place) / (count * (count - 1) / 2)
    return tuple(found)


def drawn(
    tiers: Sequence[Sequence[str]], chances: Sequence[float], clients: int | None, seed: int,
    number: int,
) -> tuple[str, ...]:  # fmt: skip
    """The contributors of a round: a function of the seed and the round alone.

    Args:
      tiers: the centers of each.
      chances: the probability of each tier.
      clients: how many of the tier; None: all.
      seed: of the run.
      number: the round.
    """
    stream = np.random.default_rng([seed, zlib.crc32(b"tifl"), number])
    return some_of(stream, tiers[stream.choice(len(tiers), p=chances)], clients)


def some_of(
    stream: np.random.Generator, tier: Sequence[str], clients: int | None
) -> tuple[str, ...]:
    """So many centers of a tier, drawn without repetition; None: all."""
    if clients is None or clients >= len(tier):
        return tuple(tier)
    chosen = sorted(stream.choice(len(tier), clients, replace=False))
    return tuple(str(tier[at]) for at in chosen)
