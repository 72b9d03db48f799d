"""One process of a run: ``python -m geojax.node RUN_DIR NODE``.

Started by the testbed. Reads ``RUN_DIR/run.json``, builds its roles, runs them over TCP and leaves
``events.jsonl`` and ``report.json`` in ``RUN_DIR/nodes/NODE``; an error goes to ``error.txt``.
Standard input is a pipe from the parent: when it closes, the parent is gone and so is this node.

A node that was declared dead, or lost the scheduler, begins anew in the same process and asks to
come back, until the testbed ends it. ``AWAY`` in its folder says that it is no part of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from geojax.assemble import Setup, run_node
from geojax.axes import from_dict
from geojax.config import to_dict
from geojax.errors import GeojaxError, MembershipError, telling_of_machine
from geojax.hips.cluster import SCHEDULER, Cluster, Connections, NodeSpec, ResumePoint
from geojax.hips.context import NodeContext, Oracle
from geojax.machine.collector import collect_seldom
from geojax.machine.machine import RealMachine
from geojax.overlay.view import NetworkView
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder, jsonl_sink
from geojax.telemetry.report import counters, report, restore
from geojax.telemetry.spans import SPANS, SpanFile
from geojax.wire.send_spans import SendSpans
from geojax.wire.sockets import allow_connections
from geojax.wire.tcp import TcpTransport

FAILED, EXPELLED, ORPHANED = 3, 4, 5  # exit codes
AWAY = "away"
COUNTED = "counted.json"  # what a node has counted so far, for when it does not live to report
_COUNT_S = 1.0  # between two times that it is written
VIEW = "view.json"  # in a run's directory: the WAN as it is now, once it has changed
_LOOK_S = 0.1  # between two looks at it


def write_run(run_dir: Path, run_id: str, setup: Setup) -> None:
    """Writes what every node of a run must know to ``run.json``."""
    values = {
        "run_id": run_id,
        "config": to_dict(setup.config),
        "places": [vars(place) for place in setup.cluster.all],
        "resume": list(setup.resume),
        "view": setup.view.to_dict(),
        "connections": setup.connections.common,
        "connections_of": [[*pair, count] for pair, count in setup.connections.pairs.items()],
    }
    (run_dir / "run.json").write_text(json.dumps(values))


def read_run(run_dir: Path) -> tuple[str, Setup]:
    """The inverse of :func:`write_run`."""
    values = json.loads((run_dir / "run.json").read_text())
    pairs = {(source, target): count for source, target, count in values["connections_of"]}
    setup = Setup(
        from_dict(values["config"]),
        Cluster(tuple(NodeSpec(**place) for place in values["places"])),
        NetworkView.from_dict(values["view"]),
        models=run_dir / "models",
        checkpoints=run_dir / "checkpoints",
        resume=ResumePoint(*values["resume"]),
        connections=Connections(values["connections"], pairs),
    )
    return values["run_id"], setup


def write_view(run_dir: Path, view: NetworkView) -> None:
    """Tells the scheduler's node how the WAN is now, in ``RUN_DIR/view.json``."""
    _write_json(run_dir / VIEW, view.to_dict())


async def follow_view(run_dir: Path, oracle: Oracle) -> None:
    """Keeps ``oracle.view`` as :func:`write_view` says; files are read aside, in a thread."""
    path, loop = run_dir / VIEW, asyncio.get_running_loop()

    def read(seen: int) -> tuple[int, NetworkView | None]:
        written = path.stat().st_mtime_ns if path.exists() else 0
        if written == seen:
            return seen, None
        return written, NetworkView.from_dict(json.loads(path.read_text()))

    seen = 0
    while True:
        seen, view = await loop.run_in_executor(None, read, seen)
        if view is not None:
            oracle.view = view
        await asyncio.sleep(_LOOK_S)


def node_folder(run_dir: Path, name: str) -> Path:
    """Where a node keeps its files."""
    return run_dir / "nodes" / name.replace("/", "_")


