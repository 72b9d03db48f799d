"""How near a run's synchronizations came to what the WAN allows."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from geojax.assemble.agreement import sync_of
from geojax.assemble.contributors import EVERYONE
from geojax.config import RunConfig
from geojax.hips.cluster import Cluster
from geojax.overlay.bounds.bound import BOUND_WORK
from geojax.overlay.bounds.changing import Spell, earliest_ends
from geojax.overlay.bounds.latency import latency_bound
from geojax.overlay.bounds.release import Earliest, Members, earliest_end, later_offers, rate_of
from geojax.overlay.view import Edge, NetworkView
from testbed.figures.optima import FEW, kept_rate_of

Event = Mapping[str, Any]

WHOLE = ("dense", "size_only")  # compressions that move every element as float32
ELEMENT_BYTES = 4
TOTAL_WORK = 10 * BOUND_WORK  # of all linear programs of a run without a change; some seconds
CHANGING = 3  # times as much for rounds with a change and for those without, if there are any
SEARCH = 15  # linear programs, about, to find the ends of a round in which rates change


@dataclass(frozen=True)
class _Round:
    """A round that every trainer took part in.

    Attributes:
      spells: from when on, experiment s, which rates of the links were in force, bit/s; more than
        one where they changed between the first offer and the end.
      offers: when each center began its offer, experiment s.
      held: when the last trainer held the result.
    """

    spells: tuple[Spell, ...]
    offers: Mapping[str, float]
    held: float

    @property
    def sync(self) -> float:
        """From the last offer on, s."""
        return self.held - max(self.offers.values())

    @property
    def steady(self) -> bool:
        """Whether no rate changed."""
        return len(self.spells) == 1

    @property
    def rates(self) -> Mapping[Edge, float]:
        """Those in force when it began."""
        return self.spells[0][1]

    @property
    def kind(self) -> tuple[int, tuple[Members, ...]]:
        """What its linear programs depend on, if it is steady."""
        return id(self.rates), later_offers(self.offers)


class _Bound(NamedTuple):
    """The least time between the last offer and the end of a round, s.

    Attributes:
      whole: at whole link rates.
      least: at what TCP takes of them.
      by_latency: whether delay decides.
    """

    whole: float
    least: float
    by_latency: bool

    @classmethod
    def of(cls, one: _Round, whole: Earliest, least: Earliest) -> _Bound:
        """Of a round whose earliest ends are known."""
        last = max(one.offers.values())
        by_latency = least.by_latency > least.by_rates
        return cls(whole.end - last, least.end - last, by_latency)


def efficiency(
    config: RunConfig,
    view: NetworkView,
    events: Sequence[Event],
    cluster: Cluster,
    goodput_factor: float | None,
) -> dict[str, float]:
    """The bounds of a run and how near it came to them, for ``summary.json``.

    ``bound_s`` is the least time between the last offer of a round and its end, for the dense
    float32 vector and the rates in force; mean over rounds. It depends on when the others make
    their offers (:func:`geojax.overlay.bounds.release.earliest_end`): what was offered earlier may
    have been summed by then. Where rates change in a round, it is the bound of schedules that know
    all of them beforehand (:func:`geojax.overlay.bounds.changing.earliest_ends`).
    ``bound_efficiency`` is the same at the goodput factor, ÷ mean sync time of these rounds;
    where simulated it is never above 1. Where a center offers its chunks one by one (``sync.p3``),
    its offer begins with the first, and both times count from there. ``bound_ratio`` is
    1 ÷ ``bound_efficiency``: how many times the bound a synchronization took. ``latency_bound_s``
    is that of the WAN; ``latency_decides`` the share of rounds in which it is delay, not rates,
    that does not let them end before. Absent: in none.

    Left out are the run's ``warmup_rounds`` and rounds that not all trainers took part in: fewer
    may be faster than the bound of all. If there are too many kinds of rounds, by rates and the
    order of the offers, to solve the linear programs of all, evenly spaced ones are taken. So are,
    apart, the rounds in which a rate changes; in all figures they have the weight of their number.

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
    partial = not _everything(config, cluster)
    if partial or len(view.centers) * len(view.rate) > BOUND_WORK:
        return figures
    sizes = [e["elements"] for e in events if e["event"] == "start" and "elements" in e]
    rounds = _whole_rounds(view, events, cluster, config.warmup_rounds)
    if not sizes or not rounds:
        return figures
    bits, goodput = 8 * ELEMENT_BYTES * sizes[-1], goodput_factor or 1.0
    steady, crossing = _sampled(rounds, view)
    found = [
        *_bounds(steady, view, bits, members, goodput),
        *(_crossing_bound(one, view, bits, goodput) for one in crossing),
    ]
    weights = _weights(rounds, len(steady), len(crossing))
    figures["bound_s"] = _total(weights, (bound.whole for bound in found)) / sum(weights)
    if any(bound.by_latency for bound in found):
        by_latency = _total(weights, (bound.by_latency for bound in found))
        figures["latency_decides"] = by_latency / sum(weights)
    took = _total(weights, (one.sync for one in (*steady, *crossing)))
    if goodput_factor and took > 0:
        least = _total(weights, (bound.least for bound in found))
        figures["bound_efficiency"] = least / took
        figures["bound_ratio"] = 1 / figures["bound_efficiency"]
    return figures


