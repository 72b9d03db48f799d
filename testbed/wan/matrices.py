"""Matrices of measured rates and round trips: a WAN as ``iperf`` and ``ping`` find it.

Rows send, columns receive. The name of a matrix has its unit: ``rate_kbit``, ``rate_mbit`` or
``rate_gbit`` (a second), ``rtt_us``, ``rtt_ms`` or ``rtt_s``. A pair without a rate has no link;
the two directions may differ. A round trip that was measured from one end holds for both. What
stands on the diagonal is the center's LAN. Where there are no round trips, ``wan.rtt`` says them.

In YAML and JSON, matrices stand beside the other keys of a WAN, in the order of ``centers``::

    centers: [oregon, tokyo]
    rate_mbit: [[null, 861], [523, null]]
    rtt_ms: [[null, 97], [97, null]]

In CSV, a block begins with the matrix's name and the receivers; an empty cell, or ``-``, is none::

    rate_mbit,oregon,tokyo
    oregon,,861
    tokyo,523,
    rtt_ms,oregon,tokyo
    oregon,,97
    tokyo,97,
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geojax import fields
from geojax.errors import ConfigError

_NAME = re.compile(r"(rate|rtt)_(.+)")
_UNITS = {  # of a matrix, as a factor to Mbit/s or ms
    "rate": {"kbit": 1e-3, "mbit": 1.0, "gbit": 1e3},
    "rtt": {"us": 1e-3, "ms": 1.0, "s": 1e3},
}
_NONE = ("", "-")  # cells of CSV

Matrix = list[list[float | None]]  # Mbit/s or ms


def names_of(stated: Mapping[Any, Any]) -> list[str]:
    """The keys of a file that are matrices, in whatever unit.

    >>> names_of({"rate": 5, "rate_mbit": [[None, 5], [5, None]], "rtt_low": 3})
    ['rate_mbit']
    """
    return [
        str(name)
        for name, value in stated.items()
        if _NAME.fullmatch(str(name)) and isinstance(value, list)
    ]


def read_csv(path: Path) -> dict[str, Any]:
    """The matrices of a CSV file as YAML would state them.

    Raises:
      ConfigError: names the file, the line and the fix.
    """
    blocks: dict[str, dict[str, dict[str, float | None]]] = {}
    name, receivers = "", []
    for number, cells in _lines(path):
        where = f"{path}:{number}"
        if _NAME.fullmatch(cells[0]):
            name, receivers = cells[0], cells[1:]
            if name in blocks:
                raise ConfigError("wan", where, f"the file has the matrix {name} already")
            if len({*receivers}) < len(receivers):
                raise ConfigError("wan", where, "a center has two columns; keep one")
            blocks[name] = {}
            continue
        if not name:
            fix = "begin with the matrix's name and the receivers, e.g. rate_mbit,oregon,tokyo"
            raise ConfigError("wan", where, fix)
        if cells[0] in blocks[name]:
            raise ConfigError("wan", where, f"{name} has a row of {cells[0]!r} already")
        if len(cells) - 1 != len(receivers):
            fix = f"has {len(cells) - 1} values for the {len(receivers)} columns of {name}"
            raise ConfigError("wan", where, fix)
        blocks[name][cells[0]] = {
            receiver: _cell(f"{name}[{cells[0]}][{receiver}]", where, cell)
            for receiver, cell in zip(receivers, cells[1:], strict=True)
        }
    if not blocks:
        fix = "holds no matrix; begin with its name and the receivers, e.g. rate_mbit,oregon,tokyo"
        raise ConfigError("wan", str(path), fix)
    centers = list(next(iter(blocks.values())))
    for name, rows in blocks.items():
        for row in rows.values():
            _same_names(path, name, centers, rows, row)
    squares = {
        name: [[rows[source][target] for target in centers] for source in centers]
        for name, rows in blocks.items()
    }
    return {"centers": centers, **squares}


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The numbers and cells of the lines that are not empty."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, skipinitialspace=True)
            lines = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
            return [(number, cells) for number, cells in lines if any(cells)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError("wan", str(path), f"no comma-separated values: {error}") from error


def _cell(key: str, where: str, text: str) -> float | None:
    if text in _NONE:
        return None
    try:
        return float(text)
    except ValueError:
        fix = "write a plain number, or nothing where nothing is known; the unit is in the name"
        raise ConfigError(f"{where}: {key}", text, fix) from None


def _same_names(
    path: Path, name: str, centers: Sequence[str], rows: Mapping[str, Any], row: Mapping[str, Any]
) -> None:
    """Every matrix has the same centers, and each of them a row and a column."""
    for what, found in (("row", rows), ("column", row)):
        other = sorted({*centers} ^ {*found})
        if other:
            fix = f"every center needs a row and a column; {what}s lack or alone have {other}"
            raise ConfigError("wan", f"{path}: {name}", fix)


def written_out(stated: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The keys of a file with its matrices as ``links`` and LANs of ``centers``.

    Args:
      stated: the file's keys; at least one names a matrix.
      path: the file, for messages.

    Raises:
      ConfigError: a unit is unknown, a matrix is no square of numbers as large as ``centers`` is
        long, a value is negative, a center has no link in or out, or links are stated twice.
    """
    names = names_of(stated)
    rest = {key: value for key, value in stated.items() if key not in names}
    if rest.get("links") or rest.get("generator"):
        fix = f"{names[0]} makes the links; leave links and generator out"
        raise ConfigError("wan", str(path), fix)
    key = f"{path}: centers"
    entries = fields.sequence(key, rest.get("centers"), "the centers, in the order of the rows")
    centers = [dict(e) if isinstance(e, Mapping) else {"name": e} for e in entries]
    labels = [str(center.get("name")) for center in centers]
    read: dict[str, Matrix] = {}
    for name in names:
        kind, factor = _unit(f"{path}: {name}", name)
        if kind in read:
            raise ConfigError("wan", str(path), f"has two matrices of the {kind}; keep one")
        read[kind] = _square(f"{path}: {name}", stated[name], labels, factor)
    if "rate" not in read:
        raise ConfigError("wan", str(path), "has no matrix of rates, e.g. rate_mbit")
    for kind, matrix in read.items():
        for at, center in enumerate(centers):
            if matrix[at][at]:  # a site that does not measure itself often says 0
                center.setdefault(f"lan_{kind}", matrix[at][at])
    links = _links(read["rate"], read.get("rtt"), labels, str(path))
    return {**rest, "centers": centers, "links": links}


