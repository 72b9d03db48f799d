"""Draws accuracy over experiment time and over WAN bytes, with a band over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.plot.labels import Group
from experiments.plot.series import Band, accuracy_over_bytes, accuracy_over_time, band
from geojax.errors import GeojaxError
from testbed.wan.drawing import legend_below, new_figure

_STEP, _WIDEST = 2.2, 7.0  # points that lines are wider for each equal one above, and for all
LINES = ("-", "--", ":", "-.")


def style(number: int) -> dict[str, object]:
    """How the line of a row looks: ten colors, then other dashes."""
    colors = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    return {"color": colors[number % 10], "linestyle": LINES[number // 10 % len(LINES)]}


def draw_band(axes: Axes, number: int, name: str, points: Band) -> None:
    """A row's line and, over several seeds, its band of one standard deviation."""
    look = style(number)
    few = "." if len(points.x) <= 60 else ""
    axes.plot(points.x, points.mean, label=name, linewidth=1.6, marker=few, markersize=4, **look)  # type: ignore[arg-type]
    if points.std.any():
        low, high = points.mean - points.std, points.mean + points.std
        axes.fill_between(points.x, low, high, color=look["color"], alpha=0.18, linewidth=0)  # type: ignore[arg-type]


def show_equal_lines(axes: Axes) -> None:
    """Makes a line wider the more equal ones lie above it, so that all of them are seen."""
    alike: dict[bytes, list[Line2D]] = {}
    for line in axes.lines:
        alike.setdefault(np.asarray(line.get_xydata(), float).round(9).tobytes(), []).append(line)
    for lines in alike.values():
        step = min(_STEP, _WIDEST / len(lines))
        for above, line in enumerate(reversed(lines)):
            line.set_linewidth(line.get_linewidth() + step * above)
            line.set_markersize(line.get_markersize() + step * above)


def draw_curves(groups: Sequence[Group], title: str) -> Figure:
    """Draws the accuracy of rows, each over the seeds that evaluated; bytes where any were sent.

    Raises:
      GeojaxError: no run evaluated a model, or a trace cannot be read.
    """
    over_time, over_bytes = [], []
    for number, group in enumerate(groups):
        name, runs = group.name, group.runs
        timed = [found for run in runs if (found := accuracy_over_time(run))]
        sized = [found for run in runs if (found := accuracy_over_bytes(run))]
        over_time += [(number, name, band(timed))] if timed else []
        over_bytes += [(number, name, band(sized))] if sized else []
    if not over_time:
        raise GeojaxError(
            "no run evaluated a model: a synthetic model learns nothing, and others are evaluated "
            "each eval_every_s"
        )
    panels = 2 if over_bytes else 1
    figure = new_figure(6.2 * panels, 4.4)
    axes, *right = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    for number, name, points in over_time:
        draw_band(axes, number, name, points)
    axes.set_xlabel("experiment time (s)")
    axes.set_ylabel("test accuracy")
    for other in right:
        for number, name, points in over_bytes:
            draw_band(other, number, name, points._replace(x=points.x / 1e6))
        other.set_xlabel("bytes over WAN links (MB)")
    for each in (axes, *right):
        show_equal_lines(each)
        each.grid(color="#eeeeee")
        each.set_axisbelow(True)
        each.margins(x=0.02)
    targets = {run.config.target_accuracy for group in groups for run in group.runs}
    if len(targets) == 1:
        for each in (axes, *right):
            each.axhline(*targets, color="#999999", linewidth=0.9, linestyle="--", zorder=1)
    legend_below(figure, *axes.get_legend_handles_labels())
    seeds = max(len(group.runs) for group in groups)
    spread = f"; mean and standard deviation over up to {seeds} seeds" if seeds > 1 else ""
    figure.suptitle(f"{title}\ntest accuracy{spread}", fontsize=11)
    return figure
