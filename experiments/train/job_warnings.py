"""What a job warns of: with its name, each kind a few times, and all of it in its directory."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.train.standing import first_to_tell

FILE = "warnings.txt"  # in the run's directory, if there were any
PLANNING = "geojax.planning"  # logger of planners that may take seconds
TELL_S = 3.0  # real time between two lines about planning
MOST = 3  # of one kind that are told; all are in the file


class JobWarnings(logging.Handler):
    """Tells a job's warnings on stderr and keeps them all in a file.

    Warnings of one kind have one template (``"%s: dropped a chunk of epoch %d"``). What another job
    of the sweep has told already is not told again.

    Args:
      name: of the job, before each line; empty: it is the only one.
      path: the file.
    """

    def __init__(self, name: str, path: Path):
        super().__init__(logging.WARNING)
        self._name, self._path = name, path
        self._told: Counter[tuple[str, str]] = Counter()
        self._untold = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record, as any handler."""
        level, text = record.levelname.lower(), record.getMessage().strip()
        with contextlib.suppress(OSError), self._path.open("a") as file:  # a full disk
            file.write(f"{level}: {text}\n")
        kind = record.name, record.msg if record.args and record.msg != "%s" else text
        if self._told[kind] >= MOST or not first_to_tell(text):
            self._untold += 1
            return
        self._told[kind] += 1
        self._print(f"{level}: ", text)

    def close(self) -> None:
        """Says what was not told."""
        super().close()
        if self._untold:
            more = "1 more warning" if self._untold == 1 else f"{self._untold} more warnings"
            self._print("", f"{more}, of kinds that were told before: {self._path}")
            self._untold = 0

    def _print(self, level: str, text: str) -> None:
        print(f"{level}{self._name and f'{self._name}: '}{text}", file=sys.stderr, flush=True)


class PlanningLines(logging.Handler):
    """Tells how far planning is, where it takes seconds, on stderr.

    Args:
      name: of the job, before each line; empty: it is the only one.
      clock: real time, s.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic):
        super().__init__(logging.DEBUG)
        self._name, self._clock = name, clock
        self._since = clock()
        self.addFilter(lambda record: record.levelno < logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record, as any handler; that of 0 % begins a plan."""
        now = self._clock()
        if record.args and isinstance(record.args, tuple) and record.args[-1] == 0:
            self._since = now
        if now - self._since >= TELL_S:
            self._since = now
            named = f"{self._name}: " if self._name else ""
            print(f"{named}{record.getMessage()}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def job_warnings(name: str, run_dir: Path) -> Iterator[None]:
    """Handles all warnings of this process so, those of Python's ``warnings`` too.

    How far planning is, where it takes seconds, is told as well, and not kept.
    """
    handler, root = JobWarnings(name, run_dir / FILE), logging.getLogger()
    planning, lines = logging.getLogger(PLANNING), PlanningLines(name)
    before = planning.level
    root.addHandler(handler)
    planning.addHandler(lines)
    planning.setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        planning.removeHandler(lines)
        planning.setLevel(before)
        handler.close()
