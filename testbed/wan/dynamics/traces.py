"""Rates that follow a recorded trace."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar

from geojax import fields
from geojax.errors import ConfigError
from geojax.overlay.view import Edge
from testbed.wan import fields as wan_fields
from testbed.wan.dynamics.base import Event
from testbed.wan.dynamics.trace_files import Series, read_csv, read_mahimahi


@dataclass(frozen=True)
class Trace:
    """Some links' rates follow recorded series; all others keep theirs.

    Attributes:
      source: the files, for descriptions.
      series: the rate of every traced link.
    """

    kind: ClassVar[str] = "trace"
    source: tuple[str, ...]
    series: tuple[tuple[Edge, Series], ...]

    def events(self) -> Iterator[Event]:
        """One event a sample."""
        streams = [_events(edge, series) for edge, series in self.series]
        return heapq.merge(*streams, key=attrgetter("at"))

    def summary(self) -> dict[str, Any]:
        """Files, and how many links and samples they hold."""
        samples = sum(len(series.times) for _, series in self.series)
        return {
            "kind": self.kind,
            "files": list(self.source),
            "links": len(self.series),
            "samples": samples,
        }


def read_trace(key: str, settings: Mapping, edges: Collection[Edge]) -> Trace:
    """Reads ``{kind: trace, file, repeat_s}`` or ``{kind: trace, mahimahi: [...], bin_s}``."""
    stated = fields.mapping(key, settings, ("kind", "file", "repeat_s", "mahimahi", "bin_s"))
    if ("file" in stated) == ("mahimahi" in stated):
        fix = "name either a CSV file (file: PATH) or packet traces (mahimahi: [...])"
        raise ConfigError(key, dict(stated), fix)
    if "file" in stated:
        trace = _read_csv_trace(key, stated, edges)
    else:
        trace = _read_mahimahi_trace(key, stated, edges)
    for edge, series in trace.series:
        if series.times[0] == 0 and series.rates[0] == 0:
            fix = "a link may stop later, but its rate at time 0 must be above 0"
            raise ConfigError(key, "->".join(edge), fix)
    return trace


def _read_csv_trace(key: str, stated: Mapping, edges: Collection[Edge]) -> Trace:
    if "bin_s" in stated:
        raise ConfigError(f"{key}.bin_s", stated["bin_s"], "belongs to mahimahi traces; remove it")
    path, repeat = _path(f"{key}.file", stated["file"]), stated.get("repeat_s")
    if repeat is not None:
        repeat = fields.number(f"{key}.repeat_s", repeat, "the seconds of one turn")
    found = read_csv(path, f"{key}.file", repeat)
    for edge in found:
        if edge not in edges:
            fix = f"{path} gives rates for a link that the WAN does not have; remove the rows"
            raise ConfigError(f"{key}.file", "->".join(edge), fix)
    return Trace((str(path),), tuple((edge, found[edge]) for edge in edges if edge in found))


def _read_mahimahi_trace(key: str, stated: Mapping, edges: Collection[Edge]) -> Trace:
    if "repeat_s" in stated:
        fix = "a mahimahi trace starts again at its own end; remove it"
        raise ConfigError(f"{key}.repeat_s", stated["repeat_s"], fix)
    what = "the seconds over which packets are counted"
    bin_s = fields.number(f"{key}.bin_s", stated.get("bin_s", 1.0), what)
    centers = dict.fromkeys(center for edge in edges for center in edge)
    found: dict[Edge, Series] = {}
    sources: list[str] = []
    entries = fields.sequence(f"{key}.mahimahi", stated["mahimahi"], "{from, to, file}")
    for index, entry in enumerate(entries):
        inner = f"{key}.mahimahi[{index}]"
        named = fields.mapping(inner, entry, ("between", "from", "to", "file"))
        path = _path(f"{inner}.file", named.get("file"))
        ends = {name: value for name, value in named.items() if name != "file"}
        chosen = wan_fields.existing_links(inner, wan_fields.read_ends(inner, ends, centers), edges)
        for edge in chosen:
            if edge in found:
                raise ConfigError(inner, "->".join(edge), "this link has a trace already")
            found[edge] = read_mahimahi(path, bin_s, f"{inner}.file")
        sources.append(str(path))
    if not found:
        raise ConfigError(f"{key}.mahimahi", entries, "write at least one {from, to, file}")
    return Trace(tuple(sources), tuple((edge, found[edge]) for edge in edges if edge in found))


def _path(key: str, value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigError(key, value, "write the path of a trace file")
    return Path(value)


def _events(edge: Edge, series: Series) -> Iterator[Event]:
    return (Event(at, {edge: rate}) for at, rate in series.samples())
