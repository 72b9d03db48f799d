"""What the delaying switch can carry: ``python -m experiments.bench.delay_switch`` (as root).

Emulates a ring of centers, lets every center send to the next one, first small datagrams (is the
delay right?), then one TCP flow each at the full rate of its link (is the rate reached, and what
does it cost?). The cost is the CPU time of the switch's process, as the kernel accounts it: user
and system time, which includes the delivery of every packet to the receiving center.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.bench import report
from geojax.config import LanConfig, WanConfig
from geojax.errors import GeojaxError
from testbed.emulated import EmulatedWan
from testbed.emulated.measure.verify import Agent
from testbed.wan.build import build_wan

GOODPUT_GOAL = 0.90  # of a link's rate, on every flow
CPU_GOAL = 0.5  # cores
DELAY_GOAL_S = 1e-3  # p95 of the one-way delay's error
SKIP_S = 1.0  # in which TCP finds the rates
ECHOES = 200


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, in user and in system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ring(centers: int, rate: float, rtt: float) -> WanConfig:
    """A WAN in which every center has a link to and from the next one (Mbit/s, ms)."""
    names = [f"c{number}" for number in range(1, centers + 1)]
    pairs = zip(names, [*names[1:], names[0]], strict=True)
    links = [{"between": list(pair), "rate": rate, "rtt": rtt} for pair in pairs]
    return WanConfig(name="ring", centers=names, links=links)


def delay_errors(agents: Sequence[Agent], emulated: EmulatedWan, delay: float) -> list[float]:
    """Error (s) of the one-way delay of every datagram that came back."""
    ask_all(agents, emulated, "echo", count=ECHOES)
    return [abs(found - delay) for agent in agents for found in agent.answer()["delays"]]


def ask_all(agents: Sequence[Agent], emulated: EmulatedWan, what: str, **settings: Any) -> None:
    """Orders every center to send to the next one."""
    for source, target in zip(agents, [*agents[1:], agents[0]], strict=True):
        host, port = emulated.address(target.center), target.ports[what]
        source.order(do=what, host=host, port=port, **settings)


def goodputs(
    agents: Sequence[Agent], emulated: EmulatedWan, seconds: float
) -> tuple[list[float], float | None]:
    """Goodput (bit/s) of each center's flow, and the switch's share of a core meanwhile."""
    switch = emulated.switch_process()
    settings = {"congestion_control": "cubic", "skip_s": SKIP_S, "measure_s": seconds}
    ask_all(agents, emulated, "send", **settings)
    time.sleep(SKIP_S)
    begin, before = time.monotonic(), cpu_seconds(switch) if switch else 0.0
    time.sleep(max(0.0, seconds - 0.2))
    used = (cpu_seconds(switch) - before) / (time.monotonic() - begin) if switch else None
    return [agent.answer()["rate"] for agent in agents], used


def measure(options: argparse.Namespace) -> tuple[Table, bool]:
    """Runs the benchmark; the figures, and whether all goals are met."""
    wan = build_wan(ring(options.centers, options.rate, options.rtt), LanConfig(), 0)
    with ExitStack() as stack:
        emulated = stack.enter_context(EmulatedWan(wan))
        agents = [Agent(name, emulated.popen) for name in wan.center_names]
        for agent in agents:
            stack.callback(agent.end)
        for agent in agents:
            agent.begin()
        errors = delay_errors(agents, emulated, options.rtt / 2e3)
        rates, used = goodputs(agents, emulated, options.seconds)
        counters = emulated.switch_counters()
        kind = emulated.facts["delay"]["kind"]
    p95 = statistics.quantiles(errors, n=20)[-1]
    slowest = min(rates) / (options.rate * 1e6)
    title = f"{options.centers} x {options.rate:g} Mbit/s, {options.rtt:g} ms, by {kind}"
    table = report.empty_table(title, ("what", "figure", "goal"))
    flows = ", ".join(f"{rate / 1e6:.1f}" for rate in rates)
    table.add_row("goodput of each flow, Mbit/s", flows, "")
    table.add_row("slowest flow, share of its rate", f"{slowest:.1%}", f"≥ {GOODPUT_GOAL:.0%}")
    if used is not None:
        table.add_row("switch process, CPU s per s", f"{used:.3f}", f"< {CPU_GOAL:g}")
    table.add_row("delay error, median", f"{statistics.median(errors) * 1e3:.3f} ms", "")
    table.add_row("delay error, p95", f"{p95 * 1e3:.3f} ms", f"≤ {DELAY_GOAL_S * 1e3:g} ms")
    for name in ("forwarded", "late", "dropped", "overrun"):
        if name in counters:
            table.add_row(f"frames {name}", f"{counters[name]:,}", "")
    table.add_row("load of the machine, 1 min", f"{os.getloadavg()[0]:.2f}", "")
    met = slowest >= GOODPUT_GOAL and (used or 0.0) < CPU_GOAL and p95 <= DELAY_GOAL_S
    return table, met


def main() -> int:
    """Runs once and prints a table; 0 if all goals are met."""
    parser = report.parser("delay_switch", __doc__)
    parser.add_argument("--centers", type=int, default=9)
    parser.add_argument("--rate", type=float, default=100.0, help="Mbit/s of every link")
    parser.add_argument("--rtt", type=float, default=40.0, help="ms")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measured transfer")
    options = parser.parse_args()
    if options.centers < 3:
        parser.error("--centers: a ring has at least 3")
    try:
        table, met = measure(options)
    except GeojaxError as error:
        print(error, file=sys.stderr)
        return 2
    Console(width=max(100, Console().width)).print(table)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