def _total(weights: Sequence[float], values: Iterable[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def _bounds(
    rounds: Sequence[_Round],
    view: NetworkView,
    bits: float,
    members: tuple[str, ...],
    goodput: float,
) -> list[_Bound]:
    """Those of rounds in which no rate changes."""
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
        whole = earliest_end(now, bits, one.offers, known)
        least = earliest_end(now, bits, one.offers, known, goodput)
        found.append(_Bound.of(one, whole, least))
    return found


def _crossing_bound(one: _Round, view: NetworkView, bits: float, goodput: float) -> _Bound:
    """That of a round in which rates change; no other round has the same linear programs."""
    return _Bound.of(one, *earliest_ends(view, one.spells, bits, one.offers, one.held, goodput))


def _everything(config: RunConfig, cluster: Cluster) -> bool:
    """Whether in every round all centers together exchange the whole vector."""
    algorithm = sync_of(config, cluster.trainers)
    everyone = not algorithm.chooses and config.center_selection.name == EVERYONE
    return (
        everyone
        and algorithm.admission.exchange == "tree"
        and algorithm.fragmentation.fragments == 1
    )


def _whole_rounds(
    view: NetworkView, events: Sequence[Event], cluster: Cluster, first: int
) -> list[_Round]:
    """The rounds that count, in order, from the round ``first`` on."""
    spells: list[Spell] = [(float("-inf"), view.rate)]
    for event in events:
        if event["event"] == "rates":
            changed = {(source, target): rate for source, target, rate in event["rates"]}
            rates = replace(view, rate=spells[-1][1]).with_rates(changed).rate
            if rates is not spells[-1][1]:
                spells.append((event["t"], rates))
    starts = [at for at, _ in spells]
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
        whole = {event["node"] for event in of_round} >= set(cluster.trainers)
        if number >= first and whole:
            changed = bisect_right(starts, began)
            until = max(changed, bisect_left(starts, held))
            counted.append(_Round(tuple(spells[changed - 1 : until]), offers, held))
    return counted


def _sampled(rounds: Sequence[_Round], view: NetworkView) -> tuple[list[_Round], list[_Round]]:
    """As many rounds without and with a change of rates, evenly spaced, as there is time for."""
    steady = [one for one in rounds if one.steady]
    crossing = [one for one in rounds if not one.steady]
    work = TOTAL_WORK * (CHANGING if crossing else 1)
    most = max(1, work // max(1, len(view.centers) * len(view.rate)))
    kinds = list(dict.fromkeys(one.kind for one in steady))
    kept = set(_spaced(kinds, sum(len(later) for _, later in kinds), most))
    programs = sum(2 * len(later_offers(one.offers)) + SEARCH for one in crossing)
    return [one for one in steady if one.kind in kept], _spaced(crossing, programs, most)


def _spaced(items: list[Any], programs: int, most: int) -> list[Any]:
    """Evenly spaced ones, so that of so many linear programs about ``most`` are left."""
    return items[:: -(-programs // most) or 1]


def _weights(rounds: Sequence[_Round], steady: int, crossing: int) -> list[float]:
    """Of so many sampled rounds without and with a change, each kind standing for all of its own.

    Those without weigh 1, if there are any.
    """
    unchanged = sum(one.steady for one in rounds)
    each = unchanged / steady if steady else 1.0
    heavier = (len(rounds) - unchanged) / crossing / each if crossing else 0.0
    return [1.0] * steady + [heavier] * crossing
