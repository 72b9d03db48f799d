"""``python -m testbed up`` and ``down``: a WAN to try things in, and its removal."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from geojax.errors import GeojaxError
from geojax.overlay.view import Edge
from testbed import pids as processes
from testbed.emulated.cleanup import state
from testbed.emulated.cleanup.state import RunState
from testbed.emulated.cleanup.teardown import tear_down
from testbed.local import cpu_limits
from testbed.wan.build import Wan
from testbed.wan.dynamics.base import Change

Rates = Mapping[Edge, float]
OWNER_END_S = 10.0


def hints(wan: Wan) -> str:
    """What to type first, with the names of this WAN's centers."""
    names = wan.center_names
    one, other = names[0], names[min(1, len(names) - 1)]
    lines = [
        (f"{one} ping -c3 {other}", "round-trip time"),
        (f"{other} iperf3 -s -D", f"a server in {other}, then"),
        (f"{one} iperf3 -c {other}", f"the rate from {one} to {other}"),
        ("nodes, net, exit", "(exit or Ctrl-D takes the WAN down)"),
    ]
    width = max(len(typed) for typed, _ in lines) + 2
    told = ["You are on an emulated WAN. Centers are hosts; a name stands for its address:"]
    told += [f"  {typed:<{width}}{what}" for typed, what in lines]
    if next(wan.changes(), None) is not None:
        told.append("Its rates change as wan.dynamics says, from now on.")
    return "\n".join(told)


@contextlib.contextmanager
def playing(changes: Iterable[Change], apply: Callable[[Rates], None]) -> Iterator[None]:
    """Applies changes of rates in time, from now on, while the block runs.

    Args:
      changes: in order, possibly without end.
      apply: changes rates of directed links, bit/s.
    """
    over, begun = threading.Event(), time.monotonic()

    def play() -> None:
        for change in changes:
            if over.wait(max(0.0, begun + change.at - time.monotonic())):
                return
            apply(change.rates)

    player = threading.Thread(target=play, name="dynamics", daemon=True)
    player.start()
    try:
        yield
    finally:
        over.set()
        player.join()


def up(argv: Sequence[str]) -> int:
    """Starts a WAN, gives Mininet's command line, takes the WAN down."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed up",
        description="Start an emulated WAN (as root) and try ping, iperf3 or own programs in it.",
    )
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="KEY=VALUE",
        help="wan=NAME or wan=FILE (yaml, json, csv), then wan.KEY=VALUE, lan.KEY=VALUE, seed=N",
    )
    parser.add_argument("--run-id", help="name of the run, for `down`; default: a random one")
    parser.add_argument("--verify", action="store_true", help="measure every link first")
    parser.add_argument("--tolerance", type=float, default=0.15, help="of --verify; default 0.15")
    options = parser.parse_intermixed_args(list(argv))
    from testbed.emulated import probe
    from testbed.emulated.measure import verify
    from testbed.emulated.wan import EmulatedWan
    from testbed.wan.build import build_wan
    from testbed.wan.presets import parse_arguments

    reason = probe.why_not()
    if reason is not None:
        print(f"cannot start: {reason}", file=sys.stderr)
        return 1
    try:
        wan = build_wan(*parse_arguments(options.settings))
        with EmulatedWan(wan, run_id=options.run_id, log=print) as emulated:
            if options.verify:
                print(verify.table(emulated.verify(options.tolerance), options.tolerance))
            from testbed.emulated.mininet_parts import CommandLine

            print(hints(wan), flush=True)
            with playing(wan.changes(), emulated.change):
                CommandLine(emulated.net)
    except GeojaxError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def down(argv: Sequence[str]) -> int:
    """Removes what stopped runs left; with ``--all`` or a run id, living runs too."""
    parser = argparse.ArgumentParser(
        prog="python -m testbed down",
        description=(
            "Remove what emulated WANs left behind whose own process is gone. Only what this "
            "project made is touched, by its records."
        ),
    )
    parser.add_argument("runs", nargs="*", metavar="RUN_ID", help="end these, alive or not")
    parser.add_argument("--all", action="store_true", help="end every run, alive or not")
    options = parser.parse_args(list(argv))
    failed = False
    records = _records()
    unknown = set(options.runs) - {record.run_id for record in records}
    for run_id in sorted(unknown):
        print(f"no run {run_id!r}", file=sys.stderr)
    for record in records:
        wanted = options.all or record.run_id in options.runs
        if options.runs and not wanted:
            continue
        if processes.alive(record.owner) and not wanted:
            print(
                f"run {record.run_id} is alive (process {record.owner.pid}); "
                f"`python -m testbed down {record.run_id}` ends it"
            )
            continue
        complaints = _end(record)
        failed |= bool(complaints)
        for complaint in complaints:
            print(f"run {record.run_id}: {complaint}", file=sys.stderr)
        if not complaints:
            print(f"run {record.run_id}: removed")
    cpu_limits.remove_stale()
    if not records:
        print("nothing to remove")
    return 1 if failed or unknown else 0


def _records() -> list[RunState]:
    """All readable records; others are named and left alone."""
    records = []
    for path in state.all_paths():
        try:
            record = state.load(path)
        except ValueError as error:
            print(error, file=sys.stderr)
            continue
        if record is not None:
            records.append(record)
    return records


def _end(record: RunState) -> list[str]:
    """Asks a living owner to end, then removes what is left."""
    if record.owner.pid != os.getpid():
        processes.send([record.owner], signal.SIGTERM)
    deadline = time.monotonic() + OWNER_END_S
    while processes.alive(record.owner) and time.monotonic() < deadline:
        if not record.path.exists():
            return []  # the owner has removed it all
        time.sleep(processes.POLL_S)
    return tear_down(record)
