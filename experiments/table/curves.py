"""Figures from the accuracy over a run's course: at an equal cost, and until another row's best.

Both come from the evaluations in ``events.jsonl`` and are put into the rows' summaries, so that
tables show them as any other figure.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.runs.rows import Row, Run
from experiments.table.comparison import Metric, rows_with, settings_text
from geojax.errors import GeojaxError
from geojax.telemetry.summary import time_to_target

COSTS = {  # unit and its size
    "samples": ("samples", 1),
    "time_s": ("s", 1),
    "wan_bytes": ("MB over the WAN", 1e6),
    "rounds": ("rounds", 1),
}
_EVENTS = "events.jsonl"
_SLACK = 1 + 1e-9  # the cheapest run's own end is within its budget
_SMOOTH = 3  # models in a row whose mean counts, as for a run's own target


def at_cost(rows: Sequence[Row], cost: str, budget: float) -> tuple[list[Row], list[Metric]]:
    """Accuracy of every run when it had spent so much; none where it had spent less in all.

    Samples and bytes are taken to grow in proportion to time.

    Args:
      rows: what is compared.
      cost: a key of ``COSTS``.
      budget: in its unit as stored: samples, s, bytes, rounds.

    Returns:
      The rows with the figure in their summaries, and the metric that shows it.

    Raises:
      GeojaxError: a run did not measure the cost, or left no evaluations.
    """
    key = f"accuracy_at_{cost}"
    unit, size = COSTS[cost]

    def figure(run: Run) -> dict[str, Any]:
        if _total(run, cost, f"--at {cost}") < budget / _SLACK:
            return {}
        found = _accuracy_at(run, cost, budget)
        return {} if found is None else {key: found}

    text = f"accuracy at {budget / size:,.6g} {unit}"
    return _extended(rows, figure), [Metric(key, text, decimals=3)]


def at_equal(rows: Sequence[Row], cost: str) -> tuple[list[Row], list[Metric]]:
    """Accuracy of every run at the cost that the cheapest of all runs had spent at its end.

    Samples and bytes are taken to grow in proportion to time.

    Args:
      rows: what is compared.
      cost: a key of ``COSTS``.

    Returns:
      The rows with the figure in their summaries, and the metric that shows it.

    Raises:
      GeojaxError: a run did not measure the cost, or left no evaluations.
    """
    key = f"accuracy_at_equal_{cost}"
    budget = min(_total(run, cost, f"--equal {cost}") for row in rows for run in row.finished)
    unit, size = COSTS[cost]
    extended = _extended(rows, lambda run: {key: _accuracy_at(run, cost, budget)})
    return extended, [Metric(key, f"accuracy at {budget / size:,.0f} {unit}", decimals=3)]


def until_best_of(
    rows: Sequence[Row], reference: Mapping[str, str]
) -> tuple[list[Row], list[Metric]]:
    """Rounds and time until the best accuracy of one row, the mean over its seeds.

    Best, and reached, is the mean of three models in a row, each once.

    Args:
      rows: what is compared.
      reference: settings of the row, e.g. ``{"sync": "fedavg"}``.

    Raises:
      ConfigError: there is no such setting.
      GeojaxError: no row or several rows have these settings, or a run left no evaluations.
    """
    row = _only(rows, reference)
    best = statistics.fmean(_best(run) for run in row.finished)

    def figures(run: Run) -> dict[str, Any]:
        time, rounds = time_to_target(_evaluations(run), best)
        if time is None or rounds is None:
            return {}
        return {"time_to_best_s": time, "rounds_to_best": math.ceil(rounds / run.exchanges)}

    return _extended(rows, figures), [
        Metric("rounds_to_best", f"rounds to {best:.3f}", decimals=0),
        Metric("time_to_best_s", f"time to {best:.3f} (s)"),
    ]


def _extended(rows: Sequence[Row], figures: Callable[[Run], dict[str, Any]]) -> list[Row]:
    return [
        replace(
            row,
            runs=tuple(
                replace(run, summary=run.summary | figures(run)) if run.finished else run
                for run in row.runs
            ),
        )
        for row in rows
    ]


def _only(rows: Sequence[Row], settings: Mapping[str, str]) -> Row:
    _, found = rows_with(settings, rows, "--best-of")
    found = [row for row in found if row.finished]
    if len(found) != 1:
        count, text = len(found) or "no", settings_text(settings)
        raise GeojaxError(f"--best-of {text}: {count} rows have these settings; one is needed")
    return found[0]


def _evaluations(run: Run) -> list[dict[str, Any]]:
    path = run.path / _EVENTS
    try:
        with path.open() as lines:
            events = [json.loads(line) for line in lines if '"evaluation"' in line]
    except (OSError, ValueError) as error:
        raise GeojaxError(f"{path}: cannot be read: {error}") from error
    found = [e for e in events if e.get("event") == "evaluation" and "accuracy" in e]
    if not found:
        raise GeojaxError(f"{path}: holds no accuracy")
    return sorted(found, key=lambda event: event["t"])


def _best(run: Run) -> float:
    of_models = {event["round"]: event["accuracy"] for event in _evaluations(run)}
    accuracies = list(of_models.values())
    return max(statistics.fmean(part) for part in _windows(accuracies))


def _windows(values: list[float]) -> Iterator[list[float]]:
    if len(values) < _SMOOTH:
        raise GeojaxError(f"--best-of: {len(values)} models; {_SMOOTH} are needed")
    for start in range(len(values) - _SMOOTH + 1):
        yield values[start : start + _SMOOTH]


def _total(run: Run, cost: str, option: str) -> float:
    total = run.figure(cost)
    if not total:
        raise GeojaxError(f"{option}: {run.path} did not measure it")
    return total


def _accuracy_at(run: Run, cost: str, budget: float) -> float | None:
    """The last accuracy within the budget; None: it was first evaluated after that."""
    if cost == "rounds":
        spent = [(math.ceil((e["round"] + 1) / run.exchanges), e) for e in _evaluations(run)]
    else:
        rate = _total(run, cost, cost) / _total(run, "time_s", cost)
        spent = [(event["t"] * rate, event) for event in _evaluations(run)]
    within = [event["accuracy"] for at, event in spent if at <= budget * _SLACK]
    return within[-1] if within else None
