"""What a partition did: samples, labels and skew of every worker, and of its devices."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase  # EMNIST's order
COLUMNS = 20  # most classes that have a column each


class Share(NamedTuple):
    """One worker's part in numbers."""

    worker: str
    samples: int
    labels: list[int]  # samples of each class
    entropy: float  # of the label mix, nats; at most ln(classes)
    distance: float  # total variation to the whole set's label mix: 0 same, 1 disjoint


class FleetShares(NamedTuple):
    """One worker's devices in numbers."""

    worker: str
    devices: int
    fewest: int  # samples of a device
    mean: float
    most: int
    classes: float  # different ones that a device holds, mean over devices
    distance: float  # total variation to the whole set's label mix, mean weighted by samples
    writers: int  # different ones, of all its devices; 0: unknown


def describe_devices(
    devices: Mapping[str, Sequence[np.ndarray]],
    labels: np.ndarray,
    classes: int,
    groups: np.ndarray | None = None,
) -> list[FleetShares]:
    """Counts what the devices of every worker hold.

    Args:
      devices: for every worker, positions in ``labels`` of each device's samples.
      labels: integer class of every sample.
      classes: number of classes.
      groups: writer of every sample, if known.

    >>> parts = {"a/w0": [np.array([0, 1]), np.array([2])]}
    >>> describe_devices(parts, np.array([0, 0, 1]), 2)[0][:6]
    ('a/w0', 2, 1, 1.5, 2, 1.0)
    """
    whole = _mix(np.bincount(labels, minlength=classes))
    described = []
    for worker, parts in devices.items():
        counts = np.array([np.bincount(labels[part], minlength=classes) for part in parts])
        sizes = counts.sum(axis=1)
        distances = np.abs(counts / sizes[:, None] - whole).sum(axis=1) / 2
        every = np.concatenate(list(parts))
        described.append(
            FleetShares(
                worker=worker,
                devices=len(parts),
                fewest=int(sizes.min()),
                mean=float(sizes.mean()),
                most=int(sizes.max()),
                classes=float((counts > 0).sum(axis=1).mean()),
                distance=float(np.average(distances, weights=sizes)),
                writers=0 if groups is None else len(np.unique(groups[every])),
            )
        )
    return described


def devices_table(described: list[FleetShares], title: str) -> Table:
    """The devices as a table, one row a worker."""
    view = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1), show_edge=False
    )
    view.add_column("worker", no_wrap=True)
    for name in ("devices", "fewest", "mean", "most", "classes", "distance", "writers"):
        view.add_column(name, justify="right", no_wrap=True)
    for part in described:
        numbers = [part.fewest, f"{part.mean:.1f}", part.most, f"{part.classes:.1f}"]
        cells = [part.devices, *numbers, f"{part.distance:.3f}", part.writers or "?"]
        view.add_row(part.worker, *map(str, cells))
    view.caption = (
        "\nfewest, mean, most: samples of a device; classes: that a device holds, on average"
        "\ndistance: total variation of a device's mix to that of all, mean weighted by samples"
    )
    view.caption_justify = "left"
    return view


def class_shares(labels: np.ndarray, classes: int) -> dict[str, float]:
    """Share of the samples that each class has; EMNIST's 62 classes by their characters.

    Of 62 classes the shares of digits, capitals and small letters come first.

    >>> class_shares(np.array([0, 0, 1, 0]), 2)
    {'0': 0.75, '1': 0.25}
    >>> list(class_shares(np.arange(62), 62))[:5]
    ['digits', 'capitals', 'small letters', '0', '1']
    """
    shares = _mix(np.bincount(labels, minlength=classes)).tolist()
    if classes != len(CHARACTERS):
        return {str(number): share for number, share in enumerate(shares)}
    kinds = {"digits": shares[:10], "capitals": shares[10:36], "small letters": shares[36:]}
    whole = {kind: float(np.sum(some)) for kind, some in kinds.items()}
    return whole | dict(zip(CHARACTERS, shares, strict=True))


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
    """The parts as a table, one row a worker and one for all of them.

    Of more than :data:`COLUMNS` classes it shows only how many a worker holds.
    """
    labels = np.array([part.labels for part in described])
    every = labels.shape[1] <= COLUMNS
    sizes = np.array([part.samples for part in described])
    view = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    view.add_column("worker", no_wrap=True)
    view.add_column("samples", justify="right", no_wrap=True)
    for label in range(labels.shape[1]) if every else ["classes"]:
        view.add_column(str(label), justify="right", no_wrap=True)
    view.add_column("entropy", justify="right", no_wrap=True)
    view.add_column("distance", justify="right", no_wrap=True)
    for part in described:
        view.add_row(
            part.worker,
            str(part.samples),
            *_cells(np.array(part.labels), every),
            f"{part.entropy:.3f}",
            f"{part.distance:.3f}",
        )
    view.add_section()
    view.add_row(
        "all",
        str(sizes.sum()),
        *_cells(labels.sum(axis=0), every),
        f"{np.average([part.entropy for part in described], weights=sizes):.3f}",
        f"{np.average([part.distance for part in described], weights=sizes):.3f}",
    )
    view.caption = (
        f"\n{'0, 1, …: samples of that class' if every else 'classes: that it holds'}; "
        "all: means weighted by samples"
        f"\nentropy: of a worker's label mix, nats, at most {np.log(labels.shape[1]):.3f}"
        "\ndistance: total variation to the mix of all, 0 (same) to 1 (disjoint)"
    )
    view.caption_justify = "left"
    return view


def _mix(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum()


def _cells(counts: np.ndarray, every: bool) -> list[Text]:
    return [_count(count) for count in counts] if every else [_count(int((counts > 0).sum()))]


def _count(count: int) -> Text:
    return Text(str(count)) if count else Text("·", style="dim")
