"""Spans on disk, so that they outlive who recorded them: a line each, of one node or of several."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from geojax.telemetry.recorder import Span

SPANS = "spans.jsonl"  # in a run's directory, or in a node's folder, until the trace is written


class SpanFile:
    """Writes spans to a stream, in ASCII; :meth:`flush` brings them to the file.

    Args:
      stream: where to.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._encode = json.JSONEncoder(separators=(",", ":")).encode

    def take(self, node: str, span: Span) -> None:
        """Writes a span of a node."""
        values = [node, span.name, span.start, span.end, span.args]
        self.write(node, self._encode(values) + "\n")

    def write(self, node: str, line: str) -> None:
        """Writes the line of a node's span."""
        del node
        self._stream.write(line)

    def flush(self) -> None:
        """What was taken so far is in the file afterwards."""
        self._stream.flush()


class SpanStore(SpanFile):
    """A new file of spans that can be read back by node; a few bytes a span are held.

    Args:
      path: of the file.
      stream: it, open for writing and empty.
    """

    def __init__(self, path: Path, stream: TextIO):
        super().__init__(stream)
        self._path, self._size = path, 0
        self._starts: dict[str, array[int]] = {}  # of the lines of each node

    def write(self, node: str, line: str) -> None:
        """See :class:`SpanFile`."""
        super().write(node, line)
        self._starts.setdefault(node, array("Q")).append(self._size)
        self._size += len(line)

    def stored(self, nodes: Iterable[str]) -> Mapping[str, Iterable[Span]]:
        """The spans of nodes, in the order in which they were taken; read whenever iterated."""
        self.flush()
        return {name: _Stored(self._path, self._starts.get(name, ())) for name in nodes}


class _Stored(Iterable[Span]):
    """The spans that begin at these bytes of a file."""

    def __init__(self, path: Path, starts: Iterable[int]):
        self._path, self._starts = path, starts

    def __iter__(self) -> Iterator[Span]:
        with self._path.open("rb") as stream:
            for start in self._starts:
                stream.seek(start)
                yield Span(*json.loads(stream.readline())[1:])


def read_spans(paths: Iterable[Path]) -> dict[str, list[Span]]:
    """The spans of files, which need not exist, by node; a line that was cut off is left out."""
    found: dict[str, list[Span]] = {}
    for path in paths:
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            if not line.endswith("]"):
                continue
            node, *values = json.loads(line)
            found.setdefault(node, []).append(Span(*values))
    return found
