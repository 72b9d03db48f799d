"""Draws how much of each WAN link a run used: links down, rounds or time across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from experiments.plot.link_use import link_use
from experiments.plot.run_events import RunRecords
from testbed.wan.drawing import new_figure
from testbed.wan.dynamics import MBIT

MOST_LINKS = 80  # rows, those of the links that were used most
SCALES = (*(step * 10.0**power for power in range(-5, 0) for step in (1, 2, 5)), 1.0)  # of colors
OUT = "#b0b0b0"  # of a link that can carry nothing
MARKS = {"rates change": ("#00b7eb", ":"), "new policy": ("#33a02c", "--")}


def draw_links(run: RunRecords, title: str) -> Figure:
    """Draws the heat map of a run's links, those that were used most on top.

    Raises:
      GeojaxError: as :func:`experiments.plot.link_use.link_use`.
    """
    every = link_use(run)
    busy = int((every.means > 0).sum())
    use = every.most_used(min(busy, MOST_LINKS))
    shown = use.links
    figure = new_figure(11, max(4.2, 2.4 + 0.19 * len(shown)))
    axes, means = figure.subplots(1, 2, width_ratios=[10, 1.3], sharey=True)
    left, right = (0, len(use.rounds)) if use.rounds else (use.edges[0], use.edges[-1])
    top = float(np.nanmax(use.share))
    picture = axes.imshow(
        use.share, aspect="auto", cmap=mpl.colormaps["magma_r"].with_extremes(bad=OUT), vmin=0,
        vmax=min((scale for scale in SCALES if scale >= top), default=1.0),
        interpolation="nearest", extent=(left, right, len(shown) - 0.5, -0.5),
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
    handles: list[Artist] = [*mark(axes, marks)]
    if np.isnan(use.share).any():
        handles.append(Patch(color=OUT, label="link out"))
    if handles:
        axes.legend(
            handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8,
            frameon=False, borderaxespad=0.2,
        )  # fmt: skip
    _bars(means, use.means)
    figure.colorbar(
        picture, ax=means, label="bits carried ÷ bits that the link can carry",
        format=PercentFormatter(1.0, decimals=None),
    )  # fmt: skip
    idle = len(every.links) - busy
    parts = [f"; the {len(shown)} links used most of {busy}"] if busy > len(shown) else []
    parts += [f"; {idle} idle links are left out"] if idle else []
    rest = "".join(parts)
    figure.suptitle(
        f"{title}\nuse of the WAN links, mean {_percent(every.mean)}{rest}", fontsize=11
    )
    return figure


def mark(axes: Axes, instants: Mapping[str, Sequence[float]]) -> list[Line2D]:
    """Vertical lines at instants, by what happened then; one of each, named, for a legend."""
    lines = []
    for name, places in instants.items():
        color, dashes = MARKS[name]
        drawn = [
            axes.axvline(place, color=color, linestyle=dashes, linewidth=1.1) for place in places
        ]
        for line in drawn[:1]:
            line.set_label(name)
            lines.append(line)
    return lines


def _bars(axes: Axes, means: np.ndarray) -> None:
    """The mean use of each link."""
    axes.barh(range(len(means)), means, color="#888888", height=0.75)
    top = float(means.max())
    for row, mean in enumerate(means):
        axes.text(mean + 0.04 * top, row, _percent(mean), va="center", fontsize=7)
    axes.set_xlim(0, 1.6 * top)
    axes.set_xticks([0, top], ["0", _percent(top)], fontsize=8)
    axes.set_xlabel("mean", fontsize=8)
    axes.tick_params(left=False, labelleft=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _percent(share: float) -> str:
    """Two digits where they tell something.

    >>> _percent(0.004), _percent(0.5), _percent(1.0)
    ('0.4 %', '50 %', '100 %')
    """
    return f"{100 * share:.0f} %" if share >= 0.095 or not share else f"{100 * share:.2g} %"
