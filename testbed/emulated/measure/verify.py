"""Measures whether the emulated links are what was configured."""

from __future__ import annotations

import json
import math
import select
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from geojax.overlay.view import Edge
from testbed.emulated.launch import python_module
from testbed.errors import TestbedError

GOODPUT_FACTOR = 0.95  # TCP payload ÷ link rate: 1448 of 1514 bytes, less some acknowledgements
RTT_SLACK_S = 3e-3  # a round trip may be off by this much, whatever the tolerance
MEASURE_S = 0.3
INITIAL_WINDOW = 10 * 1448 * 8  # bits, with which TCP begins (RFC 6928)
TOGETHER = 400e6  # bit/s that are measured at one time, well within what one core can forward
_BELIEVED = 0.15  # a goodput that is lower by more is no property of the link
ECHOES = 8
ECHO_WAIT_S = 2.0  # beyond the round trip
ANSWER_S = 30.0


class LinkCheck(NamedTuple):
    """One directed link: what was configured and what one TCP flow and an echo found.

    Attributes:
      edge: (source, target).
      rate_configured: bit/s; the link's rate, or a smaller access cap of its ends.
      rate_measured: TCP goodput, bit/s; expected: ``GOODPUT_FACTOR * rate_configured``.
      rtt_configured: s, there on the link and back on the route of the answer.
      rtt_measured: s, the shortest of several echoes on an idle link: what scheduling adds on a
        busy machine is no property of the link.
    """

    edge: Edge
    rate_configured: float
    rate_measured: float
    rtt_configured: float
    rtt_measured: float

    def rate_error(self) -> float:
        """Relative deviation of the goodput from what is expected of the configured rate."""
        return self.rate_measured / (GOODPUT_FACTOR * self.rate_configured) - 1

    def rate_good(self, tolerance: float) -> bool:
        """Whether the rate lies within a relative tolerance."""
        return abs(self.rate_error()) <= tolerance

    def rtt_good(self, tolerance: float) -> bool:
        """Whether the round trip lies within a relative tolerance, or 3 ms."""
        off = abs(self.rtt_measured - self.rtt_configured)
        return off <= max(RTT_SLACK_S, tolerance * self.rtt_configured)


class Agent:
    """A measuring process in one center's namespace (:mod:`testbed.emulated.measure.agent`)."""

    def __init__(self, center: str, start: Callable[..., subprocess.Popen]):
        self.center = center
        argv, environment = python_module("testbed.emulated.measure.agent")
        self.process = start(
            center,
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # select must see every answer that waits
            env=environment,
        )
        self.ports: Mapping[str, int] = {}

    def begin(self) -> None:
        """Waits until it serves."""
        self.ports = self.answer()

    def order(self, **what: Any) -> None:
        """Gives it something to do."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, work_s: float = 0.0) -> dict[str, Any]:
        """What it found; ``work_s``: how long its work takes by itself."""
        assert self.process.stdout
        patience = ANSWER_S + work_s
        ready, _, _ = select.select([self.process.stdout], (), (), patience)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            code = self.process.poll()
            fate = "has not answered" if code is None else f"ended with status {code}"
            raise TestbedError(
                f"the measuring process in center {self.center} {fate} (waited {patience:g} s at "
                "most); the machine may be out of memory or far too busy"
            )
        return json.loads(line)

    def end(self) -> None:
        """Ends the process."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Target(NamedTuple):
    """A directed link to be checked."""

    edge: Edge
    rate: float  # bit/s, caps included
    rtt: float  # s
    host: str  # address of the link's target
    capped: bool = False  # an end has a cap of its own, which its other links share

    def disturbs(self, other: Target) -> bool:
        """Whether data or acknowledgements of the two would meet, in a link or at a cap."""
        if self.capped or other.capped:
            return not {*self.edge}.isdisjoint(other.edge)
        (a, b), (c, d) = self.edge, other.edge
        return a == c or b == d or (a == d and b == c)


