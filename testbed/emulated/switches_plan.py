"""What a WAN switch is told: its ports and the links that cross it; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from testbed.emulated import shaping


class Port(NamedTuple):
    """A center's side of the switch."""

    interface: str
    mac: str  # of the center's own interface on the other end
    cap: float | None  # the center's ingress cap, bit/s
    queue: int  # bytes that may wait at the cap


class Crossing(NamedTuple):
    """A directed link, seen from the switch: indices of its ports."""

    source: int
    target: int
    delay: float  # s
    rate: float  # bit/s


def forwarder_config(ports: Sequence[Port], crossings: Sequence[Crossing]) -> dict[str, Any]:
    """What :mod:`testbed.emulated.forwarder` is told."""
    return {
        "ports": [port.interface for port in ports],
        "paths": [
            (
                ports[crossing.source].interface,
                ports[crossing.target].mac,
                ports[crossing.target].interface,
                crossing.delay,
            )
            for crossing in crossings
        ],
    }


def netem_lines(ports: Sequence[Port], crossings: Sequence[Crossing]) -> list[str]:
    """The tc commands of a switch that delays with netem."""
    lines = []
    for index, port in enumerate(ports):
        branches = [
            shaping.DelayBranch(
                shaping.FIRST_MINOR + crossing.source,
                ports[crossing.source].mac,
                crossing.delay,
                crossing.rate,
            )
            for crossing in crossings
            if crossing.target == index
        ]
        lines += shaping.netem(port.interface, branches, port.cap)
    return lines
