"""Runs every node of a run as a process of its own, over real TCP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from geojax import node
from geojax.assemble import Setup
from geojax.errors import GeojaxError
from geojax.hips.cluster import SCHEDULER, Cluster
from geojax.telemetry.recorder import Span
from geojax.telemetry.report import last_words
from geojax.telemetry.spans import SPANS, read_spans
from testbed.compiled import compile_cache
from testbed.faults import PROCESS_KINDS, Fault, restarted
from testbed.local.cpu_limits import CpuLimits, read_limits
from testbed.local.cpu_share import CpuShare
from testbed.wan.build import Wan
from testbed.wan.dynamics.base import Change, change_event

_POLL_S = 0.02
_TERM_S = 5.0  # from SIGTERM to SIGKILL
LEFT_BEHIND = (
    "events.jsonl", SPANS, "started", "report.json", "error.txt", node.COUNTED, node.AWAY
)  # fmt: skip
Sink = Callable[[dict[str, Any]], None]
Reports = dict[str, dict[str, Any]]
Spans = dict[str, list[Span]]


class Hosts(Protocol):
    """Where nodes run: this machine's loopback, or the hosts of an emulated WAN."""

    def address(self, node: str) -> str:
        """IPv4 address of a node's host."""
        ...

    def popen(self, node: str, argv: list[str], **options: Any) -> subprocess.Popen:
        """Starts a process on a node's host."""
        ...

    def change(self, rates: Mapping[tuple[str, str], float]) -> None:
        """Changes the rates of directed WAN links, bit/s."""
        ...

    def check_alive(self) -> None:
        """Raises ``GeojaxError`` if what carries the packets has ended."""
        ...


