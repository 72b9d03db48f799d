"""A process that outlives its run's SIGKILL and removes what the run left behind.

Started by :class:`testbed.emulated.wan.EmulatedWan` in a session of its own, with nothing but the
standard library: ``python -m testbed.emulated.cleanup.watchdog RECORD``. Its standard input is a
pipe that the run holds open; when the pipe ends, or the run's process is gone, it tears down what
the run's record still lists. After an orderly end there is no record, and so nothing to do.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

from testbed import pids as processes
from testbed.emulated.cleanup import state
from testbed.emulated.cleanup.teardown import tear_down
from testbed.local import cpu_limits

CHECK_S = 1.0


def main(argv: list[str]) -> int:
    """Waits for the end of the run, then cleans up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its run, not before
    path = Path(argv[0])
    record = state.load(path)
    if record is None:
        return 0
    pipe = sys.stdin.fileno()
    while processes.alive(record.owner):
        ready, _, _ = select.select([pipe], (), (), CHECK_S)
        if ready and not os.read(pipe, 1):
            break
    record = state.load(path)
    if record is None:
        return 0
    complaints = tear_down(record)
    cpu_limits.remove_stale()
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
