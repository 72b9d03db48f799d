"""A progress bar over the rounds of a run."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

LINE_S = 60.0  # real time between two lines where there is no terminal


class RunProgress:
    """Shows rounds done, experiment time and the last test figure; feed it the run's events.

    On a terminal it is a bar that moves, with the time that is left; elsewhere, or where others
    print beside it, a line a minute is printed, and one at the end. What is left is for all rounds,
    or for those before the time limit, at the pace of those so far: a run that may stop earlier has
    less.

    Args:
      title: what is running.
      rounds: rounds of the run.
      max_time_s: experiment time after which none starts; None: there is no limit.
      bar: whether there may be a bar.
      console: where to; None: stderr.
      clock: real time, s.
    """

    def __init__(
        self, title: str, rounds: int, max_time_s: float | None = None, *, bar: bool = True,
        console: Console | None = None, clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self._console = console or _terminal()
        self._rounds, self._max_time, self._clock = rounds, max_time_s, clock
        self._first: tuple[float, int] | None = None  # when the first round was done, and which
        self._moves = bar and self._console is not None and self._console.is_terminal
        self._line = clock()
        self._title = title
        self._done, self._time, self._figure = 0, 0.0, ""
        self._bar = _bar(self._console) if self._console is not None and self._moves else None
        if self._bar:
            self._task = self._bar.add_task(title, total=rounds, said="preparing")

    def __enter__(self) -> RunProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
        self._print(f"{self._title}: {self._done} rounds in {self._time:.1f} s{self._figure}")

    def take(self, event: Mapping[str, Any]) -> None:
        """Takes any event of the run."""
        if event["event"] == "round":
            self._done = max(self._done, event["round"] + 1)
            self._time = max(self._time, event["held"])
        elif event["event"] == "evaluation":
            figure = "accuracy" if "accuracy" in event else "loss"
            self._figure = f", test {figure} {event[figure]:.3f}"
        else:
            return
        said = f"t = {self._time:.1f} s{self._figure}"
        if self._bar:
            self._bar.update(self._task, completed=self._done, total=self._expected(), said=said)
        self._tell(said)

    def _expected(self) -> int:
        """Rounds that the run will have."""
        if self._max_time is None or not self._time:
            return self._rounds
        return min(self._rounds, math.ceil(self._done * max(self._max_time / self._time, 1.0)))

    def _tell(self, said: str) -> None:
        """A line, where there is no bar and none was printed for a minute."""
        now = self._clock()
        if self._first is None and self._done:
            self._first = now, self._done
        if self._moves or now - self._line < LINE_S:
            return
        self._line, left = now, ""
        if self._first is not None and self._done > self._first[1]:
            began, done = self._first
            seconds = (now - began) / (self._done - done) * (self._expected() - self._done)
            left = f", about {seconds / 60:.0f} min left"
        self._print(f"{self._title}: {self._done} of {self._rounds} rounds, {said}{left}")

    def say(self, what: str) -> None:
        """Shows what the run is busy with outside its rounds."""
        if self._bar:
            self._bar.update(self._task, said=what)

    def _print(self, line: str) -> None:
        if self._console is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)


def _terminal() -> Console | None:
    """Standard error, if it may be a terminal; Rich, which is slow to load, tells whether it is."""
    if not (sys.stderr.isatty() or {"FORCE_COLOR", "TTY_COMPATIBLE"} & os.environ.keys()):
        return None
    from rich.console import Console

    return Console(stderr=True)


def _bar(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(30), MofNCompleteColumn(),
        TextColumn("rounds  {task.fields[said]}", markup=False), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), console=console, transient=True,
    )  # fmt: skip
