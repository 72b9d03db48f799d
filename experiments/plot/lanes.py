"""What each node of a run did over a few rounds, as lanes of bars."""

from __future__ import annotations

from typing import NamedTuple

from experiments.plot.run_events import RunRecords, Window
from geojax.errors import ConfigError, GeojaxError

LAN = "LAN"  # the lane of all that stays within a center


class Bar(NamedTuple):
    """A stretch of a lane, in experiment seconds."""

    kind: str  # "compute", "wait", "send", "send on the LAN", "dead"
    start: float
    end: float


class Lane(NamedTuple):
    """One line of a timeline: what a node does itself, or what it sends to one other center."""

    node: str
    peer: str  # "": what it does itself
    bars: tuple[Bar, ...]


def rounds_between(run: RunRecords, wanted: tuple[int, int] | None, most: int = 3) -> Window:
    """The time of some rounds; None: of ``most`` rounds in the middle of the run.

    Args:
      run: its rounds.
      wanted: the first and the last of them.
      most: how many are shown where none are named.

    Raises:
      ConfigError: the run has not these rounds.
      GeojaxError: it has no rounds at all.
    """
    ends: dict[int, list[tuple[float, float]]] = {}
    for event in run.events:
        if event["event"] == "round":
            ends.setdefault(event["round"], []).append((event["offered"], event["held"]))
    if not ends:
        raise GeojaxError(f"{run.path}: no round came to its end")
    rounds = sorted(ends)
    if wanted is None:
        middle = max(0, (len(rounds) - most) // 2)
        chosen = rounds[middle : middle + most]
    else:
        chosen = [number for number in rounds if wanted[0] <= number <= wanted[1]]
        if not chosen:
            text = f"{wanted[0]}:{wanted[1]}"
            raise ConfigError("--rounds", text, f"this run has the rounds {rounds[0]}:{rounds[-1]}")
    before = [held for n in rounds if n < chosen[0] for _, held in ends[n]]
    start = max(before, default=0.0)
    first = min(offered for offered, _ in ends[chosen[0]])
    return Window(min(start, first), max(held for _, held in ends[chosen[-1]]))


def lanes(run: RunRecords, window: Window) -> list[Lane]:
    """The lanes of every node in a window of time, nodes and their peers in the WAN's order.

    A node's first lane is what it does itself, computing or waiting for others, be it nothing (a
    local server that has workers, a global server), and when it was dead. Then comes a lane for
    each node of another center that it sends to, and one for all that it sends on its LAN.
    """
    center = {place.name: place.center for place in run.cluster.all}
    order = {place.name: index for index, place in enumerate(run.cluster.all)}
    found: dict[tuple[int, int], tuple[str, str, list[Bar]]] = {}
    for node, start, end in dead_spells(run):
        bars = found.setdefault((order[node], -1), (node, "", []))[2]
        if start < window.end and end > window.start:
            bars.append(Bar("dead", max(start, window.start), min(end, window.end)))
    for node in dict.fromkeys(span.node for span in run.spans):
        found.setdefault((order[node], -1), (node, "", []))
    for span in run.spans:
        if span.end <= window.start or span.start >= window.end:
            continue
        peer, kind, rank = "", span.name, -1
        if span.name == "send":
            peer, kind = span.args["peer"], "send"
            rank = order[peer]
            if center[peer] == center[span.node]:
                peer, kind, rank = LAN, "send on the LAN", len(order)
        key = order[span.node], rank
        bar = Bar(kind, max(span.start, window.start), min(span.end, window.end))
        found.setdefault(key, (span.node, peer, []))[2].append(bar)
    return [Lane(node, peer, tuple(bars)) for _, (node, peer, bars) in sorted(found.items())]


def dead_spells(run: RunRecords) -> list[tuple[str, float, float]]:
    """Which node was dead from when to when: killed or declared dead, until it came back.

    Without end where it never did.
    """
    begun: dict[str, float] = {}
    found: list[tuple[str, float, float]] = []
    for event in run.events:
        kind = event["event"]
        if kind == "dead" or (kind == "fault" and event["kind"] == "kill"):
            for node in event["nodes"] if kind == "dead" else [event["node"]]:
                begun.setdefault(node, event["t"])
        elif kind == "back":
            back = [node for node in event["nodes"] if node in begun]
            found += [(node, begun.pop(node), event["t"]) for node in back]
    return found + [(node, start, float("inf")) for node, start in begun.items()]
