"""How near a run's synchronizations came to what the WAN allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from geojax.assemble.agreement import sync_of
from geojax.assemble.contributors import EVERYONE
from geojax.config import RunConfig
from geojax.hips.cluster import Cluster
from geojax.overlay.bounds.bound import BOUND_WORK
from geojax.overlay.bounds.latency import latency_bound
from geojax.overlay.bounds.release import Members, earliest_end, later_offers, rate_of
from geojax.overlay.view import Edge, NetworkView
from testbed.figures.optima import FEW, kept_rate_of

Event = Mapping[str, Any]

WHOLE = ("dense", "size_only")  # compressions that move every element as float32
ELEMENT_BYTES = 4
TOTAL_WORK = 10 * BOUND_WORK  # of all linear programs of a run; some seconds


@dataclass(frozen=True)
class _Round:
    """A round that every trainer took part in, under rates that did not change.

    Attributes:
      rates: those of the links, bit/s.
      offers: when each center began its offer, experiment s.
      held: when the last trainer held the result.
    """

    rates: Mapping[Edge, float]
    offers: Mapping[str, float]
    held: float

    @property
    def sync(self) -> float:
        """From the last offer on, s."""
        return self.held - max(self.offers.values())

    @property
    def kind(self) -> tuple[int, tuple[Members, ...]]:
        """What its linear programs depend on."""
        return id(self.rates), later_offers(self.offers)


class _Bound(NamedTuple):
    """The least time between the last offer and the end of a round, s."""

    whole: float  # at whole link rates
    least: float  # at what TCP takes of them
    by_latency: bool


def efficiency(
    config: RunConfig,
    view: NetworkView,
    events: Sequence[Event],
    cluster: Cluster,
    goodput_factor: float | None,
) -> dict[str, float]:
    """The bounds of a run and how near it came to them, for ``summary.json``.

    ``bound_s`` is the least time between the last offer of a round and its end, for the dense
    float32 vector and the rates in force when the round starts; mean over rounds. It depends on
    when the others make their offers (:func:`geojax.overlay.bounds.release.earliest_end`): what was
    offered earlier may have been summed by then. ``bound_efficiency`` is the same at the goodput
    factor, ÷ mean sync time of these rounds; it is never above 1. Where a center offers its chunks
    one by one (``sync.p3``), its offer begins with the first, and both times count from there.
    ``bound_ratio`` is 1 ÷ ``bound_efficiency``: how many times the bound a synchronization took.
    ``latency_bound_s`` is that of the WAN; ``latency_decides`` the share of rounds in which it is
    delay, not rates, that does not let them end before. Absent: in none.

    Left out are the run's ``warmup_rounds``, rounds in which a rate changes, and those that not all
    trainers took part in: fewer may be faster than the bound of all. If there are too many kinds of
    rounds, by rates and the order of the offers, to solve the linear programs of all, evenly spaced
    ones are taken.

    Args:
      config: the run.
      view: the WAN at t = 0.
      events: of the run, in order of time.
      cluster: its nodes.
      goodput_factor: TCP payload ÷ link rate; None: not known.

    Returns:
      What is known of these. Nothing for compressed runs, for a testbed without a WAN
      (``local``), and for one center; no bound where its linear program takes too long, and where a
      round is not one synchronization of the whole vector by all centers (fragments, rounds to
      which some contribute nothing, centers at paces of their own).
    """
    members = cluster.servers
    if config.compression.name not in WHOLE or config.testbed.name == "local" or len(members) < 2:
        return {}
    figures = {"latency_bound_s": latency_bound(view, members)}
    partial = not _whole_rounds(config, cluster)
    if partial or len(view.centers) * len(view.rate) > BOUND_WORK:
        return figures
    sizes = [e["elements"] for e in events if e["event"] == "start" and "elements" in e]
    steady = _steady_rounds(view, events, cluster, config.warmup_rounds)
    rounds = _sampled(steady, view)
    if not sizes or not rounds:
        return figures
    found = _bounds(rounds, view, 8 * ELEMENT_BYTES * sizes[-1], members, goodput_factor or 1.0)
    figures["bound_s"] = sum(bound.whole for bound in found) / len(rounds)
    if any(bound.by_latency for bound in found):
        figures["latency_decides"] = sum(bound.by_latency for bound in found) / len(rounds)
    took = sum(one.sync for one in rounds)
    if goodput_factor and took > 0:
        figures["bound_efficiency"] = sum(bound.least for bound in found) / took
        figures["bound_ratio"] = 1 / figures["bound_efficiency"]
    return figures


def _bounds(
    rounds: Sequence[_Round],
    view: NetworkView,
    bits: float,
    members: tuple[str, ...],
    goodput: float,
) -> list[_Bound]:
    wanted = {  # rounds of one spell share the mapping of rates
        (id(one.rates), later): one.rates for one in rounds for later in later_offers(one.offers)
    }
    solve = kept_rate_of if len(wanted) <= FEW else rate_of
    optima = {
        (spell, later): solve(replace(view, rate=rates), members, later)
        for (spell, later), rates in wanted.items()
    }
    found = []
    for one in rounds:
        now = replace(view, rate=one.rates)
        known = {later: optima[id(one.rates), later] for later in later_offers(one.offers)}
        last = max(one.offers.values())
        whole = earliest_end(now, bits, one.offers, known)
        least = earliest_end(now, bits, one.offers, known, goodput)
        by_latency = least.by_latency > least.by_rates
        found.append(_Bound(whole.end - last, least.end - last, by_latency))
    return found


def _whole_rounds(config: RunConfig, cluster: Cluster) -> bool:
    """Whether in every round all centers together exchange the whole vector."""
    algorithm = sync_of(config, cluster.trainers)
    everyone = not algorithm.chooses and config.center_selection.name == EVERYONE
    return (
        everyone
        and algorithm.admission.exchange == "tree"
        and algorithm.fragmentation.fragments == 1
    )


def _steady_rounds(
    view: NetworkView, events: Sequence[Event], cluster: Cluster, first: int
) -> list[_Round]:
    """The rounds that count, in order, from the round ``first`` on."""
    spells: list[tuple[float, Mapping[Edge, float]]] = [(float("-inf"), view.rate)]
    for event in events:
        if event["event"] == "rates":
            changed = {(source, target): rate for source, target, rate in event["rates"]}
            rates = replace(view, rate=spells[-1][1]).with_rates(changed).rate
            if rates is not spells[-1][1]:
                spells.append((event["t"], rates))
    center_of = {node.name: node.center for node in cluster.all}
    told = sorted((e for e in events if e["event"] == "round"), key=lambda e: e["round"])
    counted = []
    for number, those in groupby(told, key=lambda e: e["round"]):
        of_round = list(those)
        offers: dict[str, float] = {}
        for event in of_round:  # a center has made its offer when its last worker has
            center, began = center_of[event["node"]], event.get("began", event["offered"])
            offers[center] = max(offers.get(center, began), began)
        held = max(event["held"] for event in of_round)
        began = min(offers.values())
        before = [rates for at, rates in spells if at <= began]
        during = any(began < at <= held for at, _ in spells)
        whole = {event["node"] for event in of_round} >= set(cluster.trainers)
        if number >= first and whole and not during:
            counted.append(_Round(before[-1], offers, held))
    return counted


def _sampled(rounds: list[_Round], view: NetworkView) -> list[_Round]:
    """The rounds of as many kinds, evenly spaced, as there is time for."""
    kinds = list(dict.fromkeys(one.kind for one in rounds))
    most = max(1, TOTAL_WORK // max(1, len(view.centers) * len(view.rate)))
    step = -(-sum(len(later) for _, later in kinds) // most) or 1
    kept = set(kinds[::step])
    return [one for one in rounds if one.kind in kept]
