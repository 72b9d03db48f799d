"""The same configuration in one row, one column per value of a setting: testbeds side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.runs.rows import Row, full_key, identity, label
from experiments.table.comparison import (
    ABSENT,
    Column,
    Metric,
    Table,
    find_metrics,
    metric_text,
    metric_values,
    note,
    setting_text,
    shown_settings,
    targets,
)
from geojax.errors import ConfigError, nearest

_METRICS = ("time_to_target_s", "final_accuracy", "sync_s.mean")
_NO_RATIO = ("final_accuracy", "best_accuracy")  # near 1 by nature: the two values say more
_TESTBEDS = ("simulated", "local", "emulated")  # order of columns, whatever ran first


def pivot(rows: Sequence[Row], axis: str, *, columns: Sequence[str] | None = None) -> Table:
    """Builds a side-by-side table.

    Args:
      rows: what to compare.
      axis: the setting whose values become columns, e.g. ``testbed``.
      columns: summary keys to show for each value; None: time to target, accuracy, sync time.

    Raises:
      ConfigError: the runs have no such setting.
    """
    key = full_key(axis, rows)
    if key is None:
        raise ConfigError("--pivot", axis, nearest(axis, map(label, shown_settings(rows))))
    values = _values(rows, key)
    measured = {metric.key for metric in find_metrics(None, rows)}
    chosen = columns or [name for name in _METRICS if name in measured]
    metrics = find_metrics(chosen, rows)
    lines: dict[str, dict[str, Row]] = {}
    for row in rows:
        line = lines.setdefault(identity(row.settings, without=key), {})
        line[setting_text(row.settings.get(key))] = row
    firsts = [next(iter(line.values())) for line in lines.values()]
    settings = _settings(firsts, key)
    notes = [_note(line, values) for line in lines.values()]
    heads = [Column(label(name), label(name)) for name in settings]
    for metric in metrics:
        heads += _heads(metric, values)
    heads += [Column("note", "note")] if any(notes) else []
    texts, records = [], []
    for first, line, remark in zip(firsts, lines.values(), notes, strict=True):
        cells = [setting_text(first.settings.get(name)) for name in settings]
        record: dict[str, Any] = {label(name): first.settings.get(name) for name in settings}
        for metric in metrics:
            more, figures = _cells(metric, line, values)
            cells += more
            record |= figures
        texts.append(cells + ([remark] if any(notes) else []))
        records.append(record | {"note": remark})
    return Table(heads, texts, records, targets(rows, metrics))


def _settings(rows: Sequence[Row], key: str) -> list[str]:
    """The settings to show: just the experiment where its name tells every row apart."""
    settings = shown_settings(rows, without=key)
    names = {row.settings.get("experiment") for row in rows}
    return ["experiment"] if "experiment" in settings and len(names) == len(rows) else settings


def _values(rows: Sequence[Row], key: str) -> list[str]:
    seen = list(dict.fromkeys(setting_text(row.settings.get(key)) for row in rows))
    if key == "testbed.name":
        seen.sort(key=lambda name: _TESTBEDS.index(name) if name in _TESTBEDS else len(_TESTBEDS))
    return seen


def _ratios(metric: Metric, values: Sequence[str]) -> list[tuple[str, str]]:
    if metric.key in _NO_RATIO:
        return []
    return [(value, values[0]) for value in values[1:]]


def _heads(metric: Metric, values: Sequence[str]) -> list[Column]:
    heads = [Column(f"{metric.key}@{v}", f"{metric.header}\n{v}", number=True) for v in values]
    return heads + [
        Column(f"{metric.key}@{top}/{bottom}", f"{top} ÷\n{bottom}", number=True)
        for top, bottom in _ratios(metric, values)
    ]


def _cells(
    metric: Metric, line: dict[str, Row], values: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    cells: list[str] = []
    record: dict[str, Any] = {}
    for value in values:
        cells.append(metric_text(metric, line[value]) if value in line else ABSENT)
        if value in line:
            record |= metric_values(metric, line[value], suffix=f"@{value}")
    for top, bottom in _ratios(metric, values):
        pair = [line[value].stat(metric.key) if value in line else None for value in (top, bottom)]
        ratio = None
        if pair[0] and pair[1] and pair[1].mean:
            ratio = pair[0].mean / pair[1].mean
        cells.append(ABSENT if ratio is None else f"{ratio:.2f}")
        record[f"{metric.key}@{top}/{bottom}"] = ratio
    return cells, record


def _note(line: dict[str, Row], values: Sequence[str]) -> str:
    remarks = [(value, note(line[value])) for value in values if value in line]
    return "; ".join(f"{value} {remark}" for value, remark in remarks if remark)
