"""The figures of a run, from its events and its nodes' reports. What was not measured is absent."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from geojax.telemetry.incidents import incidents
from geojax.telemetry.recorder import Span
from geojax.telemetry.shares import (
    balance,
    cut,
    mean_shares,
    predictions,
    questions,
    shares_of_time,
)
from geojax.telemetry.staleness import staleness

Event = Mapping[str, Any]
Report = Mapping[str, Any]
TARGET_OVER = ("models", "evaluations")  # the first is the default
_NO_SPANS: Mapping[str, Iterable[Span]] = {}
_MOVING = 3  # evaluations whose mean must reach the target


def sync_times(events: Iterable[Event]) -> dict[int, float]:
    """Sync time of every round, s: last offer made to last whole result held (DESIGN: §9)."""
    offered: dict[int, float] = {}
    held: dict[int, float] = {}
    for event in events:
        if event["event"] == "round":
            number = event["round"]
            offered[number] = max(offered.get(number, 0.0), event["offered"])
            held[number] = max(held.get(number, 0.0), event["held"])
    return {number: held[number] - offered[number] for number in sorted(held)}


class TargetWatch:
    """Tells when the mean of the last three accuracies has reached a target.

    Args:
      target: the accuracy.
      over: ``"models"``: a model that is evaluated at several points of the grid counts once, so
        that runs with equal models reach the target with the same model, however long their rounds
        last; or ``"evaluations"``: it counts every time.
    """

    def __init__(self, target: float, over: str = TARGET_OVER[0]):
        self._target, self._models = target, over == "models"
        self._recent: list[float] = []
        self._last: int | None = None

    def take(self, accuracy: float, number: int) -> bool:
        """Takes the next evaluation, of a round's model; returns whether the target is reached."""
        if self._models and number == self._last:
            return False
        self._last = number
        self._recent = [*self._recent, accuracy][-_MOVING:]
        return len(self._recent) == _MOVING and sum(self._recent) / _MOVING >= self._target


def standard_error(accuracy: float, samples: int) -> float:
    """Of an accuracy that was measured on so many samples, √(p (1 - p) / n).

    The mean over three models is hardly better known: they are measured on the same samples.

    >>> round(standard_error(0.8, 1000), 4)
    0.0126
    """
    return math.sqrt(accuracy * (1 - accuracy) / samples)


def time_to_target(
    evaluations: Sequence[Event], target: float, over: str = TARGET_OVER[0]
) -> tuple[float, int] | tuple[None, None]:
    """First instant and round at which the mean of the last three accuracies reaches the target."""
    watch = TargetWatch(target, over)
    for event in evaluations:
        if watch.take(event["accuracy"], event["round"]):
            return event["t"], event["round"] + 1
    return None, None


def until(events: Sequence[Event], limit: float | None) -> Sequence[Event]:
    """The events up to a time limit, s; None: all."""
    return events if limit is None else [event for event in events if event["t"] <= limit]


