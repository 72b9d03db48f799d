"""How a global server makes new parameters of the offers that one admission lets in.

Each function returns the ``apply`` of a :class:`geojax.sync.algorithm.MergeRule`, or the whole
rule: pure functions of offers, present parameters and state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geojax.sync.algorithm import MergeRule, Offered, Outer, State
from geojax.sync.compensation import Compensation
from geojax.sync.parts import mean_of
from geojax.sync.staleness import Weighting


def one_by_one(compensation: Compensation | None = None) -> MergeRule:
    """W ← outer(w, g): one outer step along each offer, corrected for its delay if so wished."""
    if compensation is None:
        return MergeRule("one by one", mean_of, _descend)
    compensate = compensation.apply

    def apply(
        offers: Sequence[Offered], now: np.ndarray, outer: Outer, state: State
    ) -> tuple[np.ndarray, State]:
        (offer,) = offers
        gradient, state = compensate(offer.value, now, offer.backup, state)
        return outer(gradient), state

    return MergeRule(
        f"one by one, {compensation.name} compensation", mean_of, apply,
        lambda parameters: compensation.init(parameters.size), compensation.needs_backup,
    )  # fmt: skip


def _descend(
    offers: Sequence[Offered], now: np.ndarray, outer: Outer, state: State
) -> tuple[np.ndarray, State]:
    del now
    (offer,) = offers
    return outer(offer.value), state


def mixing_in(rule: MergeRule, server: str, share: float) -> MergeRule:
    """``rule``, but what ``server`` offers are parameters: w ← (1 − α)·w + α·offered.

    For offers of deltas, whose negative a rule is given. One offer is merged at a time.
    """
    inner = rule.apply
    assert inner is not None

    def apply(
        offers: Sequence[Offered], now: np.ndarray, outer: Outer, state: State
    ) -> tuple[np.ndarray, State]:
        (offer,) = offers
        if offer.center != server:
            return inner(offers, now, outer, state)
        kept, taken = np.float32(1 - share), np.float32(share)
        return kept * now + taken * np.negative(offer.value), state

    return rule._replace(name=f"{rule.name}, {server} mixed in", apply=apply)


def buffered_mean(s: Weighting) -> MergeRule:
    """W ← outer(w, (1/K)·Σ_i s(τ_i)·g_i) over the K offers of a merge."""

    def apply(
        offers: Sequence[Offered], now: np.ndarray, outer: Outer, state: State
    ) -> tuple[np.ndarray, State]:
        del now
        total = np.float32(s(offers[0].staleness)) * offers[0].value
        for offer in offers[1:]:
            total = total + np.float32(s(offer.staleness)) * offer.value
        return outer(total / np.float32(len(offers))), state

    return MergeRule("mean of a buffer", mean_of, apply)


def share_weighted_mean() -> MergeRule:
    """W ← outer(w, Σ_i n_i·g_i / Σ_i n_i) over the offers of a merge."""

    def apply(
        offers: Sequence[Offered], now: np.ndarray, outer: Outer, state: State
    ) -> tuple[np.ndarray, State]:
        del now
        total = np.float32(offers[0].weight) * offers[0].value
        for offer in offers[1:]:
            total = total + np.float32(offer.weight) * offer.value
        return outer(mean_of(total, sum(offer.weight for offer in offers))), state

    return MergeRule("weighted mean of a quorum", mean_of, apply)


def mixing(alpha: float, s: Weighting) -> MergeRule:
    """X ← (1 − α_t)·x + α_t·x_new with α_t = α·s(τ), for each offer of parameters in turn."""

    def apply(
        offers: Sequence[Offered], now: np.ndarray, outer: Outer, state: State
    ) -> tuple[np.ndarray, State]:
        del outer
        for offer in offers:
            share = np.float32(alpha * s(offer.staleness))
            now = (np.float32(1) - share) * now + share * offer.value
        return now, state

    return MergeRule("mixing", mean_of, apply, outer=False)
