"""The comparison table: one row per configuration, its figures, its speed-up over a baseline."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments.runs.rows import Row, Stat, belongs, differing, full_key, label
from geojax.errors import ConfigError, GeojaxError, nearest

ABSENT = "–"
SPREAD = "±: sample standard deviation over seeds (n − 1)"
PACE_LIMIT = 0.01  # share of steps slower than their pace above which a row is marked
_MOSTLY = 0.5  # share of rounds
_ERROR_LENGTH = 70  # characters of an error that a table shows
_OF_TARGET = ("time_to_target_s", "rounds_to_target")
_SCALES = ("wan.bandwidth_scale", "wan.delay_scale")


@dataclass(frozen=True)
class Metric:
    """A figure of ``summary.json`` as a column.

    Attributes:
      key: its dotted key in the summary.
      header: the column's header, with the unit shown.
      scale: shown value ÷ stored value.
      decimals: fixed decimals; None: three significant digits.
    """

    key: str
    header: str
    scale: float = 1.0
    decimals: int | None = None

    def text(self, stat: Stat) -> str:
        """Mean ± standard deviation, as shown."""
        mean, decimals = stat.mean * self.scale, self.decimals
        if decimals is None:
            size = math.floor(math.log10(abs(mean))) if mean else 2
            decimals = min(max(0, 2 - size), 6)
        spread = "" if stat.std is None else f" ± {stat.std * self.scale:,.{decimals}f}"
        return f"{mean:,.{decimals}f}{spread}"


METRICS = (
    Metric("final_accuracy", "accuracy", decimals=3),
    Metric("time_to_target_s", "time to target (s)"),
    Metric("time_s", "time (s)"),
    Metric("rounds", "rounds", decimals=0),
    Metric("sync_s.mean", "sync (s)"),
    Metric("wan_bytes", "WAN (MB)", scale=1e-6),
    Metric("lan_bytes", "LAN (MB)", scale=1e-6),
    Metric("internal_bytes", "internal (MB)", scale=1e-6),
    Metric("balance", "balance", decimals=2),
    Metric("blocking_share", "blocking", decimals=2),
    Metric("bound_efficiency", "of bound", decimals=2),
)
# Shown where they are asked for.
_MORE_METRICS = (
    Metric("bound_ratio", "× bound", decimals=2),
    Metric("rounds_to_target", "rounds to target", decimals=0),
    Metric("cpu_share", "CPU", decimals=2),
    Metric("internal_s", "internal (s)"),
    Metric("divergence.mean", "divergence", decimals=4),
    Metric("divergence.median", "median", decimals=4),
    Metric("divergence.std", "std", decimals=4),
    Metric("divergence.max", "max", decimals=4),
    Metric("divergence.min", "min", decimals=4),
    Metric("choice_ms", "CPU ms a choice", decimals=2),
    Metric("samples", "samples", decimals=0),
    Metric("samples_per_s", "samples/s"),
    Metric("wan_bytes_per_epoch", "WAN, both ways (MB/epoch)", scale=1e-6),
    Metric("wan_offer_bytes_per_epoch", "WAN, offers (MB/epoch)", scale=1e-6),
    *(
        Metric(f"shares.{kind}", kind, decimals=2)
        for kind in ("compute", "query", "transfer", "wait", "server")
    ),
    Metric("staleness.mean", "staleness"),
    Metric("staleness.mean_s", "staleness (s)"),
    Metric("questions.per_s", "questions/s"),
    Metric("questions.p99_s", "question, p99 (ms)", scale=1e3),
    Metric("prediction.error", "prediction error", decimals=3),
    Metric("prediction.wrong", "wrong straggler", decimals=2),
    Metric("center_prediction.error", "prediction error, centers", decimals=3),
    Metric("center_prediction.wrong", "wrong straggler, centers", decimals=2),
)


@dataclass(frozen=True)
class Column:
    """A column: ``key`` in machine formats, ``header`` (lines) where people read."""

    key: str
    header: str
    number: bool = False


@dataclass
class Table:
    """A finished table. ``texts`` is for people, ``values`` (one dict a row) for machines."""

    columns: list[Column]
    texts: list[list[str]]
    values: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def find_metrics(names: Sequence[str] | None, rows: Sequence[Row]) -> list[Metric]:
    """The metrics to show: the named ones, or those of the default set that were measured.

    Raises:
      ConfigError: a name is no figure that any of the runs measured.
    """
    if names is None:
        return [m for m in METRICS if any(row.stat(m.key) or _missed(m, row) for row in rows)]
    by_key = {metric.key: metric for metric in (*METRICS, *_MORE_METRICS)}
    measured = {key for row in rows for run in row.runs for key in _numbers(run.summary)}
    for name in names:
        if name not in by_key and name not in measured:
            raise ConfigError("--columns", name, nearest(name, measured | set(by_key)))
    return [by_key.get(name, Metric(name, name)) for name in names]


def compare(
    rows: Sequence[Row],
    *,
    columns: Sequence[str] | None = None,
    baseline: Mapping[str, str] | None = None,
    more: Sequence[Metric] = (),
) -> Table:
    """Builds the comparison of some rows.

    Args:
      rows: what to compare; see :func:`experiments.runs.rows.group`.
      columns: summary keys to show; None: the default set, where measured.
      baseline: settings that the baseline's rows have, e.g. ``{"sync": "fsa"}``; None: no speed-up.
      more: further metrics, shown last.
    """
    settings = shown_settings(rows)
    metrics = [*find_metrics(columns, rows), *more]
    several = any(len(row.runs) > 1 for row in rows)
    speeds = speed_ups(rows, baseline) if baseline else {}
    heads = [Column(label(key), label(key)) for key in settings]
    heads += [Column("seeds", "seeds", number=True)] if several else []
    heads += [Column(metric.key, metric.header, number=True) for metric in metrics]
    heads += [Column("speed_up", "speed-up", number=True)] if baseline else []
    notes = [note(row) for row in rows]
    heads += [Column("note", "note")] if any(notes) else []
    texts, values = [], []
    for index, row in enumerate(rows):
        cells = [setting_text(row.settings.get(key)) for key in settings]
        cells += [_seeds(row)] if several else []
        cells += [metric_text(metric, row) for metric in metrics]
        if baseline:
            speed = speeds.get(index)
            cells.append(ABSENT if speed is None else f"{speed:.2f}×")
        cells += [notes[index]] if any(notes) else []
        texts.append(cells)
        record: dict[str, Any] = {label(key): row.settings.get(key) for key in settings}
        record |= {"runs": len(row.runs), "failed": len(row.errors), "missed": row.missed}
        for metric in metrics:
            record |= metric_values(metric, row)
        record |= {"speed_up": speeds.get(index)} if baseline else {}
        values.append(record | {"note": notes[index]})
    spread = any(stat.std is not None for row in rows for m in metrics if (stat := row.stat(m.key)))
    return Table(heads, texts, values, [SPREAD] * spread + targets(rows, metrics))


def targets(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[str]:
    """What the rows' target is, and how well an accuracy near it is known; nothing if not shown."""
    if not any(metric.key in _OF_TARGET for metric in metrics):
        return []
    found = {}
    for run in (run for row in rows for run in row.finished):
        target, error = (run.figure(f"target_{name}") for name in ("accuracy", "standard_error"))
        if target is not None and error is not None:
            samples = run.figure("test_samples") or 0
            found[target, error] = (
                f"target: accuracy {target:g} ± {error:.3f} (standard error on {samples:,.0f} test "
                "samples)"
            )
    return list(found.values())