def summarize(
    events: Sequence[Event],
    reports: Mapping[str, Report],
    *,
    trainers: Sequence[str],
    hops: Mapping[tuple[str, str], Sequence[Any]],
    target: float,
    train_samples: int | None,
    data_kinds: Collection[int],
    spans: Mapping[str, Iterable[Span]] = _NO_SPANS,
    warmup_rounds: int = 0,
    target_over: str = TARGET_OVER[0],
    test_samples: int | None = None,
    probe_kind: int | None = None,
    offer_kind: int | None = None,
    limit: float | None = None,
) -> dict[str, Any]:
    """All figures that these events and reports hold.

    Args:
      events: of all nodes, in order of time.
      reports: of all nodes; what those counted that were gone at the end is in totals, not in means
        over workers.
      trainers: names of the nodes that train.
      hops: directed WAN links between two nodes; their number multiplies the bytes.
      target: accuracy whose first instant is looked for.
      train_samples: size of the training set, for the bytes per epoch.
      data_kinds: message kinds that are data, chunks or probes; the others are control.
      spans: of all nodes, by name; like events, those that end after the limit as well.
      warmup_rounds: first rounds that sync times and the rate of samples leave out.
      target_over: see :class:`TargetWatch`.
      test_samples: that an accuracy is measured on, for its standard error.
      probe_kind: the one of them that probes links; None: none were probed.
      offer_kind: the one of them that travels to where offers are merged; None: not told apart.
      limit: experiment time after which nothing counts, s: the run's time, or the evaluation by
        which it reached its target; None: there is none. The reports are those of that instant;
        what is under way at it counts up to it in shares of time and balance, and of steps and
        samples not at all.
    """
    time_s = max((e["held"] for e in events if e["event"] == "round"), default=0.0)
    time_s = time_s if limit is None else min(time_s, limit)
    whole, events = events, until(events, limit)
    syncs = sync_times(events)
    present = {name: node for name, node in reports.items() if not node.get("gone")}
    if limit is not None:
        present = cut(present, spans, time_s)
    living = [present[name] for name in trainers if name in present]
    counted = [reports[name] for name in trainers if name in reports]
    samples = sum(r["totals"].get("samples", 0) for r in counted)
    summary: dict[str, Any] = {
        "centers": len({name.split("/")[0] for name in trainers}),
        "workers": len(trainers),
        "rounds": len(syncs),
        "time_s": time_s,
        "target_accuracy": target,
        "pace_violations": sum(r["pace_violations"] for r in counted),
        "steps": sum(r["steps"] for r in counted),
        "samples": int(samples),
        **_traffic(reports, hops, data_kinds, probe_kind, offer_kind),
        **_internal(events, reports, trainers),
        **_late_parts(reports),
    }
    merged = merged_steps(events)
    if merged is not None:
        summary["merged_steps"] = merged
    disturbed = incidents(events)
    if disturbed:
        summary["incidents"] = disturbed
    stale = staleness(events)
    diverted = sum(r["totals"].get("auxiliary_chunks", 0) for r in reports.values())
    if diverted:
        summary["auxiliary_chunks"] = int(diverted)
    warm = [time for number, time in syncs.items() if number >= warmup_rounds]
    if warm and not stale:  # centers at paces of their own have no sync time
        values = np.array(warm)
        summary["sync_s"] = {
            "mean": float(values.mean()),
            "p50": float(np.percentile(values, 50)),
            "p95": float(np.percentile(values, 95)),
        }
    if time_s > 0 and living:
        busy = [r["totals"].get("compute_s", 0.0) for r in living]
        waiting = [r["totals"].get("wait_s", 0.0) / time_s for r in living]
        share, spent = _after(events, warmup_rounds, time_s)
        if spent > 0 and share > 0:
            summary["samples_per_s"] = samples * share / spent
        summary["blocking_share"] = sum(waiting) / len(waiting)
        shares = shares_of_time(whole, present, trainers, time_s)
        figures = {
            "balance": balance(busy),
            "shares": mean_shares(shares),
            "worker_shares": shares,
            "questions": questions(reports, spans, time_s),
            "prediction": predictions(events),
            "center_prediction": predictions(events, ("esync_centers",)),
        }
        summary |= {name: figure for name, figure in figures.items() if figure is not None}
    if stale:
        summary["staleness"] = stale
    if train_samples and samples:
        epochs = samples / train_samples
        summary["wan_bytes_per_epoch"] = summary["wan_bytes"] / epochs
        if offer_kind is not None:
            summary["wan_offer_bytes_per_epoch"] = summary["wan_offer_bytes"] / epochs
    return summary | _accuracies(events, target, target_over, test_samples)


def _accuracies(
    events: Sequence[Event], target: float, over: str, test_samples: int | None
) -> dict[str, Any]:
    """What was measured of the models, and when they reached the target."""
    evaluations = sorted((e for e in events if e["event"] == "evaluation"), key=lambda e: e["t"])
    if not evaluations:
        return {}
    if "accuracy" not in evaluations[-1]:  # the run's loss has another metric
        return {"final_loss": evaluations[-1]["loss"]}
    found: dict[str, Any] = {
        "final_accuracy": evaluations[-1]["accuracy"],
        "best_accuracy": max(e["accuracy"] for e in evaluations),
    }
    if test_samples:
        found["test_samples"] = test_samples
        found["target_standard_error"] = standard_error(target, test_samples)
    reached, rounds = time_to_target(evaluations, target, over)
    if reached is not None:
        found |= {"time_to_target_s": reached, "rounds_to_target": rounds}
    return found


