"""Where the time of each worker went, and how alike their work was. Every share is in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from geojax.telemetry.recorder import Span

SHARES = ("compute", "query", "server", "transfer", "wait")
_SPANS = ("compute", "given_up", "judge", "query", "wait")  # whose durations count here


def shares_of_time(
    events: Sequence[Mapping[str, Any]],
    reports: Mapping[str, Mapping[str, Any]],
    trainers: Sequence[str],
    time_s: float,
) -> dict[str, dict[str, float]]:
    """The shares of each worker that wrote a report; those of one worker sum to 1.

    * ``compute``: local steps that counted.
    * ``query``: waiting for a service's answer, and steps that were given up for one.
    * ``server``: host work of the center's local server: encoding, the outer step. And judging
      parameters for a service by held-out samples (TiFL), which is neither training nor free.
    * ``transfer``: from its offer, or the last one that a barrier waits for, until it holds the
      result; without the server's work where that lies within. In asynchronous runs the barrier is
      the one among the center's workers, and the work of the server that it pushes to is in it; but
      not what the server waits for other centers before it answers (a bound on staleness, a quorum,
      a tier), of several servers the longest.
    * ``wait``: the rest, which is waiting for others.

    A transfer, or a wait at a server, that is under way at the end of the time counts up to it.
    What would exceed the run's time (a worker that is ahead of the last held round) is cut in this
    order.

    Args:
      events: of all nodes, also those after that time: they end what is under way at it.
      reports: of the nodes; of a run that is cut, see :func:`cut`.
      trainers: names of the workers.
      time_s: of the run, s; more than 0.
    """
    moving = _transfers(events, time_s)
    found = {}
    for name in (name for name in trainers if name in reports):
        totals = reports[name]["totals"]
        center = name.partition("/")[0]
        server = reports.get(center, {"totals": {}})["totals"].get("server_s", 0.0)
        within = server if center != name else 0.0  # a worker's result comes after that work
        seconds = {
            "compute": totals.get("compute_s", 0.0),
            "query": totals.get("query_s", 0.0) + totals.get("given_up_s", 0.0),
            "server": server + totals.get("judge_s", 0.0),
            "transfer": max(0.0, moving.get(name, 0.0) - within),
        }
        left, mine = 1.0, {}
        for kind, amount in seconds.items():
            mine[kind] = min(max(0.0, amount / time_s), left)
            left = max(0.0, left - mine[kind])
        found[name] = {**mine, "wait": left}
    return found


def cut(
    reports: Mapping[str, Mapping[str, Any]], spans: Mapping[str, Iterable[Span]], time_s: float
) -> dict[str, dict[str, Any]]:
    """Reports whose durations are those until an instant, s, of what was under way then, too.

    Totals alone leave that out, as they take durations at their end.

    >>> step = Span("compute", 2.0, 12.0, {})
    >>> cut({"c1": {"totals": {"samples": 0}}}, {"c1": [step]}, 9.0)
    {'c1': {'totals': {'samples': 0, 'compute_s': 7.0}}}

    Args:
      reports: of the nodes.
      spans: of the nodes, by name, also those that ended after it.
      time_s: the instant.
    """
    found = {}
    for name, report in reports.items():
        lasted: dict[str, float] = {}
        for span in spans.get(name, ()):
            key, seconds = f"{span.name}_s", max(0.0, min(span.end, time_s) - span.start)
            if span.name in _SPANS:
                lasted[key] = lasted.get(key, 0.0) + seconds
        found[name] = {**report, "totals": {**report["totals"], **lasted}}
    return found


def _transfers(events: Sequence[Mapping[str, Any]], time_s: float) -> dict[str, float]:
    """Seconds of transfers by node, see :func:`shares_of_time`."""
    rounds = [event for event in events if event["event"] == "round"]
    barrier = not any(event["event"] == "applied" for event in events)
    last: dict[tuple[str, int], float] = {}  # of all nodes, or of those of a center

    def waits(event: Mapping[str, Any]) -> tuple[str, int]:
        return "" if barrier else event["node"].partition("/")[0], event["round"]

    for event in rounds:
        last[waits(event)] = max(last.get(waits(event), 0.0), event["offered"])
    held_back: dict[tuple[str, int], float] = {}
    for event in (event for event in events if event["event"] == "held_back"):
        key = event["center"], event["round"]
        seconds = max(0.0, event["seconds"] - max(0.0, event["t"] - time_s))
        held_back[key] = max(held_back.get(key, 0.0), seconds)
    found: dict[str, float] = {}
    for event in rounds:
        key = waits(event)
        moving = min(event["held"], time_s) - max(event["offered"], last[key])
        moving -= held_back.get(key, 0.0)
        found[event["node"]] = found.get(event["node"], 0.0) + max(0.0, moving)
    for event in (event for event in events if event["event"] == "lan_round"):
        moving = max(0.0, min(event["held"], time_s) - event["offered"])
        found[event["node"]] = found.get(event["node"], 0.0) + moving
    return found


def mean_shares(shares: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Each share's mean over the workers."""
    return {kind: float(np.mean([mine[kind] for mine in shares.values()])) for kind in SHARES}


def balance(busy: Sequence[float]) -> float | None:
    """Mean over maximum of what workers computed, at most 1; None: nobody did anything.

    >>> balance([1.0, 2.0, 3.0])
    0.6666666666666666
    """
    largest = max(busy, default=0.0)
    return min(1.0, sum(one / largest for one in busy) / len(busy)) if largest > 0 else None


def questions(
    reports: Mapping[str, Mapping[str, Any]],
    spans: Mapping[str, Iterable[Span]],
    time_s: float,
) -> dict[str, float] | None:
    """Requests that services served a second, and how long the answers took; None: there were none.

    Args:
      reports: of the nodes.
      spans: of all of them, by name; those that end later are left out.
      time_s: of the run, s; more than 0.
    """
    served = sum(report["totals"].get("requests", 0) for report in reports.values())
    if not served:
        return None
    found = {"served": float(served), "per_s": served / time_s}
    lasted = [
        span.end - span.start for of in spans.values() for span in of
        if span.name in ("query", "query_in_flight") and span.end <= time_s
    ]  # fmt: skip
    if lasted:
        found["mean_s"] = float(np.mean(lasted))
        found["p99_s"] = float(np.percentile(lasted, 99))
    return found


def predictions(
    events: Sequence[Mapping[str, Any]], services: Sequence[str] = ("esync", "tifl")
) -> dict[str, float] | None:
    """How well stragglers were predicted: mean error, share of rounds with the wrong one.

    ESync's error is |t̂_s − arrival| ÷ d_s; TiFL's is of the longest response of a round's
    contributors, by their profile. ``compared`` counts rounds of all servers that predicted: of
    local ones, each counts its own.

    Args:
      events: of all nodes.
      services: that predicted; ``esync_centers`` is that of centers where workers have one, too.

    Returns:
      None: they predicted nothing.
    """
    told = [event for event in events if event["event"] in services and "error" in event]
    if not told:
        return None
    return {
        "error": float(np.mean([event["error"] for event in told])),
        "wrong": float(np.mean([event["wrong"] for event in told])),
        "compared": len(told),
    }