def _seeds(row: Row) -> str:
    """How many seeds the figures are made of, and of how many where some failed."""
    count = len(row.finished)
    return f"{count}/{len(row.runs)}" if row.errors else str(count)


def shown_settings(rows: Sequence[Row], without: str | None = None) -> list[str]:
    """Settings worth a column: those that differ, the WAN and testbed, and scales that are not 1.

    Args:
      rows: the table's rows.
      without: a group that the table shows otherwise.
    """
    keys = differing(rows)
    for key in ("wan.name", "testbed.name"):
        if key not in keys and full_key(key, rows):
            keys.append(key)
    scaled = [key for key in _SCALES if any(row.settings.get(key, 1) != 1 for row in rows)]
    keys += [key for key in scaled if key not in keys]
    return [key for key in keys if without is None or not belongs(key, without)]


def setting_text(value: Any) -> str:
    """A setting as shown: plain words and numbers as they are, anything else as compact JSON."""
    if value is None:
        return ABSENT
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def metric_text(metric: Metric, row: Row) -> str:
    """A figure as shown; a target that was not reached is ``missed``, by some seeds ``(2/3)``."""
    stat = row.stat(metric.key)
    missed = _missed(metric, row)
    if stat is None:
        return "missed" if missed else ABSENT
    reached = f" ({stat.count}/{stat.count + missed})" if missed else ""
    return metric.text(stat) + reached


def metric_values(metric: Metric, row: Row, suffix: str = "") -> dict[str, float | None]:
    """A figure's mean and standard deviation in the summary's unit, for machines."""
    stat = row.stat(metric.key)
    return {
        f"{metric.key}{suffix}": stat.mean if stat else None,
        f"{metric.key}{suffix}_std": stat.std if stat else None,
    }


