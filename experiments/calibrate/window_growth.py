"""Whether a bound on the growth of TCP windows mends the simulator: ``calibrate.window_growth``.

Real connections need time to grow into room that others leave; simulated ones take it at once
(:mod:`testbed.simulated.tcp`). Here they do not: after slow start, too, a connection sends no more
than its window in a round trip. A window that takes less than that to leave grows by a segment
(RFC 5681, §3.1; RFC 9438 beyond the old maximum). One that does not is cut, by 0.7 a time at most
(RFC 9438, §4.6), to ``headroom`` times what the path takes in a round trip; the rest of it stands
in a queue.

Prints the simulator's errors on the fitted cases of the calibration, without the bound and with it:

  python -m experiments.calibrate.window_growth --headroom 3 2 1.5 1
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from unittest.mock import patch

from rich.table import Table

from experiments import command
from experiments.bench import report
from experiments.calibrate import figures
from experiments.calibrate.cases import Case
from experiments.calibrate.fit import relative_error
from experiments.calibrate.fitted import FITTED_CASES
from experiments.calibrate.runs import simulated
from testbed.simulated import transport
from testbed.simulated.tcp import Connection
from testbed.wan.tcp_rates import SEGMENT_BYTES

CUT = 0.7  # what a window is multiplied with when its path is full


class WindowedConnection(Connection):
    """A connection whose window limits it after slow start, too.

    Args:
      headroom: the window ÷ what a full path takes in a round trip, at least 1.
      arguments: as :class:`testbed.simulated.tcp.Connection`.
    """

    def __init__(self, *arguments: Any, headroom: float):
        super().__init__(*arguments)
        self._headroom = headroom
        self._slow_start = not self._filled
        self._unlimited = self._filled  # a path without delay
        self._filled = False  # or the message would leave without looking at the window

    def _next_part(self) -> None:
        if self._unlimited:
            self._fluid.start(self._flow, self._left, self._done)
        elif self._slow_start:
            super()._next_part()
        elif self._began is None or self._loop.time() >= self._ready_at:
            self._credit, self._began = int(self._window), self._loop.time()
            self._ready_at = self._began + self._round_trip
            self._send_part()
        elif self._credit == 0:
            self._timer = self._loop.schedule(self._ready_at, self._next_part)
        else:
            self._send_part()

    def _send_part(self) -> None:
        self._part = min(self._left, self._credit)
        self._fluid.start(self._flow, self._part, self._part_left)

    def _part_left(self) -> None:
        self._left -= self._part
        self._credit -= self._part
        if self._credit == 0:
            self._adapt(self._flow.rate * self._round_trip / 8)
        if self._left == 0:
            self._done()
        else:
            self._next_part()

    def _adapt(self, taken: float) -> None:
        """The window has left; ``taken``: bytes that the path takes in a round trip."""
        if self._slow_start:
            self._slow_start = self._loop.time() < self._ready_at
            if not self._slow_start:
                self._window = max(self._window, self._headroom * taken)
        elif self._window < taken:
            self._window += SEGMENT_BYTES
        else:
            self._window = max(CUT * self._window, min(self._window, self._headroom * taken))


def errors(case_means: Mapping[Case, float], headroom: float | None) -> dict[str, float]:
    """Relative error of every case; ``headroom`` None: as the simulator is."""

    def windowed(*arguments: Any) -> Connection:
        if headroom is None:
            return Connection(*arguments)
        return WindowedConnection(*arguments, headroom=headroom)

    with patch.object(transport, "Connection", windowed):
        return {
            case.name: relative_error(simulated(case).mean, mean)
            for case, mean in case_means.items()
        }


def table(headrooms: Sequence[float]) -> Table:
    """The errors of all fitted cases."""
    kept = figures.load(figures.FIGURES, FITTED_CASES)
    means = {case: each.mean for case, each in kept.items()}
    columns = {"without": errors(means, None)}
    columns |= {f"headroom {h:g}": errors(means, h) for h in headrooms}
    found = report.empty_table("error of the mean sync time", ["case", *columns])
    for case in means:
        found.add_row(case.name, *(f"{column[case.name]:+.1%}" for column in columns.values()))
    sizes = [[abs(error) for error in column.values()] for column in columns.values()]
    found.add_row("mean size", *(f"{statistics.fmean(each):.1%}" for each in sizes))
    found.add_row("worst", *(f"{max(each):.1%}" for each in sizes))
    return found


def _headroom(text: str) -> float:
    value = float(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: a window holds at least what the path takes, 1")
    return value


def main() -> int:
    """Prints the table; returns 2 when there are no figures."""
    parser = command.parser("calibrate.window_growth", __doc__)
    parser.add_argument("--headroom", nargs="+", type=_headroom, default=[3.0, 2.0, 1.5, 1.0])
    options = parser.parse_args()
    return report.show(lambda: table(options.headroom))


if __name__ == "__main__":
    sys.exit(main())
