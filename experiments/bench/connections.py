"""What several TCP connections get of a long link that loses packets.

``python -m experiments.bench.connections`` sends chunks over one link without a pause, and shows
the share of its rate at which they arrive, for several values of ``wan.connections``. Simulated,
and as root emulated as well; ``--testbeds simulated`` leaves that out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
from rich.table import Table

from experiments.bench import report
from geojax.config import LanConfig, WanConfig
from geojax.errors import GeojaxError
from geojax.hips.cluster import Cluster, NodeSpec
from geojax.wire.message import FRAGMENT_BYTES, Kind, Message
from geojax.wire.tcp import TcpTransport
from geojax.wire.transport import Lost, Transport
from testbed.emulated import EmulatedWan
from testbed.simulated.loop import run_virtual, virtual_loop
from testbed.simulated.routes import NodeRoutes, resources
from testbed.simulated.transport import SimulatedNetwork
from testbed.wan.build import Wan, build_wan
from testbed.wan.connections import connections_of

FROM, TO = "a", "b"
CONGESTION_CONTROL = "cubic"
GOODPUT_FACTOR = 0.95  # simulated; the default of testbed.goodput_factor
PORT = 7100
GOAL = 0.9


async def stream(transport: Transport, connections: int) -> None:
    """Sends chunks without a pause, until the other side has gone."""
    payload = np.zeros(FRAGMENT_BYTES, np.uint8)

    def another(*_: object) -> None:
        transport.send(TO, Message(Kind.OFFER, payload=payload))

    transport.observers.append(another)
    for _ in range(2 * connections + 8):
        another()
    try:
        await transport.receive()
    finally:
        transport.observers.remove(another)


async def rate_of(transport: Transport, skip_s: float, measure_s: float) -> float:
    """Bit/s at which messages arrive, after a while in which TCP finds its rate."""
    began, ended, nbytes = None, 0.0, 0
    loop = asyncio.get_running_loop()
    start = loop.time() + skip_s
    while began is None or ended < began + measure_s:
        item = await transport.receive()
        if isinstance(item, Lost):
            raise GeojaxError(f"lost {item.peer}: {item.reason}")
        ended = loop.time()
        if began is not None:
            nbytes += item.nbytes
        elif ended >= start:
            began = ended
    return 8 * nbytes / (ended - began)


def simulated(wan: Wan, connections: int, options: argparse.Namespace) -> float:
    """The rate in the simulator, bit/s."""
    cluster = Cluster(tuple(NodeSpec(*place) for place in wan.nodes()))
    counts = connections_of(WanConfig(connections=connections), wan, CONGESTION_CONTROL)

    async def main() -> float:
        capacities = {key: GOODPUT_FACTOR * rate for key, rate in resources(wan, cluster).items()}
        network = SimulatedNetwork(capacities, NodeRoutes(wan, cluster, counts), virtual_loop())
        source, target = network.transport(FROM), network.transport(TO)
        sending = asyncio.create_task(stream(source, connections))
        rate = await rate_of(target, options.skip, options.seconds)
        sending.cancel()
        return rate

    return run_virtual(main())


def emulated(network: EmulatedWan, connections: int, options: argparse.Namespace) -> float:
    """The rate of real processes, bit/s."""
    addresses = {name: (network.address(name), PORT) for name in (FROM, TO)}
    with ExitStack() as stack:
        ends = {}
        for name in (TO, FROM):
            told = {
                "name": name, "addresses": addresses, "connections": connections,
                "skip_s": options.skip, "measure_s": options.seconds,
            }  # fmt: skip
            argv = [sys.executable, "-m", "experiments.bench.connections", "--end"]
            end = network.popen(name, [*argv, json.dumps(told)], stdout=subprocess.PIPE)
            stack.callback(end.wait)
            stack.callback(end.kill)
            assert end.stdout is not None
            ends[name] = stack.enter_context(end.stdout)
        line = ends[TO].readline()
    if not line:
        raise GeojaxError(f"the process in {TO} has ended; it says above why")
    return json.loads(line)["rate"]


def end_of_pipe(told: dict) -> None:
    """What each of the two processes does."""

    async def main() -> None:
        name, addresses = told["name"], {k: tuple(v) for k, v in told["addresses"].items()}
        count = told["connections"]
        transport = TcpTransport(
            name, addresses[name], addresses, run_id="bench", connect_timeout=30.0,
            congestion_control=CONGESTION_CONTROL, connections=lambda _source, _target: count,
        )  # fmt: skip
        await transport.start()
        if name == FROM:
            await stream(transport, count)
        else:
            rate = await rate_of(transport, told["skip_s"], told["measure_s"])
            print(json.dumps({"rate": rate}), flush=True)
        transport.abort()
        await transport.close()

    asyncio.run(main())


def table(options: argparse.Namespace) -> Table:
    """Measures everything and lays it out."""
    link = {
        "between": [FROM, TO], "rate": options.rate, "rtt": options.rtt, "loss": options.loss
    }  # fmt: skip
    wan = build_wan(WanConfig(name="pipe", centers=[FROM, TO], links=[link]), LanConfig(), 0)
    measures: dict[str, Callable[[int], float]] = {}
    with ExitStack() as stack:
        if "simulated" in options.testbeds:
            measures["simulated"] = lambda count: simulated(wan, count, options)
        if "emulated" in options.testbeds:
            network = stack.enter_context(
                EmulatedWan(wan, congestion_control=CONGESTION_CONTROL, seed=options.seed)
            )
            network.verify(0.15)
            measures["emulated"] = lambda count: emulated(network, count, options)
        title = (
            f"Share of a link of {options.rate:g} Mbit/s, {options.rtt:g} ms, loss "
            f"{options.loss:.2%}; goal {GOAL}"
        )
        laid = report.empty_table(title, ("wan.connections", "are", *measures))
        for stated in options.connections:
            wanted = stated if stated == "auto" else int(stated)
            counts = connections_of(WanConfig(connections=wanted), wan, CONGESTION_CONTROL)
            count = counts.pairs.get((FROM, TO), counts.common)
            shares = [rate(count) / (options.rate * 1e6) for rate in measures.values()]
            laid.add_row(stated, str(count), *(f"{share:.3f}" for share in shares))
    return laid


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = report.parser("connections", __doc__)
    parser.add_argument("--connections", nargs="+", default=["1", "2", "4", "8", "auto"])
    parser.add_argument("--rate", type=float, default=300.0, help="Mbit/s")
    parser.add_argument("--rtt", type=float, default=200.0, help="ms")
    parser.add_argument("--loss", type=float, default=0.001, help="share of packets")
    parser.add_argument("--skip", type=float, default=10.0, help="s until the rate is measured")
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring")
    parser.add_argument("--seed", type=int, default=0, help="of the losses")
    parser.add_argument(
        "--testbeds", nargs="+", choices=("simulated", "emulated"),
        default=["simulated", "emulated"] if os.geteuid() == 0 else ["simulated"],
    )  # fmt: skip
    parser.add_argument("--end", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.end:
        end_of_pipe(options.end)
        return 0
    return report.show(lambda: table(options))


if __name__ == "__main__":
    sys.exit(main())
