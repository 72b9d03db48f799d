"""Draws how much of each WAN link a run used: links down, rounds or time across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.plot.link_use import link_use
from experiments.plot.run_events import RunRecords
from testbed.wan.drawing import new_figure
from testbed.wan.dynamics import MBIT

MOST_LINKS = 80  # rows, those of the links that were used most
MARKS = {"rates change": ("#00b7eb", ":"), "new policy": ("#7fff00", "--")}


def draw_links(run: RunRecords, title: str) -> Figure:
    """Draws the heat map of a run's links, those that were used most on top.

    Raises:
      GeojaxError: as :func:`experiments.plot.link_use.link_use`.
    """
    every = link_use(run)
    use = every.most_used(MOST_LINKS)
    shown = use.links
    figure = new_figure(11, 2.2 + 0.19 * len(shown))
    axes, means = figure.subplots(1, 2, width_ratios=[10, 1.3], sharey=True)
    left, right = (0, len(use.rounds)) if use.rounds else (use.edges[0], use.edges[-1])
    picture = axes.imshow(
        use.share, aspect="auto", cmap="magma", vmin=0, vmax=1, interpolation="nearest",
        extent=(left, right, len(shown) - 0.5, -0.5),
    )  # fmt: skip
    constant = len(run.rates) == 1
    rates = run.rates[0][1]
    names = [f"{a} → {b}" + (f"  {rates[a, b] / MBIT:.4g}" if constant else "") for a, b in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.set_ylabel("directed link, its rate in Mbit/s" if constant else "directed link")
    if use.rounds:
        step = max(1, len(use.rounds) // 12)
        ticks = range(0, len(use.rounds), step)
        axes.set_xticks([tick + 0.5 for tick in ticks], [str(use.rounds[tick]) for tick in ticks])
        axes.set_xlabel("round")
    else:
        axes.set_xlabel("experiment time (s)")
    columns = range(len(use.edges)) if use.rounds else use.edges
    marks = {
        name: [float(np.interp(at, use.edges, columns)) for at in instants]
        for name, instants in run.marks().items()
    }
    mark(axes, marks)
    _bars(means, use.means)
    figure.colorbar(picture, ax=means, label="bits carried ÷ bits that the link can carry")
    hidden = len(every.links) - len(shown)
    rest = f"; the {len(shown)} links used most of {len(every.links)}" if hidden else ""
    figure.suptitle(
        f"{title}\nuse of the WAN links, mean {100 * every.mean:.0f} %{rest}", fontsize=11
    )
    return figure


def mark(axes: Axes, instants: Mapping[str, Sequence[float]]) -> None:
    """Vertical lines at instants, by what happened then, with a legend above the axes."""
    for name, places in instants.items():
        color, dashes = MARKS[name]
        for number, place in enumerate(places):
            axes.axvline(
                place, color=color, linestyle=dashes, linewidth=1.1, label=None if number else name
            )
    if any(instants.values()):
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, frameon=False,
            borderaxespad=0.2,
        )  # fmt: skip


def _bars(axes: Axes, means: np.ndarray) -> None:
    """The mean use of each link."""
    axes.barh(range(len(means)), means, color="#888888", height=0.75)
    for row, mean in enumerate(means):
        axes.text(min(mean, 1) + 0.03, row, f"{100 * mean:.0f}", va="center", fontsize=7)
    axes.set_xlim(0, 1.25)
    axes.set_xticks([0, 1], ["0", "1"], fontsize=8)
    axes.set_xlabel("mean (%)", fontsize=8)
    axes.tick_params(left=False, labelleft=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
