"""Draws sync times: round by round of several runs, their means, and the WAN's bound."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.plot.curves import draw_band, show_equal_lines, style
from experiments.plot.labels import Group
from experiments.plot.series import band, bound_spells, mean_spells, mean_sync, sync_series
from geojax.errors import GeojaxError
from testbed.wan.drawing import legend_below, new_figure

MOST_LINES = 20  # rows whose rounds are drawn; more have only their means
_BOUND = {"linestyle": "--", "linewidth": 1.2}


def draw_sync(groups: Sequence[Group], title: str) -> Figure:
    """Draws the sync times of rows; over time where a run's rates change, else over rounds.

    A bound that all rows share is black, others have the color of their row.

    Raises:
      GeojaxError: no run has rounds that are common to its centers.
    """
    shown = [(n, group) for n, group in enumerate(groups) if any(map(mean_sync, group.runs))]
    if not shown:
        raise GeojaxError(
            "no run has sync times: their rounds are not common to all centers, or none ended"
        )
    over_time = any(len(run.rates) > 1 for _, group in shown for run in group.runs)
    lines, bars = len(shown) <= MOST_LINES, len(shown) > 1
    lines_of_names = max(_folded(group.name).count("\n") + 1 for _, group in shown)
    height = max(4.6, 1.6 + (0.16 + 0.16 * lines_of_names) * len(shown)) if bars else 4.6
    figure = new_figure(7.4 * lines + 5.6 * bars, height)
    panels = figure.subplots(1, lines + bars, squeeze=False)[0]
    bounds = {number: mean_spells([*map(bound_spells, group.runs)]) for number, group in shown}
    common = len({tuple(spells) for spells in bounds.values()}) == 1
    if lines:
        _draw_rounds(panels[0], shown, bounds, common=common, over_time=over_time)
        legend_below(figure, *panels[0].get_legend_handles_labels())
    if bars:
        _draw_means(panels[-1], shown)
    seeds = max(len(group.runs) for _, group in shown)
    spread = f"; mean and standard deviation over up to {seeds} seeds" if seeds > 1 else ""
    figure.suptitle(f"{title}\nsync time{spread}", fontsize=11)
    return figure


def _draw_rounds(
    axes: Axes,
    shown: Sequence[tuple[int, Group]],
    bounds: dict[int, list[tuple[float, float]]],
    *,
    common: bool,
    over_time: bool,
) -> None:
    for number, group in shown:
        found = [s for run in group.runs if (s := sync_series(run, over_time=over_time))]
        draw_band(axes, number, group.name, band(found))
    show_equal_lines(axes)
    end = max(line.get_xdata()[-1] for line in axes.lines)  # type: ignore[index]
    for place, (number, _) in enumerate(shown):
        spells = bounds[number]
        if spells and (place == 0 or not common):
            color = "black" if common else style(number)["color"]
            name = "bound" if place == 0 else None
            if over_time:
                xs = [at for at, _ in spells if at < end] + [end]
                ys = [bound for at, bound in spells if at < end]
                axes.step(xs, [*ys, ys[-1]], where="post", color=color, label=name, **_BOUND)  # type: ignore[arg-type]
            else:
                axes.axhline(spells[0][1], color=color, label=name, **_BOUND)  # type: ignore[arg-type]
    warmup = max(run.config.warmup_rounds for _, group in shown for run in group.runs)
    if warmup and not over_time:
        axes.axvspan(-0.5, warmup - 0.5, color="#eeeeee", label="warm-up", zorder=0)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    if not over_time:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(-0.5, end + 0.5)
    axes.set_xlabel("experiment time (s)" if over_time else "round")
    axes.set_ylabel("sync time (s)")
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)
    if over_time and len({tuple(at for at, _ in g.runs[0].rates) for _, g in shown}) == 1:
        for at in shown[0][1].runs[0].marks()["rates change"]:
            axes.axvline(at, color="#00b7eb", linestyle=":", linewidth=1.1)


def _folded(name: str) -> str:
    """A name in lines that leave room for its bar."""
    return textwrap.fill(name, 40)


def _draw_means(axes: Axes, shown: Sequence[tuple[int, Group]]) -> None:
    """A bar for each row, with its bound as a dashed tick where its summary has one."""
    for place, (number, group) in enumerate(shown):
        means = [mean for run in group.runs if (mean := mean_sync(run)) is not None]
        mean = statistics.fmean(means)
        std = statistics.stdev(means) if len(means) > 1 else 0.0
        axes.barh(place, mean, xerr=std or None, color=style(number)["color"], height=0.7)  # type: ignore[arg-type]
        axes.annotate(
            f"{mean:.3g}", (mean + std, place), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8.5,
        )  # fmt: skip
        bound = group.row.stat("bound_s")
        if bound is not None:
            axes.plot([bound.mean] * 2, [place - 0.42, place + 0.42], color="black", **_BOUND)  # type: ignore[arg-type]
    axes.set_yticks(range(len(shown)), [_folded(group.name) for _, group in shown], fontsize=8.5)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.12 * axes.get_xlim()[1])
    axes.set_xlabel("mean sync time (s); dashed: bound")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