def groups(targets: Sequence[Target]) -> list[list[Target]]:
    """Parts the links into groups that can be measured at one time.

    In a group each center sends on one link and receives on one, of another center.

    >>> links = [Target((a, b), 1e6, 0.01, "") for a, b in ("ab", "cd", "ba", "ac", "ca", "cb")]
    >>> [["".join(link.edge) for link in group] for group in groups(links)]
    [['ab', 'cd'], ['ba', 'ac', 'cb'], ['ca']]
    """
    parted: list[list[Target]] = []
    for target in targets:
        for group in parted:
            together = sum(other.rate for other in group) + target.rate
            if together <= TOGETHER and not any(map(target.disturbs, group)):
                group.append(target)
                break
        else:
            parted.append([target])
    return parted


def skip_s(rate: float, rtt: float) -> float:
    """How long slow start takes to fill a link, generously: a doubling per round trip."""
    doublings = math.log2(max(1.0, rate * rtt / INITIAL_WINDOW))
    return 0.05 + rtt * (doublings + 3)


def measure_s(rtt: float) -> float:
    """How long a full link is measured: a few round trips, as its rate comes in waves."""
    return max(MEASURE_S, 3 * rtt)


def measure(
    targets: Sequence[Target],
    start: Callable[..., subprocess.Popen],
    congestion_control: str,
    tolerance: float,
) -> list[LinkCheck]:
    """Measures every link; those whose rate is off once more, alone and for longer.

    Args:
      targets: the links.
      start: starts a process in a center, as :meth:`EmulatedWan.popen`.
      congestion_control: of the measuring TCP connections.
      tolerance: relative error of a rate or round trip from which on it is measured again.
    """
    agents: dict[str, Agent] = {}
    try:
        for center in dict.fromkeys(center for target in targets for center in target.edge):
            agents[center] = Agent(center, start)
        for agent in agents.values():
            agent.begin()
        rtts = _echo_all(targets, agents)
        late = [
            target
            for target in targets
            if not LinkCheck(target.edge, 1, 1, target.rtt, rtts[target.edge]).rtt_good(tolerance)
        ]
        for edge, rtt in _echo_all(late, agents).items():  # scheduling adds, and never takes away
            rtts[edge] = min(rtts[edge], rtt)
        checks = []
        for group in groups(targets):
            rates = _transfer(group, agents, congestion_control)
            for target, rate in zip(group, rates, strict=True):
                check = LinkCheck(target.edge, target.rate, rate, target.rtt, rtts[target.edge])
                if not check.rate_good(tolerance):
                    again = _transfer([target], agents, congestion_control, patience=3)
                    check = check._replace(rate_measured=again[0])
                checks.append(check)
    finally:
        for agent in agents.values():
            agent.end()
    order = {target.edge: index for index, target in enumerate(targets)}
    return sorted(checks, key=lambda check: order[check.edge])