async def serve(name: str, run_id: str, setup: Setup, folder: Path) -> None:
    """Runs one node over TCP and writes its report."""
    config, cluster = setup.config, setup.cluster
    place = cluster.node(name)
    addresses = {peer: at for peer, at in cluster.addresses().items() if peer != name}
    connections = setup.connections_between
    allow_connections(sum(max(connections(name, p), connections(p, name)) for p in addresses))
    clock = Clock()
    machine, oracle = RealMachine(), Oracle(setup.view)
    with (
        (folder / "events.jsonl").open("a", buffering=1) as stream,
        (folder / SPANS).open("a") as lines,
    ):
        spans = SpanFile(lines)
        recorder = Recorder(name, jsonl_sink(stream), config.events, clock, kept=spans.take)
        transport = TcpTransport(
            name,
            (place.host, place.port),
            addresses,
            run_id=run_id,
            connect_timeout=config.timeouts.connect,
            connections=connections,
            # On plain loopback TCP is no part of the experiment, and users may not choose it.
            congestion_control=(
                config.testbed.congestion_control if config.testbed.name == "emulated" else None
            ),
        )
        sends = SendSpans(recorder, clock)
        transport.observers.append(sends)
        recorder.closers.append(spans.flush)
        measured = (recorder, transport, machine)
        restarted = (folder / COUNTED).exists()
        if restarted:
            restore(json.loads((folder / COUNTED).read_text()), *measured)

        def count() -> None:
            _write_json(folder / COUNTED, counters(*measured))

        await transport.start()
        if name == SCHEDULER:
            beside = [_announce(clock, folder), follow_view(folder.parents[1], oracle)]
        else:
            beside = [_arrive(clock, folder), _again_and_again(count)]
        tasks = [asyncio.create_task(work) for work in beside]
        try:
            await run_node(
                NodeContext(name, setup, oracle, transport, machine, clock, recorder, restarted)
            )
            told = {**report(*measured), "socket_options": transport.socket_options}
            _write_json(folder / "report.json", told)
        finally:
            count()
            for task in tasks:
                task.cancel()
            await transport.close()
            machine.close()


async def _arrive(clock: Clock, folder: Path) -> None:
    """Removes the mark of a node that was away, once it takes part."""
    await clock.started.wait()
    (folder / AWAY).unlink(missing_ok=True)


async def _again_and_again(count: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_COUNT_S)
        count()


def _write_json(path: Path, values: Any) -> None:
    """Writes a JSON file that appears whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values))
    partial.rename(path)


async def _announce(clock: Clock, folder: Path) -> None:
    """Tells the testbed, which scripts faults and changes, when experiment time 0 is."""
    await clock.started.wait()
    start = asyncio.get_running_loop().time() - clock()
    partial = folder / "started.partial"
    partial.write_text(repr(start))
    partial.rename(folder / "started")


def _end_with_parent() -> None:
    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _begin_anew(run_dir: Path, name: str) -> NoReturn:
    """Becomes a fresh process of the same node: same parent, limits, network and pipe."""
    command = [sys.executable, "-m", "geojax.node", str(run_dir), name]
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted


def main(argv: list[str] | None = None) -> int:
    """Runs the node that the command line names; returns the exit code."""
    arguments: list[Any] = sys.argv[1:] if argv is None else argv
    run_dir, name = Path(arguments[0]), arguments[1]
    folder = node_folder(run_dir, name)
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("jax").setLevel(logging.WARNING)
    _end_with_parent()
    collect_seldom()
    try:
        with telling_of_machine():
            run_id, setup = read_run(run_dir)
            asyncio.run(serve(name, run_id, setup, folder))
    except GeojaxError as error:
        logging.getLogger("geojax.node").error("%s", error)
        if isinstance(error, MembershipError) and error.may_return:
            (folder / AWAY).touch()
            _begin_anew(run_dir, name)
        with contextlib.suppress(OSError):  # the log tells it, too
            (folder / "error.txt").write_text(f"{name}: {error}")
        return EXPELLED if isinstance(error, MembershipError) else FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
