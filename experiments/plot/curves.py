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

    Groups of several facets have panels below each other, on the same scales; of one name they have
    one color.

    Raises:
      GeojaxError: no run evaluated a model, or a trace cannot be read.
    """
    drawn = [(group, over_time, over_bytes) for group in groups if (over_time := _over_time(group))
             for over_bytes in [_over_bytes(group)]]  # fmt: skip
    if not drawn:
        raise GeojaxError(
            "no run evaluated a model: a synthetic model learns nothing, and others are evaluated "
            "each eval_every_s"
        )
    numbers = {name: n for n, name in enumerate(dict.fromkeys(group.name for group in groups))}
    facets = list(dict.fromkeys(group.facet for group, *_ in drawn))
    panels = 2 if any(over_bytes for *_, over_bytes in drawn) else 1
    figure = new_figure(6.2 * panels, 4.4 if len(facets) == 1 else 1.2 + 2.9 * len(facets))
    grid = figure.subplots(len(facets), panels, sharex="col", sharey=True, squeeze=False)
    for group, *bands in drawn:
        row = grid[facets.index(group.facet)]
        for axes, points in zip(row, bands, strict=False):
            if points:
                draw_band(axes, numbers[group.name], group.name, points)
    targets = {run.config.target_accuracy for group in groups for run in group.runs}
    for axes in grid.ravel():
        show_equal_lines(axes)
        axes.grid(color="#eeeeee")
        axes.set_axisbelow(True)
        axes.margins(x=0.02)
        if len(targets) == 1:
            axes.axhline(*targets, color="#999999", linewidth=0.9, linestyle="--", zorder=1)
    for facet, row in zip(facets, grid, strict=True):
        row[0].set_ylabel("test accuracy")
        row[0].set_title(facet, fontsize=10, loc="left")
    labels = ("experiment time (s)", "bytes over WAN links (MB)")
    for axes, label in zip(grid[-1], labels, strict=False):
        axes.set_xlabel(label)
    handles = [axes.get_legend_handles_labels() for axes in grid[:, 0]]
    named = {name: handle for found in handles for handle, name in zip(*found, strict=True)}
    names = [name for name in numbers if name in named]
    legend_below(figure, [named[name] for name in names], names)
    seeds = max(len(group.runs) for group in groups)
    spread = f"; mean and standard deviation over up to {seeds} seeds" if seeds > 1 else ""
    figure.suptitle(f"{title}\ntest accuracy{spread}", fontsize=11)
    return figure


def _over_time(group: Group) -> Band | None:
    found = [timed for run in group.runs if (timed := accuracy_over_time(run))]
    return band(found) if found else None


def _over_bytes(group: Group) -> Band | None:
    """In MB."""
    found = [sized for run in group.runs if (sized := accuracy_over_bytes(run))]
    points = band(found) if found else None
    return points and points._replace(x=points.x / 1e6)
