"""Spans on disk, so that they outlive who recorded them: a line each, of one node or of several."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from geojax.telemetry.recorder import Span

SPANS = "spans.jsonl"  # in a run's directory, or in a node's folder, until the trace is written


class SpanFile:
    """Writes spans to a stream; :meth:`flush` brings them to the file.

    Args:
      stream: where to.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._encode = json.JSONEncoder(separators=(",", ":")).encode

    def take(self, node: str, span: Span) -> None:
        """Writes a span of a node."""
        values = [node, span.name, span.start, span.end, span.args]
        self._stream.write(self._encode(values) + "\n")

    def flush(self) -> None:
        """What was taken so far is in the file afterwards."""
        self._stream.flush()


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
