"""Draws the trees of a policy over the WAN, and what they load onto its links all together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.plot.run_events import Planned, RunRecords
from experiments.plot.tree_flows import Flow, all_flows, relative_times, tree_flows
from geojax.errors import ConfigError, GeojaxError
from geojax.overlay.view import Edge
from testbed.wan.drawing import (
    BEND,
    BOX,
    NAMED_CENTERS,
    Point,
    arrow,
    as_map,
    new_figure,
    on_arrow,
    place_sites,
)

MOST_TREES = 9  # panels, those of the largest shares
LABELLED_LINKS = 40  # up to so many loaded links carry their numbers
UP, DOWN, GREY = "#2166ac", "#e08214", "#555555"
_WIDTHS = 0.7, 4.5  # points of a link with next to no load, and of the most loaded one
_LOADS = LinearSegmentedColormap.from_list(
    "loads", mpl.colormaps["YlOrRd"](np.linspace(0.2, 0.95, 32))
)
_ROOT = 45  # square points of a root among nameless dots
_SHORT = 3  # letters that fit into a site
_NAME = {**BOX, "alpha": 0.65}
_HEAD = "-|>,head_length=3.5,head_width=1.8"


class _Sites(NamedTuple):
    """Where sites are drawn and how large; nameless dots where they are too many.

    Names that are too long for their sites stand above them.
    """

    at: Mapping[str, Point]
    marker: float  # square points
    shrink: float  # points that arrows stay away
    font: float
    above: float = 0.0  # points from a site to its name; 0: it is within
    lines: float = 1.0  # widths of arrows, relative

    @classmethod
    def of(cls, cluster: Mapping[str, Point], scale: float) -> _Sites:
        if len(cluster) > NAMED_CENTERS:
            return cls(cluster, 5, 1, 0, lines=0.4)
        crowd = min(1.0, 4 / math.sqrt(len(cluster)))  # many sites are smaller
        size = scale * crowd
        if max(map(len, cluster)) > _SHORT:
            return cls(cluster, 110 * size, 7 * size, max(6, 9.5 * size), above=5 + 4 * size)
        return cls(cluster, 420 * size**2, 12 * size, max(4.5, 9 * size))


def choose(run: RunRecords, version: int | None) -> Planned:
    """The policy of a version; None: the last one.

    Raises:
      GeojaxError: the run planned none.
      ConfigError: there is no such version.
    """
    if not run.planned:
        raise GeojaxError(f"{run.path}: events.jsonl tells of no policy: the run did not start")
    if version is None:
        return run.planned[-1]
    for planned in run.planned:
        if planned.policy.version == version:
            return planned
    versions = ", ".join(str(planned.policy.version) for planned in run.planned)
    raise ConfigError("--policy", version, f"this run's policies have the versions {versions}")


def largest(planned: Planned, most: int) -> list[int]:
    """Indices of the trees with the largest shares, largest first, ties in the policy's order."""
    order = sorted(range(len(planned.shares)), key=lambda tree: -planned.shares[tree])
    return order[:most]


