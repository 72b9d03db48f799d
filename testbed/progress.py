"""A progress bar over the rounds of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class RunProgress:
    """Shows rounds done, experiment time and the last test figure; feed it the run's events.

    On a terminal it is a bar that moves; elsewhere one line is printed at the end.

    Args:
      title: what is running.
      rounds: rounds of the run.
    """

    def __init__(self, title: str, rounds: int):
        self._console = Console(stderr=True)
        self._title, self._rounds = title, rounds
        self._done, self._time, self._figure = 0, 0.0, ""
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(),
            TextColumn("rounds  {task.fields[said]}"), TimeElapsedColumn(),
            console=self._console, transient=True, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(title, total=rounds, said="preparing")

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        said = f"{self._title}: {self._done} rounds in {self._time:.1f} s{self._figure}"
        self._console.print(said, highlight=False, soft_wrap=True)

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
        self._bar.update(self._task, completed=self._done, said=said)

    def say(self, what: str) -> None:
        """Shows what the run is busy with outside its rounds."""
        self._bar.update(self._task, said=what)