def merged_steps(events: Iterable[Event]) -> int | None:
    """Local steps that all offers stand for that were merged over the WAN, as servers saw them.

    A round that was merged again counts once. None: that follows from the plan, and is no event.
    """
    found: dict[Any, int] = {}
    for event in events:
        if event["event"] == "merged":
            found[event["round"]] = sum(event["steps"].values())
        elif event["event"] == "applied" and "steps" in event and event["chunk"] == 0:
            found[event["center"], event["round"]] = event["steps"]
    return sum(found.values()) if found else None


def _late_parts(reports: Mapping[str, Report]) -> dict[str, Any]:
    """How many late parts were offered, counted in a merge, and dropped."""
    offered, counted = (
        int(sum(report["totals"].get(f"late_{name}", 0) for report in reports.values()))
        for name in ("offered", "counted")
    )
    found = {"offered": offered, "counted": counted, "dropped": offered - counted}
    return {"late_parts": found} if offered else {}


def _after(events: Sequence[Event], warmup_rounds: int, time_s: float) -> tuple[float, float]:
    """Share of all samples and time, s, after the warm-up.

    The warm-up ends for all when the last one has held its last round of it. So of those that are
    further by then, at a pace of their own, the rounds that they held before are left out, too.
    Every round has as many samples, or as many as its events ``steps`` say.
    """
    held = {(e["node"], e["round"]): e["held"] for e in events if e["event"] == "round"}
    since = max((at for (_, number), at in held.items() if number < warmup_rounds), default=0.0)
    taken = [
        ((event["node"], event["round"]), event["steps"])
        for event in events if event["event"] == "steps"
    ]  # fmt: skip
    parts = taken or [(key, 1) for key in held]
    early = sum(
        steps for key, steps in parts
        if key[1] < warmup_rounds or held.get(key, since + 1.0) <= since
    )  # fmt: skip
    return 1 - early / sum(steps for _, steps in parts), time_s - since


def _internal(
    events: Sequence[Event], reports: Mapping[str, Report], trainers: Sequence[str]
) -> dict[str, Any]:
    """What passed between devices and base stations, and how even the steps' classes were.

    ``internal_s`` is the mean over base stations of the time of these transfers, ``divergence`` is
    over all steps of all of them, ``choice_ms`` the mean CPU time of a choice (on a real clock).
    """
    living = [reports[name]["totals"] for name in trainers if name in reports]
    total = sum(totals.get("internal_bytes", 0) for totals in living)
    found: dict[str, Any] = {}
    if total:
        spent = sum(totals.get("internal_s", 0.0) for totals in living)
        found |= {"internal_bytes": int(total), "internal_s": spent / len(living)}
    told = [event["values"] for event in events if event["event"] == "divergence"]
    # Sorted, so that their sums do not depend on which base station was heard first.
    values = np.sort([value for steps in told for value in steps])
    if values.size:
        found["divergence"] = {
            "mean": float(values.mean()), "median": float(np.median(values)),
            "std": float(values.std()), "max": float(values.max()), "min": float(values.min()),
        }  # fmt: skip
    choices = sum(totals.get("choices", 0) for totals in living)
    if choices:
        found["choice_ms"] = 1e3 * sum(t.get("choice_s", 0.0) for t in living) / choices
    return found


def _traffic(
    reports: Mapping[str, Report],
    hops: Mapping[tuple[str, str], Sequence[Any]],
    data_kinds: Collection[int],
    probe_kind: int | None,
    offer_kind: int | None,
) -> dict[str, int]:
    """Frame bytes: on the WAN every hop counts, inside a center it is LAN; control apart.

    Probes, and offers (one of the two directions), are among those of the WAN, and are also told
    on their own.
    """
    counted = {"wan_bytes": 0, "lan_bytes": 0, "wan_control_bytes": 0, "lan_control_bytes": 0}
    if probe_kind is not None:
        counted["probe_bytes"] = 0
    if offer_kind is not None:
        counted["wan_offer_bytes"] = 0
    for name, node in reports.items():
        for peer, counters in node["sent"].items():
            crossed = len(hops[name, peer])
            tier, times = ("wan", crossed) if crossed else ("lan", 1)
            for kind, count in counters["bytes"].items():
                key = f"{tier}_bytes" if int(kind) in data_kinds else f"{tier}_control_bytes"
                counted[key] += count * times
                if int(kind) == probe_kind:
                    counted["probe_bytes"] += count * times
                if int(kind) == offer_kind and crossed:
                    counted["wan_offer_bytes"] += count * times
    return counted