def _unit(key: str, name: str) -> tuple[str, float]:
    found = _NAME.fullmatch(name)
    kind, unit = found.groups() if found else ("rate", "")
    if unit not in _UNITS[kind]:
        valid = ", ".join(f"{kind}_{known}" for known in _UNITS[kind])
        raise ConfigError(key, unit, f"unknown unit; name the matrix one of {valid}")
    return kind, _UNITS[kind][unit]


def _square(key: str, value: Any, labels: Sequence[str], factor: float) -> Matrix:
    rows = [
        fields.sequence(f"{key}[{at}]", row, "numbers")
        for at, row in enumerate(fields.sequence(key, value, "rows"))
    ]
    shape = [len(rows), *dict.fromkeys(map(len, rows))]
    if {*shape} != {len(labels)}:
        fix = f"needs {len(labels)} rows of {len(labels)} values, one of each of its centers"
        raise ConfigError(key, " x ".join(map(str, shape)), fix)
    matrix: Matrix = []
    for source, row in zip(labels, rows, strict=True):
        found: list[float | None] = []
        for target, cell in zip(labels, row, strict=True):
            at = f"{key}[{source}][{target}]"
            if cell is not None:
                cell = fields.number(at, cell, "what was measured, or null", zero=True)
                # six digits after the point hide what the unit's factor adds
                cell = round(cell * factor, 6)
            found.append(cell)
        matrix.append(found)
    return matrix


def _links(
    rates: Matrix, rtts: Matrix | None, labels: Sequence[str], path: str
) -> list[dict[str, Any]]:
    links = []
    for row, source in enumerate(labels):
        for column, target in enumerate(labels):
            rate = rates[row][column]
            if row == column or rate is None:
                continue
            if not rate:
                fix = "no link carries nothing: leave the value out where there is no link"
                raise ConfigError(f"{path}: rate[{source}][{target}]", rate, fix)
            link: dict[str, Any] = {"from": source, "to": target, "rate": rate}
            rtt = None
            if rtts is not None:
                there, back = rtts[row][column], rtts[column][row]
                rtt = back if there is None else there
            links.append(link if rtt is None else {**link, "rtt": rtt})
    for way in ("from", "to"):
        missing = sorted({*labels} - {link[way] for link in links})
        if missing and len(labels) > 1:
            what = "no link leaves" if way == "from" else "no link reaches"
            where = "row" if way == "from" else "column"
            fix = f"{what} it: state at least one rate in its {where}"
            raise ConfigError(f"{path}: center", missing[0], fix)
    return links