def table(checks: Iterable[LinkCheck], tolerance: float) -> str:
    """The checks as text, deviations marked.

    >>> print(table([LinkCheck(("a", "b"), 1e8, 5e7, 0.02, 0.021)], 0.15))
    link    Mbit/s expected  measured    off  rtt ms expected  measured       off
    a -> b            95.00     50.00  -47%*            20.00     21.00  +1.00 ms
    """
    rows = [("link", "Mbit/s expected", "measured", "off", "rtt ms expected", "measured", "off")]
    for check in checks:
        rate_mark = "" if check.rate_good(tolerance) else "*"
        rtt_mark = "" if check.rtt_good(tolerance) else "*"
        rows.append(
            (
                " -> ".join(check.edge),
                f"{GOODPUT_FACTOR * check.rate_configured / 1e6:.2f}",
                f"{check.rate_measured / 1e6:.2f}",
                f"{check.rate_error():+.0%}{rate_mark}",
                f"{check.rtt_configured * 1e3:.2f}",
                f"{check.rtt_measured * 1e3:.2f}",
                f"{(check.rtt_measured - check.rtt_configured) * 1e3:+.2f} ms{rtt_mark}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def refuse(checks: Sequence[LinkCheck], tolerance: float) -> None:
    """Raises if any link is off.

    Raises:
      TestbedError: with a table of the links that are, the tolerance, and what to do.
    """
    off = [c for c in checks if not (c.rate_good(tolerance) and c.rtt_good(tolerance))]
    if off:
        raise TestbedError(
            f"{len(off)} of {len(checks)} links are not what was configured (tolerance "
            f"{tolerance:.0%}, for round trips at least {RTT_SLACK_S * 1e3:g} ms; expected is "
            f"{GOODPUT_FACTOR:g} x rate; * = off):\n"
            f"{table(off, tolerance)}\n"
            f"{remedy(off, tolerance)}"
        )


def remedy(off: Sequence[LinkCheck], tolerance: float) -> str:
    """What may be the matter with links that are off, and what to do.

    >>> remedy([LinkCheck(("a", "b"), 1e8, 5e7, 0.02, 0.02)], 0.15).partition(":")[0]
    'Too slow'
    """
    bad_rates = [check for check in off if not check.rate_good(tolerance)]
    bad_rtts = [check for check in off if not check.rtt_good(tolerance)]
    words = []
    if any(check.rate_error() < 0 for check in bad_rates):
        words.append(
            "Too slow: the machine may be too busy or too small for these rates; stop other work, "
            "or lower wan.bandwidth_scale."
        )
    if any(check.rtt_measured > check.rtt_configured for check in bad_rtts):
        words.append("Round trips too long: the machine may be too busy; stop other work.")
    if any(check.rate_error() > 0 for check in bad_rates) or any(
        check.rtt_measured < check.rtt_configured for check in bad_rtts
    ):
        words.append(
            "Too fast, or round trips too short: this kernel does not do what tc told it; see "
            "`python -m testbed check`."
        )
    words.append("If such an error does no harm, raise testbed.verify_tolerance.")
    return "\n".join(words)


def goodput_factor(checks: Sequence[LinkCheck]) -> float:
    """Share of the links' rates that payload gets, for the bound that a run is compared with.

    A link that seems to carry far less than was configured may have been measured badly, where a
    user allows that. Then what was configured counts, so that no run looks better for it.

    >>> goodput_factor([LinkCheck(("a", "b"), 1e8, 9e7, 0.02, 0.02)])
    0.9
    >>> goodput_factor([LinkCheck(("a", "b"), 1e8, 1e7, 0.02, 0.02)])
    0.95
    """
    shares = [
        check.rate_measured / check.rate_configured
        if check.rate_error() > -_BELIEVED
        else GOODPUT_FACTOR
        for check in checks
    ]
    return sum(shares) / len(shares)


def _echo_all(targets: Sequence[Target], agents: Mapping[str, Agent]) -> dict[Edge, float]:
    """Shortest round-trip times: all centers at one time, each one's links in turn."""
    for target in targets:
        source, other = target.edge
        port = agents[other].ports["echo"]
        agents[source].order(
            do="echo", host=target.host, port=port, count=ECHOES, wait_s=ECHO_WAIT_S + target.rtt
        )
    found = {}
    for target in targets:
        answer = agents[target.edge[0]].answer(ECHO_WAIT_S + target.rtt)
        if not answer.get("rtts"):
            fate = answer.get("error", "no echo came back")
            raise TestbedError(
                f"link {' -> '.join(target.edge)} does not work: {fate} (from {target.host}); "
                "`python -m testbed up` with the same WAN shows with ping what passes"
            )
        found[target.edge] = min(answer["rtts"])
    return found


def _transfer(
    group: Sequence[Target],
    agents: Mapping[str, Agent],
    congestion_control: str,
    patience: float = 1,
) -> list[float]:
    """Goodput (bit/s) of each link of a group, all at one time; ``patience``: times as long."""
    for target in group:
        source, other = target.edge
        agents[source].order(
            do="send",
            host=target.host,
            port=agents[other].ports["send"],
            congestion_control=congestion_control,
            skip_s=patience * skip_s(target.rate, target.rtt),
            measure_s=patience * measure_s(target.rtt),
        )
    rates = []
    for target in group:
        work_s = patience * (skip_s(target.rate, target.rtt) + measure_s(target.rtt))
        answer = agents[target.edge[0]].answer(work_s)
        if "error" in answer:
            raise TestbedError(
                f"link {' -> '.join(target.edge)}: no transfer to {target.host}: {answer['error']}"
            )
        rates.append(answer["rate"])
    return rates
