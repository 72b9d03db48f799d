"""Draws what the nodes of a run did over a few rounds: computing, waiting, sending to each peer."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.plot.lanes import Lane, lanes, rounds_between
from experiments.plot.links import mark
from experiments.plot.run_events import RunRecords, Window
from geojax.errors import GeojaxError
from testbed.wan.drawing import new_figure

MOST_LANES = 150
COLORS = {
    "compute": "#4daf4a", "wait": "#d9d9d9", "send": "#2166ac", "send on the LAN": "#92c5de",
}  # fmt: skip
_THIN = 0.004  # of the window: shorter bars have no edge, which would cover them
_APART = 0.35  # lanes between two nodes


def draw_timeline(run: RunRecords, title: str, rounds: tuple[int, int] | None = None) -> Figure:
    """Draws some rounds of a run; by default three in its middle.

    Raises:
      GeojaxError: the run has no rounds, no spans in them, or no trace that can be read.
      ConfigError: the run has not these rounds.
    """
    window = rounds_between(run, rounds)
    every = lanes(run, window)
    if not every:
        raise GeojaxError(f"{run.path}: trace.json has nothing from these rounds")
    shown = every[:MOST_LANES]
    heights, names = _heights(shown), []
    figure = new_figure(12, 1.6 + 0.17 * heights[-1])
    axes = figure.subplots()
    for lane, height in zip(shown, heights, strict=True):
        for bar in lane.bars:
            axes.broken_barh(
                [(bar.start, bar.end - bar.start)], (height - 0.42, 0.84),
                facecolor=COLORS.get(bar.kind, "#984ea3"), edgecolor="white",
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
    mark(axes, inside)
    kinds = dict.fromkeys(bar.kind for lane in shown for bar in lane.bars)
    figure.legend(
        [Patch(color=COLORS.get(kind, "#984ea3")) for kind in kinds], list(kinds),
        loc="outside lower center", ncols=len(kinds), fontsize=9, frameon=False,
    )  # fmt: skip
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
    for number, (start, end) in run.windows.items():
        if window.start <= start and end <= window.end:
            axes.axvline(end, color="black", linewidth=0.7)
            axes.annotate(
                f"round {number} held", (end, 1), xycoords=("data", "axes fraction"),
                xytext=(-3, 2), textcoords="offset points", ha="right", fontsize=7.5,
            )  # fmt: skip