def draw_trees(run: RunRecords, title: str, planned: Planned, most: int = MOST_TREES) -> Figure:
    """Draws a policy: on the left all trees together, on the right each of the largest.

    Args:
      run: whose WAN and rates these are.
      title: names the run.
      planned: the policy.
      most: panels of single trees.
    """
    trees, shares = planned.policy.trees, planned.shares
    shown = [tree for tree in largest(planned, most) if shares[tree]]
    rows, columns = _grid(len(shown))
    height = max(6.5, 3.3 * rows + 0.6)
    widths = height - 1.5, 3.1 * columns + 0.2  # maps are square; this one has a scale below it
    figure = new_figure(sum(widths), height)
    halves = figure.subfigures(1, 2, width_ratios=widths, squeeze=False)
    left, right = halves[0]
    sites = place_sites(run.wan)
    rates = [rates for at, rates in run.rates if at <= planned.at][-1]
    _draw_sum(
        left.subplots(),
        run,
        planned,
        _Sites.of(sites, 1.0),
        all_flows(trees, shares, run.hops),
        rates,
    )
    panels = right.subplots(rows, columns, squeeze=False).ravel()
    flows = [tree_flows(trees[tree], shares[tree], run.hops) for tree in shown]
    heaviest = max((flow.total for each in flows for flow in each.values()), default=1.0)
    for axes, tree, flow in zip(panels, shown, flows, strict=False):
        root = run.cluster.node(trees[tree].root).center
        _draw_tree(axes, run, _Sites.of(sites, 0.62), flow, root, heaviest)
        axes.set_title(f"root {trees[tree].root}: {100 * shares[tree]:.3g} %", fontsize=9)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    colors = {"to the root": UP, "from the root": DOWN}
    lines = [Line2D([], [], color=color, linewidth=2.5) for color in colors.values()]
    loads = heaviest, heaviest / 4
    lines += [Line2D([], [], color=GREY, linewidth=_width(load, heaviest)) for load in loads]
    names = [*colors, *(f"{load:.2g} × the model" for load in loads)]
    right.legend(lines, names, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    loaded = sum(share > 0 for share in shares)
    rest = f"; {len(trees) - loaded} of them carry nothing" if loaded < len(trees) else ""
    if len(shown) < loaded:
        rest += f"; the {len(shown)} trees of the largest shares of {loaded}"
    figure.suptitle(f"{title}\n{_told(run, planned)}{rest}", fontsize=11)
    return figure


def _grid(count: int) -> tuple[int, int]:
    """Rows and columns of panels, with as few empty ones as may be, the last row's.

    >>> [_grid(count) for count in (1, 2, 3, 4, 5, 7, 9)]
    [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2), (4, 2), (3, 3)]
    """
    columns = 1 if count <= 3 else 2 if count <= 8 and count != 6 else 3
    return math.ceil(count / columns), columns


def _width(load: float, heaviest: float) -> float:
    """Points of a path in the panel of a single tree."""
    return _WIDTHS[0] + (_WIDTHS[1] - _WIDTHS[0]) * load / heaviest


def _told(run: RunRecords, planned: Planned) -> str:
    policy = planned.policy
    count = f"{len(policy.trees)} tree{'s' if len(policy.trees) > 1 else ''}"
    text = f"{run.config.overlay.name} on {run.wan.name}: {count}"
    if len(run.planned) > 1:
        text += (
            f", policy {policy.version} of {len(run.planned)}, from round {planned.first} "
            f"(t = {planned.at:.4g} s, {planned.reason})"
        )
    return text


def _draw_sum(
    axes: Axes,
    run: RunRecords,
    planned: Planned,
    sites: _Sites,
    flows: Mapping[Edge, Flow],
    rates: Mapping[Edge, float],
) -> None:
    _draw_links(axes, run, sites, flows)
    times = relative_times(flows, rates)
    most = max((flow.total for flow in flows.values()), default=1.0)
    for link, flow in sorted(flows.items(), key=lambda item: times[item[0]]):
        start, end = (sites.at[site] for site in link)
        color = _LOADS(times[link])
        width = _WIDTHS[0] + (_WIDTHS[1] + 1.5) * flow.total / most
        arrow(
            axes, start, end, shrink=sites.shrink + 2, linewidth=sites.lines * width, color=color,
            zorder=2 + times[link],
        )  # fmt: skip
        if len(flows) <= LABELLED_LINKS:
            x, y = on_arrow(start, end, 0.4)
            axes.text(
                x,
                y,
                f"{flow.total:.2f}",
                ha="center",
                va="center",
                fontsize=7.5,
                zorder=4,
                bbox=BOX,
            )
    _draw_sites(axes, run, sites, {run.cluster.node(t.root).center for t in planned.policy.trees})
    as_map(axes)
    axes.set_title("all trees: how often the model crosses each link in a round", fontsize=10)
    bar = axes.figure.colorbar(
        ScalarMappable(Normalize(0, 1), _LOADS), ax=axes, shrink=0.7, location="bottom", aspect=40
    )
    bar.set_label("time that the link needs for it ÷ that of the busiest link", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _draw_tree(
    axes: Axes,
    run: RunRecords,
    sites: _Sites,
    flows: Mapping[Edge, Flow],
    root: str,
    heaviest: float,
) -> None:
    """Paths up and down; where one link is on both, the path down is bent further."""
    _draw_links(axes, run, sites, flows)
    for link, flow in flows.items():
        start, end = (sites.at[site] for site in link)
        for load, color, bend in (
            (flow.up, UP, BEND),
            (flow.down, DOWN, 2.4 * BEND if flow.up else BEND),
        ):
            if load:
                width = _width(load, heaviest)
                arrow(
                    axes, start, end, bend=bend, shrink=sites.shrink + 1,
                    linewidth=sites.lines * width, color=color, arrowstyle=_HEAD, zorder=3,
                )  # fmt: skip
    _draw_sites(axes, run, sites, {root})
    as_map(axes)


def _draw_links(axes: Axes, run: RunRecords, sites: _Sites, without: Mapping[Edge, Flow]) -> None:
    """The links that carry nothing, faintly."""
    for one, other in {tuple(sorted(edge)) for edge in run.wan.edges}:
        if (one, other) not in without and (other, one) not in without:
            (x, y), (x2, y2) = sites.at[one], sites.at[other]
            axes.plot([x, x2], [y, y2], color="#cccccc", linewidth=0.7, zorder=1)


def _draw_sites(axes: Axes, run: RunRecords, sites: _Sites, roots: set[str]) -> None:
    for center in run.wan.centers:
        x, y = sites.at[center.name]
        dark = center.name in roots
        color = "#222222" if dark else "white"
        marker = "o" if center.workers else "s"
        size = _ROOT if dark and not sites.font else sites.marker
        axes.scatter(
            [x], [y], s=size, marker=marker, color=color, edgecolor="black", linewidth=0.8,
            zorder=5,
        )  # fmt: skip
        if sites.above:
            axes.annotate(
                center.name, (x, y), xytext=(0, sites.above), textcoords="offset points",
                ha="center", va="center", fontsize=sites.font, zorder=6, bbox=_NAME,
                fontweight="bold" if dark else "normal",
            )  # fmt: skip
        elif sites.font:
            axes.text(
                x, y, center.name, ha="center", va="center", fontsize=sites.font, zorder=6,
                color="white" if dark else "black",
            )  # fmt: skip
    xs, ys = zip(*sites.at.values(), strict=True)
    axes.plot([min(xs), max(xs)], [min(ys), max(ys)], alpha=0)  # arrows do not count for limits
