"""What a WAN switch is told: its ports and the links that cross it; pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from testbed.emulated import shaping
from testbed.wan.types import Distribution


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
    jitter: float = 0.0  # s
    distribution: Distribution = "uniform"  # of the jitter
    loss: float = 0.0  # share of packets
    seed: str = ""  # of the draws of jitter and loss

    @property
    def ends(self) -> tuple[int, int]:
        """The indices of both ports."""
        return self.source, self.target

    @property
    def impaired(self) -> bool:
        """Whether it has jitter or loss."""
        return self.jitter > 0 or self.loss > 0


Ends = tuple[int, int]


def forwarder_config(ports: Sequence[Port], crossings: Sequence[Crossing]) -> dict[str, Any]:
    """What :mod:`testbed.emulated.switch.forwarder` is told."""
    return {
        "ports": [port.interface for port in ports],
        "paths": [
            {
                "from": ports[crossing.source].interface,
                "mac": ports[crossing.target].mac,
                "to": ports[crossing.target].interface,
                "delay": crossing.delay,
                "jitter": crossing.jitter,
                "normal": crossing.distribution == "normal",
                "loss": crossing.loss,
                "seed": crossing.seed,
            }
            for crossing in crossings
        ],
    }


def netem_lines(
    ports: Sequence[Port], crossings: Sequence[Crossing], *, seeded: bool = False
) -> list[str]:
    """The tc commands of a switch that delays with netem.

    Args:
      ports: of the switch.
      crossings: the links.
      seeded: whether netem takes a seed (Linux 6.6); else it draws from the kernel's own source.
    """
    lines = []
    for index, port in enumerate(ports):
        branches = [
            _branch(ports, crossing, seeded) for crossing in crossings if crossing.target == index
        ]
        lines += shaping.netem(port.interface, branches, port.cap)
    return lines


def netem_change_lines(
    ports: Sequence[Port],
    crossings: Sequence[Crossing],
    *,
    stopped: Collection[Ends] = (),
    impaired: bool = True,
    seeded: bool = False,
) -> list[str]:
    """The tc commands that change links in place; what is in flight goes on.

    Args:
      ports: of the switch.
      crossings: the links that are to be changed.
      stopped: those, by their ends, that lose everything.
      impaired: whether jitter and loss are on.
      seeded: see :func:`netem_lines`.
    """
    lines = []
    for crossing in crossings:
        branch = _branch(ports, crossing, seeded)
        if not impaired:
            branch = branch._replace(jitter=0.0, loss=0.0)
        if crossing.ends in stopped:
            branch = branch._replace(loss=1.0)
        lines.append(shaping.netem_queue("change", ports[crossing.target].interface, branch))
    return lines


def _branch(ports: Sequence[Port], crossing: Crossing, seeded: bool) -> shaping.DelayBranch:
    return shaping.DelayBranch(
        shaping.FIRST_MINOR + crossing.source,
        ports[crossing.source].mac,
        crossing.delay,
        crossing.rate,
        crossing.jitter,
        crossing.distribution,
        crossing.loss,
        crossing.seed if seeded and crossing.impaired else None,
    )