def note(row: Row) -> str:
    """What a reader must know of a row.

    Failures, deaths and other incidents, dynamics that never came, paces not kept, repeated seeds,
    bounds by latency, rounds of several exchanges.
    """
    parts = []
    if row.errors:
        error = row.errors[0].strip().splitlines()[0] if row.errors[0].strip() else "no error told"
        short = error if len(error) <= _ERROR_LENGTH else f"{error[: _ERROR_LENGTH - 1]}…"
        count = f"{len(row.errors)} of {len(row.runs)} " if row.finished else ""
        parts.append(f"{count}failed: {short}")
    parts += row.incidents
    if any(run.figure("rate_changes") == 0 for run in row.finished):
        parts.append("no rate changed, though wan.dynamics is set")
    if row.repeats:
        runs = "1 run" if row.repeats == 1 else f"{row.repeats} runs"
        parts.append(f"{runs} of the same seed left out")
    broken, steps = row.stat("pace_violations"), row.stat("steps")
    if broken and steps and broken.mean > PACE_LIMIT * steps.mean:
        parts.append(f"pace not kept in {100 * broken.mean / steps.mean:.0f} % of steps")
    latency = row.stat("latency_decides")
    if latency and latency.mean > _MOSTLY and row.stat("bound_efficiency"):
        parts.append("latency decides the bound")
    if row.runs[0].exchanges > 1:
        parts.append(f"{row.runs[0].exchanges} exchanges a federated round")
    return "; ".join(parts)


def speed_ups(rows: Sequence[Row], baseline: Mapping[str, str]) -> dict[int, float]:
    """Baseline's time ÷ row's time, by row index; rows without a comparable baseline are absent.

    A row's baseline has the given settings, is on the same testbed, and agrees with the row in
    the most other settings that differ; with several such, there is none.

    Raises:
      GeojaxError: no row has these settings.
      ConfigError: there is no such setting.
    """
    wanted, candidates = rows_with(baseline, rows, "--baseline")
    if not candidates:
        raise GeojaxError(f"--baseline {settings_text(baseline)}: no run has these settings")
    found = {}
    for index, row in enumerate(rows):
        reference = _reference(row, candidates, wanted, differing(rows))
        speed = _speed(reference, row) if reference else None
        if speed is not None:
            found[index] = speed
    return found


def rows_with(
    settings: Mapping[str, str], rows: Sequence[Row], option: str
) -> tuple[dict[str, str], list[Row]]:
    """The settings by their full keys, and the rows that have them.

    Raises:
      ConfigError: there is no such setting; names ``option``.
    """
    wanted = {}
    for name, value in settings.items():
        key = full_key(name, rows)
        if key is None:
            raise ConfigError(option, name, nearest(name, map(label, shown_settings(rows))))
        wanted[key] = value
    return wanted, [
        row
        for row in rows
        if all(setting_text(row.settings.get(key)) == value for key, value in wanted.items())
    ]


def settings_text(settings: Mapping[str, str]) -> str:
    """Settings as on the command line."""
    return ",".join(f"{key}={value}" for key, value in settings.items())


def _reference(
    row: Row, candidates: Sequence[Row], wanted: Mapping[str, str], keys: Sequence[str]
) -> Row | None:
    free = [key for key in wanted if label(key) != key] + list(wanted)
    others = [key for key in keys if not any(belongs(key, axis) for axis in free)]
    if "testbed.name" in others:
        same = row.settings.get("testbed.name")
        candidates = [each for each in candidates if each.settings.get("testbed.name") == same]

    def agreement(other: Row) -> int:
        return sum(row.settings.get(key) == other.settings.get(key) for key in others)

    best = max(map(agreement, candidates), default=0)
    nearest_rows = [each for each in candidates if agreement(each) == best]
    return nearest_rows[0] if len(nearest_rows) == 1 else None


def _speed(reference: Row, row: Row) -> float | None:
    """By time to target, if all seeds reached it; by mean sync time when nothing was trained."""
    if reference.missed or row.missed:
        return None
    trained = any(each.stat("final_accuracy") for each in (reference, row))
    key = "time_to_target_s" if trained else "sync_s.mean"
    before, after = reference.stat(key), row.stat(key)
    if before is None or after is None or after.mean <= 0:
        return None
    return before.mean / after.mean


def _missed(metric: Metric, row: Row) -> int:
    if metric.key in ("time_to_best_s", "rounds_to_best"):
        return sum(run.figure(metric.key) is None for run in row.finished)
    return row.missed if metric.key == "time_to_target_s" else 0


def _numbers(summary: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in summary.items():
        if isinstance(value, dict):
            found += _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append(prefix + key)
    return found
