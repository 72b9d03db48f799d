"""What pictures of WANs have in common: where sites lie, bent arrows, how files are written."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.patches import FancyArrowPatch

from testbed.wan.types import Wan

NAMED_CENTERS = 60  # beyond, sites are dots and links are lines
BEND = 0.11  # of a link, as a share of its length: the two directions lie apart
STRETCH = 2.5  # of a map's shorter axis
_LEGEND_FONT = 9  # points
BOX = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}

Point = tuple[float, float]


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, apart from pyplot and its windows."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> Legend:
    """A legend below all axes, whole: as many columns as fit, and long names in several lines.

    Args:
      figure: with its own layout, into which it fits; its height grows by that of the legend.
      handles: what they look like.
      names: of what is drawn.
    """
    width, size = figure.get_size_inches() * figure.dpi
    room = int(width / 0.65 / (_LEGEND_FONT * figure.dpi / 72)) - 8  # letters in a line
    folded = [textwrap.fill(name, max(20, room)) for name in names]
    for columns in range(min(len(names), 6 if len(names) <= 6 else 4), 0, -1):
        legend = figure.legend(
            handles, folded, loc="outside lower center", ncols=columns, fontsize=_LEGEND_FONT,
            frameon=False,
        )  # fmt: skip
        box = legend.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        if box.width <= width or columns == 1:
            break
        legend.remove()
    for line in legend.get_lines():
        line.set_linewidth(min(line.get_linewidth(), 2.0))
        line.set_markersize(min(line.get_markersize(), 4.0))
    figure.set_figheight((size + box.height) / figure.dpi)
    return legend


def save(figure: Figure, path: Path, salt: str) -> None:
    """Writes a PNG, SVG or PDF file; the same picture gives the same file.

    Args:
      figure: what to write.
      path: the file, written anew.
      salt: the names within an SVG are made of it.
    """
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    # letters in a PDF stay letters, which can be searched and edited
    with mpl.rc_context({"svg.hashsalt": salt, "pdf.fonttype": 42}):
        figure.savefig(path, dpi=110, metadata=undated.get(path.suffix))


def as_map(axes: Axes) -> None:
    """Makes axes a map: both directions of one scale, no frame."""
    axes.set_aspect("equal")
    axes.margins(0.07)
    axes.axis("off")


def arrow(
    axes: Axes, start: Point, end: Point, *, bend: float = BEND, shrink: float = 17, **style: Any
) -> None:
    """Draws a directed link, bent to the right of its direction.

    Args:
      axes: where.
      start: the site that it leaves.
      end: the site that it reaches.
      bend: as a share of its length.
      shrink: points that it stays away from both.
      style: of the patch.
    """
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            connectionstyle=f"arc3,rad={bend}",
            **{"arrowstyle": "-|>,head_length=5,head_width=2.5", **style},
            shrinkA=shrink,
            shrinkB=shrink,
            clip_on=False,  # it may bend out of the axes, which sites alone make
        )
    )


def on_arrow(start: Point, end: Point, share: float, bend: float = BEND) -> Point:
    """The point of an :func:`arrow` after a share of its length."""
    (x, y), (x2, y2) = start, end
    aside = 2 * bend * share * (1 - share)
    return x + share * (x2 - x) + aside * (y2 - y), y + share * (y2 - y) - aside * (x2 - x)


def place_sites(wan: Wan) -> dict[str, Point]:
    """Where each site is drawn, in a square of side 2 around the origin."""
    size = len(wan.centers)
    positions = [center.position for center in wan.centers]
    if wan.has_external and positions[-1] is None and None not in positions[:-1]:
        xs, ys = zip(*(position for position in positions if position), strict=True)
        below = max(max(xs) - min(xs), max(ys) - min(ys), 1.0) / 4
        positions[-1] = (sum(xs) / len(xs), min(ys) - below)  # nobody knows where it is
    if size > 1 and None not in positions:
        points = np.array(positions)
        points = points - (points.min(axis=0) + points.max(axis=0)) / 2
        reach = np.maximum(np.abs(points).max(axis=0), 1e-9)
        # a schematic map: the shorter axis is stretched, but not beyond recognition
        points = _apart(points / np.maximum(reach, reach.max() / STRETCH))
    else:
        turns = math.pi / 2 - 2 * math.pi * np.arange(size) / size
        points = np.stack([np.cos(turns), np.sin(turns)], axis=1)
    return {
        center.name: (float(x), float(y))
        for center, (x, y) in zip(wan.centers, points, strict=True)
    }


def _apart(points: np.ndarray) -> np.ndarray:
    """Pushes sites that would cover each other apart, most others stay where they are."""
    if len(points) > NAMED_CENTERS:
        return points
    least = 1.6 / math.sqrt(len(points)) * 0.75
    points = points + 1e-6 * np.arange(len(points))[:, None]  # no two at the very same point
    for _ in range(200):
        offsets = points[:, None] - points[None, :]
        distances = np.linalg.norm(offsets, axis=2) + np.eye(len(points)) * least
        missing = np.clip(least - distances, 0, None) / distances
        if missing.max() < 1e-3:
            break
        points = points + (offsets * missing[:, :, None]).sum(axis=1) / 2
    return points
