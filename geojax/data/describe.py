"""What a partition did: samples, labels and skew of every worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text


class Share(NamedTuple):
    """One worker's part in numbers."""

    worker: str
    samples: int
    labels: list[int]  # samples of each class
    entropy: float  # of the label mix, nats; at most ln(classes)
    distance: float  # total variation to the whole set's label mix: 0 same, 1 disjoint


def describe(parts: Mapping[str, np.ndarray], labels: np.ndarray, classes: int) -> list[Share]:
    """Counts what every worker holds.

    Args:
      parts: positions in ``labels`` for every worker, as :func:`geojax.data.partition` gives.
      labels: integer class of every sample.
      classes: number of classes.

    >>> parts = {"a/w0": np.array([0, 1]), "b/w0": np.array([2, 3])}
    >>> [(p.worker, p.labels, p.distance) for p in describe(parts, np.array([0, 0, 1, 1]), 2)]
    [('a/w0', [2, 0], 0.5), ('b/w0', [0, 2], 0.5)]
    """
    whole = _mix(np.bincount(labels, minlength=classes))
    described = []
    for worker, part in parts.items():
        counts = np.bincount(labels[part], minlength=classes)
        mix = _mix(counts)
        held = mix[mix > 0]
        described.append(
            Share(
                worker=worker,
                samples=len(part),
                labels=counts.tolist(),
                entropy=float(-(held * np.log(held)).sum()) + 0.0,  # no negative zero
                distance=float(np.abs(mix - whole).sum() / 2),
            )
        )
    return described


def table(described: list[Share], title: str) -> Table:
    """The parts as a table, one row a worker and one for all of them."""
    labels = np.array([part.labels for part in described])
    sizes = np.array([part.samples for part in described])
    view = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    view.add_column("worker", no_wrap=True)
    view.add_column("samples", justify="right", no_wrap=True)
    for label in range(labels.shape[1]):
        view.add_column(str(label), justify="right", no_wrap=True)
    view.add_column("entropy", justify="right", no_wrap=True)
    view.add_column("distance", justify="right", no_wrap=True)
    for part in described:
        view.add_row(
            part.worker,
            str(part.samples),
            *(_count(count) for count in part.labels),
            f"{part.entropy:.3f}",
            f"{part.distance:.3f}",
        )
    view.add_section()
    view.add_row(
        "all",
        str(sizes.sum()),
        *(_count(count) for count in labels.sum(axis=0)),
        f"{np.average([part.entropy for part in described], weights=sizes):.3f}",
        f"{np.average([part.distance for part in described], weights=sizes):.3f}",
    )
    view.caption = (
        "\n0, 1, …: samples of that class; all: means weighted by samples"
        f"\nentropy: of a worker's label mix, nats, at most {np.log(labels.shape[1]):.3f}"
        "\ndistance: total variation to the mix of all, 0 (same) to 1 (disjoint)"
    )
    view.caption_justify = "left"
    return view


def _mix(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum()


def _count(count: int) -> Text:
    return Text(str(count)) if count else Text("·", style="dim")
