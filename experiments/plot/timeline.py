"""Draws what the nodes of a run did over a few rounds: computing, waiting, sending to each peer."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.plot.lanes import Lane, lanes, rounds_between
from experiments.plot.links import mark
from experiments.plot.run_events import RunRecords, Window
from geojax.errors import GeojaxError
from testbed.wan.drawing import legend_below, new_figure

MOST_LANES = 150
COLORS = {
    "compute": "#4daf4a", "wait": "#d9d9d9", "send": "#2166ac", "send on the LAN": "#92c5de",
    "dead": "#fb9a99",
}  # fmt: skip
OTHER = "#984ea3"  # of what has none
_THIN = 0.004  # of the window: shorter bars have no edge, which would cover them
_LEAST = 0.0015  # of the window, a pixel or two: shorter bars are drawn that long
_NAMED_ROUNDS = 10  # as many as there is room for
_APART = 0.35  # lanes between two nodes


def draw_timeline(run: RunRecords, title: str, rounds: tuple[int, int] | None = None) -> Figure:
    """Draws some rounds of a run; by default three in its middle.

    Raises:
      GeojaxError: the run has no rounds, no spans in them, or no trace that can be read.
      ConfigError: the run has not these rounds.
    """
    window = rounds_between(run, rounds)
    every = lanes(run, window)
    if not any(lane.bars for lane in every):
        raise GeojaxError(f"{run.path}: trace.json has nothing from these rounds")
    shown = every[:MOST_LANES]
    heights, names = _heights(shown), []
    figure = new_figure(12, 1.6 + 0.17 * heights[-1])
    axes = figure.subplots()
    least = _LEAST * (window.end - window.start)
    for lane, height in zip(shown, heights, strict=True):
        for bar in lane.bars:
            axes.broken_barh(
                [(bar.start, max(bar.end - bar.start, least))], (height - 0.42, 0.84),
                facecolor=COLORS.get(bar.kind, OTHER), edgecolor="white",
                linewidth=0.3 if bar.end - bar.start > _THIN * (window.end - window.start) else 0,
            )  # fmt: skip
        names.append(lane.node if not lane.peer else f"→ {lane.peer}")
    axes.set_yticks(heights, names, fontsize=7.5)
    for label, lane in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_fontweight("normal" if lane.peer else "bold")
    axes.set_ylim(heights[-1] + 0.8, -0.8)
    axes.set_xlim(*window)
    axes.set_xlabel("experiment time (s)")
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    _rounds(run, window, axes)
    inside = {
        name: [at for at in instants if window.start <= at <= window.end]
        for name, instants in run.marks().items()
    }
    marks = mark(axes, inside)
    there = {bar.kind for lane in shown for bar in lane.bars}
    kinds = [kind for kind in COLORS if kind in there] + sorted(there - {*COLORS})
    patches = [Patch(color=COLORS.get(kind, OTHER)) for kind in kinds]
    legend_below(figure, [*patches, *marks], [*kinds, *(str(m.get_label()) for m in marks)])
    hidden = len(every) - len(shown)
    rest = f"; the first {len(shown)} lanes of {len(every)}" if hidden else ""
    fine = "each chunk" if run.config.events == "chunk" else "first to last bit of a round"
    figure.suptitle(f"{title}\nwhat nodes did; sending: {fine}{rest}", fontsize=11)
    return figure


def _heights(shown: list[Lane]) -> list[float]:
    """Where each lane lies: nodes stand a little apart."""
    heights, at = [], 0.0
    for lane, before in zip(shown, [shown[0], *shown], strict=False):
        at += _APART if lane.node != before.node else 0.0
        heights.append(at)
        at += 1.0
    return heights


def _rounds(run: RunRecords, window: Window, axes: Axes) -> None:
    """Thin lines where a round ends, with its number; only where rounds are common."""
    inside = {
        number: end
        for number, (start, end) in run.windows.items()
        if window.start <= start and end <= window.end
    }
    for number, end in inside.items():
        axes.axvline(end, color="black", linewidth=0.7)
        if len(inside) <= _NAMED_ROUNDS or number % math.ceil(len(inside) / _NAMED_ROUNDS) == 0:
            axes.annotate(
                f"round {number} held", (end, 1), xycoords=("data", "axes fraction"),
                xytext=(-3, 2), textcoords="offset points", ha="right", fontsize=7.5,
            )  # fmt: skip
