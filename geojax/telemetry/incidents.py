"""What disturbed a run, from its events: deaths, returns, faults, links that were out, resumes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_FAULTS = ("freeze", "cut", "partition")  # those that end a process are seen as deaths


def incidents(events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The part ``incidents`` of a summary; empty for a run that nothing disturbed.

    Args:
      events: of all nodes.

    Returns:
      ``deaths`` and ``returns``: how often each node was declared dead, and came back; ``faults``:
      how many of each kind were scripted; ``links_out``: directed links whose rate was 0 for a
      while; ``resumes``: how often the run went on from a checkpoint.
    """
    deaths: Counter[str] = Counter()
    returns: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    out: set[tuple[str, str]] = set()
    resumes = 0
    for event in events:
        kind = event["event"]
        if kind == "dead":
            deaths.update(event["nodes"])
        elif kind == "back":
            returns.update(event["nodes"])
        elif kind == "fault" and event["kind"] in _FAULTS:
            faults[event["kind"]] += 1
        elif kind == "rates":
            out |= {(source, target) for source, target, rate in event["rates"] if not rate}
        elif kind == "resumed":
            resumes += 1
    found = {
        "deaths": dict(deaths),
        "returns": dict(returns),
        "faults": dict(faults),
        "links_out": len(out),
        "resumes": resumes,
    }
    return {name: value for name, value in found.items() if value}