class Processes:
    """The processes of one run, from start to reports.

    Args:
      setup: configuration, nodes and view.
      wan: for its changes.
      faults: what breaks, and when.
      run_dir: the run's directory.
      hosts: where the nodes run.
      sink: takes the events of all nodes.
      ports: a port for every node; closed when the run has ended.
    """

    def __init__(
        self,
        setup: Setup,
        wan: Wan,
        faults: tuple[Fault, ...],
        run_dir: Path,
        hosts: Hosts,
        sink: Sink,
        ports: Generator[int, None, None],
    ):
        self._wan, self._faults, self._run_dir = wan, list(faults), run_dir
        self._hosts, self._sink = hosts, sink
        self._cluster = Cluster(
            tuple(
                replace(place, host=hosts.address(place.name), port=next(ports))
                for place in setup.cluster.all
            )
        )
        self._ports = ports
        self._setup = replace(setup, cluster=self._cluster)
        self._view = setup.view  # follows the changes
        self._running: dict[str, subprocess.Popen] = {}
        self._tails: dict[str, _Tail] = {}
        self._cpu = CpuShare()
        self._limits = _limits(setup, wan)
        self._started: float | None = None
        self._thaws: list[tuple[float, subprocess.Popen]] = []

    def run(self, say: Callable[[str], None]) -> tuple[Reports, Spans]:
        """Starts all nodes, follows them to the end and collects their reports."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        for place in self._cluster.all:  # a broken run that this one continues left its own
            for name in LEFT_BEHIND:
                (node.node_folder(self._run_dir, place.name) / name).unlink(missing_ok=True)
        (self._run_dir / node.VIEW).unlink(missing_ok=True)
        node.write_run(self._run_dir, uuid.uuid4().hex[:12], self._setup)
        say("starting the nodes")
        try:
            with self._limits:
                try:
                    for place in self._cluster.all:
                        self._start(place.name)
                    self._follow()
                finally:
                    self._stop()
        finally:
            self._ports.close()
            for tail in self._tails.values():
                tail.read(self._sink)
        return self._collect()

    def figures(self) -> dict[str, Any]:
        """Share of the whole machine's CPU that was busy during the run."""
        share = self._cpu.share()
        return {} if share is None else {"cpu_share": share}

    def _start(self, name: str) -> None:
        folder = node.node_folder(self._run_dir, name)
        folder.mkdir(parents=True, exist_ok=True)
        previous = self._running.get(name)
        if previous is not None and previous.stdin is not None:
            previous.stdin.close()
        log = (folder / "log.txt").open("ab")
        with log:
            self._running[name] = self._hosts.popen(
                name,
                [sys.executable, "-m", "geojax.node", str(self._run_dir.resolve()), name],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=node_environment(),
            )
        self._limits.add(name, self._running[name].pid)
        self._tails.setdefault(name, _Tail(folder / "events.jsonl"))

    def _follow(self) -> None:
        """Applies faults and changes in time, and watches the nodes until all have ended."""
        changes = self._wan.changes()
        upcoming = next(changes, None)
        while any(process.poll() is None for process in self._running.values()):
            self._check_exits()
            self._hosts.check_alive()
            now = self._experiment_time()
            while now is not None and self._faults and self._faults[0].at <= now:
                self._apply(self._faults.pop(0))
            while now is not None and upcoming is not None and upcoming.at <= now:
                self._change(upcoming)
                upcoming = next(changes, None)
            if now is not None:
                self._thaw(now)
            for tail in self._tails.values():
                tail.read(self._sink)
            time.sleep(_POLL_S)
        self._cpu.end()  # unless a poll saw the scheduler's end before
        self._check_exits()

    def _experiment_time(self) -> float | None:
        if self._started is None:
            path = node.node_folder(self._run_dir, SCHEDULER) / "started"
            if not path.exists():
                return None
            self._started = float(path.read_text())
            self._cpu.begin()
        if self._running[SCHEDULER].poll() is not None:
            self._cpu.end()
        return time.monotonic() - self._started

    def _change(self, change: Change) -> None:
        self._hosts.change(change.rates)
        self._view = self._view.with_rates(change.rates)
        node.write_view(self._run_dir, self._view)
        self._sink(change_event(change))

    def _apply(self, fault: Fault) -> None:
        """Makes a fault happen now; one that hits a dead node does nothing."""
        self._sink(fault.event())
        if fault.kind == "restart":
            for name in restarted(
                fault, self._cluster, lambda n: self._running[n].poll() is not None
            ):
                self._start(name)
            return
        if fault.kind not in PROCESS_KINDS:
            return
        process = self._running[fault.node]
        if fault.kind == "kill":
            process.kill()
            process.wait()
        else:
            process.send_signal(signal.SIGSTOP)
            self._thaws.append((fault.at + fault.duration, process))

    def _thaw(self, now: float) -> None:
        for at, process in list(self._thaws):
            if at <= now:
                process.send_signal(signal.SIGCONT)
                self._thaws.remove((at, process))

    def _check_exits(self) -> None:
        """A node that was killed is the protocol's business; one that failed ends the run."""
        for name, process in self._running.items():
            code = process.poll()
            if code is not None and code < 0 and self._experiment_time() is None:
                told = f"{name} was killed by signal {-code} before the run started"
                log = node.node_folder(self._run_dir, name) / "log.txt"
                raise GeojaxError(f"{told}; was the memory too small? (log: {log})")
            if code is None or code <= 0 or code == node.EXPELLED:
                continue
            folder = node.node_folder(self._run_dir, name)
            error = folder / "error.txt"
            text = error.read_text() if error.exists() else _last_lines(folder / "log.txt")
            raise GeojaxError(f"{text} (log: {folder / 'log.txt'})")
        scheduler = self._running[SCHEDULER].poll()
        if scheduler is not None and scheduler < 0:
            raise GeojaxError(f"the scheduler was killed by signal {-scheduler}")
        if scheduler == 0:
            self._end_absent()

    def _end_absent(self) -> None:
        """The run is over: nodes that wait to come back need not wait any more."""
        for name, process in self._running.items():
            away = node.node_folder(self._run_dir, name) / node.AWAY
            if process.poll() is None and away.exists():
                process.terminate()
                process.wait(_TERM_S)

    def _stop(self) -> None:
        """Ends what is left: SIGTERM, then SIGKILL, by the processes that were started here."""
        left = [process for process in self._running.values() if process.poll() is None]
        for process in left:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
        end = time.monotonic() + _TERM_S
        for process in left:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
        for process in self._running.values():
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def _collect(self) -> tuple[Reports, Spans]:
        reports: Reports = {}
        spans: Spans = {}
        for place in self._cluster.all:
            folder = node.node_folder(self._run_dir, place.name)
            whole, counted = folder / "report.json", folder / node.COUNTED
            if whole.exists():
                reports[place.name] = json.loads(whole.read_text())
            elif counted.exists():
                reports[place.name] = last_words(place.name, json.loads(counted.read_text()))
            spans |= {place.name: [], **read_spans([folder / SPANS])}
        return reports, spans


def _limits(setup: Setup, wan: Wan) -> CpuLimits:
    """The CPU limits of all nodes but the scheduler."""
    testbed = setup.config.testbed
    shares = read_limits(testbed.cpu_limit, testbed.name, wan.center_names)
    nodes = [place for place in setup.cluster.all if place.name != SCHEDULER]
    return CpuLimits({node.name: shares[node.center] for node in nodes if node.center in shares})


class _Tail:
    """Reads the complete lines that were added to an events file."""

    def __init__(self, path: Path):
        self._path, self._at = path, 0

    def read(self, sink: Sink) -> None:
        """Passes on every new event."""
        if not self._path.exists():
            return
        with self._path.open("rb") as stream:
            stream.seek(self._at)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._at += len(line)
                sink(json.loads(line))


def node_environment() -> dict[str, str]:
    """The environment of a node: one XLA thread, one shared compile cache."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "NPROC": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([root, path] if path else [root]),
        "JAX_COMPILATION_CACHE_DIR": compile_cache(),
    }


def _last_lines(path: Path, count: int = 3) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return f"{path.parent.name}: " + " | ".join(lines[-count:])
