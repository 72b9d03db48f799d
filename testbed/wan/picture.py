"""Draws a WAN: sites, directed rates as widths, delays; as PNG, SVG or PDF."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize

from geojax.errors import ConfigError
from testbed.wan import PICTURES
from testbed.wan.drawing import (
    BOX,
    NAMED_CENTERS,
    Point,
    arrow,
    as_map,
    new_figure,
    on_arrow,
    place_sites,
    save,
)
from testbed.wan.dynamics import MBIT
from testbed.wan.types import Link, Wan

LABELLED_LINKS = 30  # up to so many directed links carry their numbers
MATRIX_CENTERS = 16  # up to so many centers get a table of numbers where links have none
WIDTHS = 0.7, 6.0  # points of the slowest thinkable and of the fastest link


class _Style(NamedTuple):
    """How rates look."""

    fastest: float  # bit/s
    colors: Colormap

    def width(self, link: Link) -> float:
        """In proportion to the rate."""
        return WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * link.rate / self.fastest

    def color(self, link: Link) -> tuple[float, ...]:
        """Darker is faster."""
        return tuple(self.colors(0.25 + 0.75 * link.rate / self.fastest))


def check_path(path: Path) -> Path:
    """Refuses a picture that could not be written."""
    if path.suffix.removeprefix(".") not in PICTURES:
        endings = ", ".join(f".{ending}" for ending in PICTURES)
        raise ConfigError("--picture", str(path), f"end the name with one of {endings}")
    if not path.parent.is_dir():
        raise ConfigError("--picture", str(path), f"there is no folder {path.parent}")
    return path


def draw(wan: Wan, path: Path, note: str = "") -> None:
    """Draws the WAN as it is at t = 0.

    Sites lie at their positions if all have one, else on a circle; the scheduler's own site is a
    square, below the map if it has no position. A link bends to the right of
    its direction; its width is in proportion to its rate. Up to 30 directed links carry rate and
    one-way delay; a WAN with more links and few centers gets a table beside the drawing instead.

    Args:
      wan: what to draw.
      path: a PNG, SVG or PDF file, written anew.
      note: a line below the title.
    """
    check_path(path)
    table = len(wan.links) > LABELLED_LINKS and len(wan.centers) <= MATRIX_CENTERS
    figure = new_figure(19 if table else 10, 9)
    left, *right = figure.subplots(1, 2 if table else 1, squeeze=False)[0]
    style = _Style(max((link.rate for link in wan.links), default=1.0), mpl.colormaps["Blues"])
    cluster = place_sites(wan)
    if len(wan.centers) > NAMED_CENTERS:
        _draw_many(left, wan, cluster, style)
    else:
        _draw_few(left, wan, cluster, style)
    as_map(left)
    told = [_title(wan), *([note] if note else [])]
    if len(wan.links) <= LABELLED_LINKS and len(wan.centers) <= NAMED_CENTERS and wan.links:
        told.append("on each directed link: rate in Mbit/s, one-way delay in ms (half its rtt)")
    left.set_title("\n".join(told), fontsize=11)
    for axes in right:
        _matrix(axes, wan, style)
    save(figure, path, wan.name)


def _title(wan: Wan) -> str:
    scales = [
        f"{name} {value:g}"
        for name, value in (
            ("bandwidth_scale", wan.bandwidth_scale),
            ("delay_scale", wan.delay_scale),
        )
        if value != 1
    ]
    homes = "servers" if wan.global_servers else "scheduler"
    site = [f"{homes} in {wan.server_center}"] if wan.has_external else []
    count = len(wan.centers) - len(site)
    parts = [f"{count} centers", *site, f"{len(wan.links)} directed links", *scales]
    return f"{wan.name}: {', '.join(parts)}"


def _draw_few(axes: Axes, wan: Wan, cluster: dict[str, Point], style: _Style) -> None:
    labelled = len(wan.links) <= LABELLED_LINKS
    for link in sorted(wan.links, key=lambda link: link.rate):
        start, end = cluster[link.source], cluster[link.target]
        arrow(
            axes,
            start,
            end,
            linewidth=style.width(link),
            color=style.color(link),
            zorder=1 + link.rate / style.fastest,
        )
        if labelled:
            _label(axes, link, start, end)
    for center in wan.centers:
        x, y = cluster[center.name]
        marker = "o" if center.workers else "s"  # a site without workers is a square
        axes.scatter([x], [y], s=850, marker=marker, color="white", edgecolor="black", zorder=4)
        axes.text(x, y, center.name, ha="center", va="center", fontsize=9, zorder=6, bbox=BOX)
        caps = [
            f"{direction} {cap / MBIT:.4g}"
            for direction, cap in (("out", center.egress), ("in", center.ingress))
            if cap is not None
        ]
        if caps:
            axes.annotate(
                "caps " + ", ".join(caps),
                (x, y),
                xytext=(0, -21),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                zorder=5,
                bbox=BOX,
            )
    axes.plot([-1, 1], [-1, 1], alpha=0)  # arrows do not count towards the limits


def _label(axes: Axes, link: Link, start: Point, end: Point) -> None:
    """Rate (Mbit/s) and one-way delay on the bent link, nearer to its start than to its end."""
    x, y = on_arrow(start, end, 0.36)
    text = f"{link.rate / MBIT:.4g}\n{link.delay * 1e3:.3g} ms"
    if link.jitter:
        text += f" ±{link.jitter * 1e3:.2g}"
    if link.loss:
        text += f"\n{link.loss:.2g} lost"
    axes.text(x, y, text, ha="center", va="center", fontsize=7, zorder=3, bbox=BOX)


def _draw_many(axes: Axes, wan: Wan, cluster: dict[str, Point], style: _Style) -> None:
    links = sorted(wan.links, key=lambda link: link.rate)
    axes.add_collection(
        LineCollection(
            [[cluster[link.source], cluster[link.target]] for link in links],
            linewidths=[style.width(link) / 4 for link in links],
            colors=[style.color(link) for link in links],
        )
    )
    xs, ys = zip(*cluster.values(), strict=True)
    axes.scatter(xs, ys, s=6, color="black", zorder=3)


def _matrix(axes: Axes, wan: Wan, style: _Style) -> None:
    """Rates (Mbit/s) and, below each, round-trip times (ms): rows send, columns receive."""
    names = wan.center_names
    links = {link.edge: link for link in wan.links}
    size = 9 if len(names) <= 10 else 7
    rates = np.full((len(names), len(names)), np.nan)
    for row, source in enumerate(names):
        for column, target in enumerate(names):
            link, back = links.get((source, target)), links.get((target, source))
            if link is None:
                continue
            rates[row, column] = link.rate
            text = f"{link.rate / MBIT:.4g}"
            if back is not None:
                text += f"\n{(link.delay + back.delay) * 1e3:.3g}"
            color = "white" if link.rate > 0.6 * style.fastest else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
    norm = Normalize(-style.fastest / 3, style.fastest)
    axes.imshow(rates, cmap=style.colors, norm=norm)
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_title("rate in Mbit/s, below it rtt in ms; rows send, columns receive", fontsize=11)
