"""Rate traces in files: CSV for whole WANs, mahimahi's packet traces for single links.

CSV has the columns time_s, from, to and mbit, one row each time a directed link gets a rate
(Mbit/s). A mahimahi trace has one whole number of ms a line, each an opportunity to send one packet
of 1500 bytes at that instant, and starts again at its last instant (Netravali et al., USENIX ATC
2015); the mean rate is 12 kbit times lines over time.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import TextIO

import numpy as np

from geojax.errors import ConfigError
from geojax.overlay.view import Edge
from testbed.wan.dynamics.base import MBIT, Change

COLUMNS = ("time_s", "from", "to", "mbit")
CALENDAR_S = 1e8  # three years: seconds since 1970, not since the start of a run
PACKET_BITS = 1500 * 8  # one line of a mahimahi trace
_PACKED = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ\x00": lzma.decompress}


@dataclass(frozen=True)
class Series:
    """A rate over time, constant between instants.

    Attributes:
      times: when each rate begins, s, ascending.
      rates: bit/s.
      period: after so many s it starts again; None: the last rate stays.
    """

    times: tuple[float, ...]
    rates: tuple[float, ...]
    period: float | None = None

    def samples(self) -> Iterator[tuple[float, float]]:
        """(time, rate) in time order, without end if periodic."""
        for turn in count() if self.period is not None else range(1):
            start = turn * (self.period or 0.0)
            for time, rate in zip(self.times, self.rates, strict=True):
                yield start + time, rate


def read_csv(path: Path, key: str = "file", repeat_s: float | None = None) -> dict[Edge, Series]:
    """Reads the rates of a WAN.

    Args:
      path: the file.
      key: the configuration key that named it, for messages.
      repeat_s: the trace starts again after so many s.

    Raises:
      ConfigError: names the file, the line and the fix.
    """
    rows: dict[Edge, dict[float, float]] = {}
    with _open(path, key) as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        if sorted(reader.fieldnames) != sorted(COLUMNS):
            fix = f"the first line must name the columns {','.join(COLUMNS)}"
            raise ConfigError(key, f"{path}:1", fix)
        for row in reader:
            line = f"{path}:{reader.line_num}"
            if None in row or None in row.values():
                raise ConfigError(key, line, f"must have {len(COLUMNS)} values, as the first line")
            time, rate = (_csv_number(key, line, row, name) for name in ("time_s", "mbit"))
            times = rows.setdefault((row["from"], row["to"]), {})
            if time in times:
                raise ConfigError(key, line, "this link has a rate at this time already")
            times[time] = rate * MBIT
            if repeat_s is not None and time >= repeat_s:
                raise ConfigError(key, line, f"lies after the end of a turn of {repeat_s:g} s")
    if not rows:
        raise ConfigError(key, str(path), "the file holds no rates")
    first = min(time for times in rows.values() for time in times)
    if first >= CALENDAR_S:
        fix = f"its first time_s, {first:.10g}, is a calendar time: subtract it from all"
        raise ConfigError(key, str(path), fix)
    found: dict[Edge, Series] = {}
    for edge, rates in rows.items():
        times = sorted(rates)
        found[edge] = Series(tuple(times), tuple(rates[time] for time in times), repeat_s)
    return found


def _csv_number(key: str, line: str, row: Mapping[str, str | None], name: str) -> float:
    try:
        value = float(row[name] or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ConfigError(key, line, f"{name} = {row[name]!r} must be a number of at least 0")
    return value


def write_csv(path: Path, series: Mapping[Edge, Series]) -> None:
    """Writes rates (one turn of periodic ones) so that :func:`read_csv` reads the same again."""
    rows = [
        (time, source, target, rate / MBIT)
        for (source, target), rates in series.items()
        for time, rate in zip(rates.times, rates.rates, strict=True)
    ]
    rows.sort(key=lambda row: row[0])
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def record(
    rates: Mapping[Edge, float], changes: Iterable[Change], until: float
) -> dict[Edge, Series]:
    """What a WAN's rates do up to ``until`` s, for :func:`write_csv` and :func:`write_mahimahi`.

    Args:
      rates: at t = 0, bit/s.
      changes: in time order, possibly without end.
      until: experiment time, s; changes at this instant are left out.
    """
    found = {edge: [(0.0, rate)] for edge, rate in rates.items()}
    for change in takewhile(lambda change: change.at < until, changes):
        for edge, rate in change.rates.items():
            found[edge].append((change.at, rate))
    return {
        edge: Series(tuple(at for at, _ in samples), tuple(rate for _, rate in samples))
        for edge, samples in found.items()
    }


def read_mahimahi(path: Path, bin_s: float, key: str = "file") -> Series:
    """Reads the trace of one directed link as mean rates over bins of ``bin_s`` s.

    The last bin is as long as what is left of the trace, which then starts again.

    Raises:
      ConfigError: names the file and the fix.
    """
    words = _open(path, key).read().split()
    try:
        stamps = np.array(words, dtype=np.int64)
    except ValueError:
        stamps = np.array([-1])
    if stamps.size == 0 or stamps[0] < 0 or np.any(np.diff(stamps) < 0) or stamps[-1] == 0:
        fix = "a mahimahi trace has one whole number of ms a line, never falling, the last above 0"
        raise ConfigError(key, str(path), fix)
    period = float(stamps[-1]) / 1e3
    starts = np.arange(0, period * (1 - 1e-9), bin_s)
    ends = np.append(starts[1:], period)
    # a line's packet belongs to the ms that ends at its instant
    bins = np.searchsorted(starts, np.maximum(stamps - 1, 0) / 1e3, side="right") - 1
    packets = np.bincount(bins, minlength=len(starts))
    rates = packets * PACKET_BITS / (ends - starts)
    return Series(tuple(starts.tolist()), tuple(rates.tolist()), period)


def write_mahimahi(path: Path, series: Series, duration_s: float) -> None:
    """Writes ``duration_s`` s of a link's rate as packets that are due.

    Args:
      path: the file.
      series: the rate; it must begin at time 0.
      duration_s: s, whole ms; the trace ends with a packet at this instant, as its turn ends there.
    """
    total_ms = round(duration_s * 1e3)
    edges, rates = _pieces(series, duration_s)
    bits = np.concatenate([[0.0], np.cumsum(np.diff(edges) * rates)])
    due = np.interp(np.arange(1, total_ms + 1) / 1e3, edges, bits)  # sent by the end of each ms
    packets = np.floor(due / PACKET_BITS + 1e-9).astype(np.int64)
    packets[-1] = max(packets[-1], packets[-2] + 1 if total_ms > 1 else 1)
    stamps = np.repeat(np.arange(1, total_ms + 1), np.diff(packets, prepend=0))
    path.write_text("".join(f"{stamp}\n" for stamp in stamps.tolist()))


def _pieces(series: Series, until: float) -> tuple[np.ndarray, np.ndarray]:
    """The instants between which the rate is constant, up to ``until``, and the rates."""
    times, rates = [], []
    for time, rate in series.samples():
        if time >= until:
            break
        times.append(time)
        rates.append(rate)
    return np.array([*times, until]), np.array(rates)


def _open(path: Path, key: str) -> TextIO:
    """The text of a file, unpacked where it is packed.

    Raises:
      ConfigError: it cannot be read, or holds no text.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        fix = f"cannot be read ({error.strerror}); paths start from the working directory"
        raise ConfigError(key, str(path), fix) from error
    for magic, unpack in _PACKED.items():
        if content.startswith(magic):
            try:
                content = unpack(content)
            except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                fix = f"cannot be unpacked ({error}); give a whole file"
                raise ConfigError(key, str(path), fix) from error
    if content.startswith(b"PK\x03\x04"):
        raise ConfigError(key, str(path), "is a ZIP archive: unpack it, and name the file in it")
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return io.StringIO(content.decode(encoding), newline="")
    except UnicodeDecodeError as error:
        fix = f"is no text in UTF-8 (byte {error.start}); save it as UTF-8"
        raise ConfigError(key, str(path), fix) from error
