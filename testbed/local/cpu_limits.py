"""Real CPU limits for the processes of nodes, by control groups of Linux.

``testbed.cpu_limit`` is the share of a core that every node of a center may use: one number, or
``{center: share}``. The scheduler is never limited. A limit holds for all that a node does,
communication included. So it differs from a pace (``pace.profile``), which stretches steps only.

Each node gets a group of its own in the ``cpu`` controller, version 2 or 1, whichever the machine
has. The groups' names tell which process made them, so that what a killed run left is recognized.
Only the standard library and :mod:`geojax.errors`; the watchdog runs this.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from geojax.errors import ConfigError, nearest
from testbed import pids as processes
from testbed.errors import TestbedError
from testbed.pids import Process

MOUNTS = Path("/proc/self/mounts")
PREFIX = "geojax-"
PERIOD_US = 20_000  # a node stands still for less than that when its share is used up
SMALLEST = 0.05  # of a core: 1 ms a period, the least that Linux takes
MEASURE_S = 0.4
SLACK, SLACK_SHARE = 0.25, 0.05  # how far a measured share may lie above the limit
REMOVE_S = 2.0  # the kernel may need a moment after the last process has ended
BUSY = (
    "import sys, time\n"
    "sys.stdin.readline()\n"
    "begin, used = time.monotonic(), time.process_time()\n"
    "while time.monotonic() < begin + float(sys.argv[1]): pass\n"
    "print((time.process_time() - used) / (time.monotonic() - begin))\n"
)


class Hierarchy(NamedTuple):
    """Where this machine keeps its groups for CPU time."""

    version: int
    root: Path


def find_hierarchy(mounts: str | None = None) -> Hierarchy | None:
    """The mounted ``cpu`` controller, version 2 if it has one; None: there is none.

    Args:
      mounts: lines as in ``/proc/mounts``; None: this machine's.

    >>> find_hierarchy("cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0")
    Hierarchy(version=1, root=PosixPath('/sys/fs/cgroup/cpu'))
    """
    if mounts is None:
        mounts = MOUNTS.read_text() if MOUNTS.exists() else ""
    first = None
    for line in mounts.splitlines():
        _, place, kind, options, *_ = line.split()
        root = Path(place)
        if kind == "cgroup2":
            controllers = root / "cgroup.controllers"
            if controllers.exists() and "cpu" in controllers.read_text().split():
                return Hierarchy(2, root)
        elif kind == "cgroup" and "cpu" in options.split(","):
            first = Hierarchy(1, root)
    return first


class Group:
    """One control group with a limit.

    Args:
      hierarchy: where.
      name: of its folder.
    """

    def __init__(self, hierarchy: Hierarchy, name: str):
        self.version, self.path = hierarchy.version, hierarchy.root / name
        self._root = hierarchy.root

    def make(self, share: float) -> None:
        """Makes the group and limits it to a share of a core."""
        quota = round(share * PERIOD_US)
        if self.version == 2:
            enabled = self._root / "cgroup.subtree_control"
            if "cpu" not in enabled.read_text().split():
                enabled.write_text("+cpu")
            self.path.mkdir()
            self._set({"cpu.max": f"{quota} {PERIOD_US}"})
        else:
            self.path.mkdir()
            self._set({"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota)})

    def add(self, pid: int) -> None:
        """Puts a process in, with all its threads and later children."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Removes the group once its processes have ended."""
        end = time.monotonic() + REMOVE_S
        while True:
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                if time.monotonic() >= end:
                    raise
                time.sleep(processes.POLL_S)
            else:
                return

    def _set(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            (self.path / name).write_text(value)
            found = (self.path / name).read_text().strip()
            if found != value:
                raise OSError(f"{self.path / name} holds {found!r} after {value!r} was written")


def measured_share(group: Group, seconds: float = MEASURE_S) -> float:
    """Share of a core that a busy loop gets in a group."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", BUSY, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as busy:
        group.add(busy.pid)
        said, _ = busy.communicate("go\n")
    return float(said)


def holds(measured: float, share: float) -> bool:
    """Whether a measured share keeps to a limit; a busy machine may give less, never more."""
    return measured <= share * (1 + SLACK) + SLACK_SHARE


def why_not(hierarchy: Hierarchy | None) -> str | None:
    """Why CPU limits do not work here, with the remedy; None if a busy loop was held to one."""
    if hierarchy is None:
        return "no control group for CPU time is mounted (cgroup v2 with `cpu`, or v1 `cpu`)"
    share = 0.25
    group = Group(hierarchy, f"{prefix_of(_myself())}probe")
    try:
        group.make(share)
        try:
            measured = measured_share(group)
        finally:
            group.remove()
    except OSError as error:
        return (
            f"cgroup v{hierarchy.version} at {hierarchy.root}: {error}; run as root, in a "
            "container with a writable cgroup file system"
        )
    if not holds(measured, share):
        return (
            f"cgroup v{hierarchy.version} at {hierarchy.root} takes a limit of {share:.0%} of a "
            f"core, but a busy loop got {measured:.0%}; the kernel needs CONFIG_CFS_BANDWIDTH"
        )
    return None


class CpuLimits:
    """The limits of a run's nodes; a context manager. Without limits it does nothing.

    Args:
      shares: of a core, by node; other nodes are not limited.
      hierarchy: where; None: looked for on this machine.
    """

    def __init__(self, shares: Mapping[str, float], hierarchy: Hierarchy | None = None):
        self._shares = dict(shares)
        self._hierarchy = hierarchy
        self._groups: dict[str, Group] = {}

    def __enter__(self) -> CpuLimits:
        if not self._shares:
            return self
        hierarchy = self._hierarchy or find_hierarchy()
        reason = why_not(hierarchy)
        if reason is not None or hierarchy is None:
            raise TestbedError(f"testbed.cpu_limit cannot be kept here: {reason}")
        remove_stale(hierarchy)
        prefix = prefix_of(_myself())
        try:
            for number, (node, share) in enumerate(self._shares.items()):
                self._groups[node] = Group(hierarchy, f"{prefix}{number}")
                self._groups[node].make(share)
            self._check()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        groups, self._groups = self._groups, {}
        for group in groups.values():
            group.remove()

    def add(self, node: str, pid: int) -> None:
        """Limits a node's process from now on."""
        if node in self._groups:
            self._groups[node].add(pid)

    def _check(self) -> None:
        """Measures a busy loop under the lowest limit."""
        node = min(self._shares, key=self._shares.__getitem__)
        share, measured = self._shares[node], measured_share(self._groups[node])
        if not holds(measured, share):
            raise TestbedError(
                f"testbed.cpu_limit: node {node} may use {share:.0%} of a core, but a busy loop "
                f"got {measured:.0%}; something else on this machine sets limits too "
                f"(see {self._groups[node].path})"
            )


def read_limits(value: object, testbed: str, centers: Sequence[str]) -> dict[str, float]:
    """Reads ``testbed.cpu_limit``.

    Args:
      value: None, a share of a core, or ``{center: share}``.
      testbed: ``testbed.name``.
      centers: names of the centers.

    Returns:
      The share of each limited center's nodes.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    if value is None:
        return {}
    key = "testbed.cpu_limit"
    if testbed == "simulated":
        fix = "a simulated node has no CPU of its own; leave it out and choose a pace profile"
        raise ConfigError(key, value, fix)
    if not isinstance(value, Mapping):
        return dict.fromkeys(centers, _read_share(key, value))
    for name in value:
        if name not in centers:
            raise ConfigError(f"{key}.{name}", value[name], nearest(str(name), centers))
    return {str(name): _read_share(f"{key}.{name}", share) for name, share in value.items()}


def remove_stale(hierarchy: Hierarchy | None = None) -> None:
    """Removes the groups of processes that are gone, as far as nothing runs in them."""
    hierarchy = hierarchy or find_hierarchy()
    if hierarchy is None:
        return
    for path in hierarchy.root.glob(f"{PREFIX}*-*-*"):
        pid, start, _ = path.name.removeprefix(PREFIX).split("-", 2)
        if pid.isdigit() and start.isdigit() and not processes.alive(Process(int(pid), int(start))):
            try:
                path.rmdir()
            except OSError:  # somebody still runs in there, or it is gone by now
                continue


def prefix_of(owner: Process) -> str:
    """How the names of a process's groups begin.

    >>> prefix_of(Process(12, 345))
    'geojax-12-345-'
    """
    return f"{PREFIX}{owner.pid}-{owner.start}-"


def _myself() -> Process:
    me = processes.identify(os.getpid())
    assert me is not None
    return me


def _read_share(key: str, value: object) -> float:
    number = float(value) if isinstance(value, int | float) else math.nan
    if isinstance(value, bool) or not math.isfinite(number) or number < SMALLEST:
        fix = f"write the share of a core that a node may use, at least {SMALLEST}, e.g. 0.5"
        raise ConfigError(key, value, fix)
    return number
