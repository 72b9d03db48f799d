"""How near a run's synchronizations came to what the WAN allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from geojax.assemble.agreement import sync_of
from geojax.assemble.contributors import EVERYONE
from geojax.config import RunConfig
from geojax.hips.cluster import Cluster
from geojax.overlay.bounds.bound import BOUND_WORK, bounds, latency_bound
from geojax.overlay.view import Edge, NetworkView
from geojax.telemetry.summary import sync_times

Event = Mapping[str, Any]

WHOLE = ("dense", "size_only")  # compressions that move every element as float32
ELEMENT_BYTES = 4
TOTAL_WORK = 10 * BOUND_WORK  # of all linear programs of a run; some seconds


class _Round(NamedTuple):
    """A round that every trainer took part in, under rates that did not change.

    Attributes:
      rates: those of the links, bit/s.
      sync: its sync time, s.
    """

    rates: Mapping[Edge, float]
    sync: float


def efficiency(
    config: RunConfig,
    view: NetworkView,
    events: Sequence[Event],
    cluster: Cluster,
    goodput_factor: float | None,
) -> dict[str, float]:
    """The bounds of a run and how near it came to them, for ``summary.json``.

    ``bound_s`` is the fluid optimum of one synchronization of the dense float32 vector
    (:func:`geojax.overlay.bounds.bound.bounds`) under the rates in force when a round starts, mean
    over rounds; ``bound_efficiency`` is it ÷ (goodput factor × mean sync time of these rounds).
    Left out are the run's ``warmup_rounds``, rounds in which a rate changes, and those that not all
    trainers took part in: fewer may be faster than the bound of all. If rates change too often to
    solve a linear program for each spell between changes, evenly spaced spells are taken.
    ``latency_bound_s`` is that of the WAN.

    ``bound_ratio`` is 1 ÷ ``bound_efficiency``: how many times the bound a synchronization took.

    With ``sync.p3`` chunks leave before the offer is complete, so that the efficiency may exceed 1.

    Args:
      config: the run.
      view: the WAN at t = 0.
      events: of the run, in order of time.
      cluster: its nodes.
      goodput_factor: TCP payload ÷ link rate; None: not known.

    Returns:
      What is known of the four. Nothing for compressed runs, for a testbed without a WAN
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
    steady = _steady_rounds(view, events, cluster.trainers, config.warmup_rounds)
    rounds = _sampled(steady, view)
    if not sizes or not rounds:
        return figures
    nbytes = ELEMENT_BYTES * sizes[-1]
    found: dict[int, float] = {}
    for one in rounds:  # rounds of one spell share the mapping
        if id(one.rates) not in found:
            found[id(one.rates)] = bounds(replace(view, rate=one.rates), nbytes, members).bound_s
    figures["bound_s"] = sum(found[id(one.rates)] for one in rounds) / len(rounds)
    mean = sum(one.sync for one in rounds) / len(rounds)
    if goodput_factor and mean > 0:
        figures["bound_efficiency"] = figures["bound_s"] / (goodput_factor * mean)
        figures["bound_ratio"] = 1 / figures["bound_efficiency"]
    return figures


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
    view: NetworkView, events: Sequence[Event], trainers: Sequence[str], first: int
) -> list[_Round]:
    """The rounds that count, in order, from the round ``first`` on."""
    spells: list[tuple[float, Mapping[Edge, float]]] = [(float("-inf"), view.rate)]
    for event in events:
        if event["event"] == "rates":
            changed = {(source, target): rate for source, target, rate in event["rates"]}
            rates = replace(view, rate=spells[-1][1]).with_rates(changed).rate
            if rates is not spells[-1][1]:
                spells.append((event["t"], rates))
    took_part: dict[int, set[str]] = {}
    began: dict[int, float] = {}
    ended: dict[int, float] = {}
    for event in events:
        if event["event"] == "round":
            number = event["round"]
            took_part.setdefault(number, set()).add(event["node"])
            began[number] = min(began.get(number, event["offered"]), event["offered"])
            ended[number] = max(ended.get(number, 0.0), event["held"])
    counted = []
    for number, sync in sync_times(events).items():
        before = [rates for at, rates in spells if at <= began[number]]
        during = any(began[number] < at <= ended[number] for at, _ in spells)
        if number >= first and took_part[number] >= set(trainers) and not during:
            counted.append(_Round(before[-1], sync))
    return counted


def _sampled(rounds: list[_Round], view: NetworkView) -> list[_Round]:
    """The rounds of as many spells, evenly spaced, as there is time for."""
    spells = list(dict.fromkeys(id(one.rates) for one in rounds))
    most = max(1, TOTAL_WORK // max(1, len(view.centers) * len(view.rate)))
    step = -(-len(spells) // most) or 1
    kept = set(spells[::step])
    return [one for one in rounds if id(one.rates) in kept]
