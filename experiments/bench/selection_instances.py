"""Groups of devices to choose from: the instances that ``experiments.bench.selection`` solves.

Ten base stations, full batches of 32, of which ten devices are chosen. Every instance is one group
with fresh batches, drawn from the devices' data without putting back; where a device has less than
a batch (but half of one), the rest comes from its next epoch, as FedGS streams data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from geojax.data import label_mixture
from geojax.data.dataset import load_dataset
from geojax.data.mnist import MnistConfig
from geojax.data.partitions import PARTITIONS, DirichletConfig
from geojax.selection.choice import Choice
from geojax.selection.target import target_of

GROUPS, DEVICES, BATCH = 10, 10, 32  # M, L, n
SIZES = 31, 46  # smallest and largest group of the label mixture, those of the authors' run
DIRICHLET_DEVICES = 346  # in all; as many writers have 100 samples or more in the authors' data
MNIST_COUNTS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)  # training images

Instances = Iterator[Choice]


def label_mixture_instances(draws: np.random.Generator) -> Instances:
    """Writers of the 62-class label model, 31 to 46 in a group; new ones in every instance."""
    target = label_mixture.mean_shares()
    while True:
        size = int(draws.integers(SIZES[0], SIZES[1] + 1))
        groups = label_mixture.writer_groups(size, draws)
        counts = draws.multinomial(BATCH, label_mixture.writer_shares(groups, draws))
        yield Choice(counts.astype(np.float32), target, DEVICES, BATCH, draws)


def dirichlet_instances(alpha: float) -> Callable[[np.random.Generator], Instances]:
    """MNIST's labels in 346 parts of label skew ``alpha``; dealt anew for every ten groups.

    Parts of less than half a batch take no part.
    """
    labels = np.repeat(np.arange(len(MNIST_COUNTS)), MNIST_COUNTS)

    def instances(draws: np.random.Generator) -> Instances:
        while True:
            config = DirichletConfig(alpha=alpha)
            parts = PARTITIONS.build(config, labels, DIRICHLET_DEVICES, draws)
            yield from _groups(_class_counts(labels, parts), target_of(labels, 10), draws)

    return instances


def writer_instances(writers: str, path: str | None) -> Callable[[np.random.Generator], Instances]:
    """MNIST's training labels by writer; writers are put into groups anew for every ten.

    Args:
      writers: the file that says who wrote the images, see ``data.writers``.
      path: folder of MNIST; None: the usual places.

    Raises:
      ConfigError: there is no such file.
      DataError: it is cut short or is about other images, or MNIST is not here.
    """
    data = load_dataset(MnistConfig(path=path, writers=writers))
    assert data.train_groups is not None
    order = np.argsort(data.train_groups, kind="stable")
    starts = np.unique(data.train_groups[order], return_index=True)[1]
    counts = _class_counts(data.train_y, np.split(order, starts[1:]))
    target = target_of(data.train_y, data.classes)

    def instances(draws: np.random.Generator) -> Instances:
        while True:
            yield from _groups(counts, target, draws)

    return instances


def _class_counts(labels: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """Class counts of the parts that could stream full batches: int64 (parts, classes)."""
    classes = int(labels.max()) + 1
    kept = [part for part in parts if len(part) >= BATCH // 2]
    return np.stack([np.bincount(labels[part], minlength=classes) for part in kept])


def _groups(counts: np.ndarray, target: np.ndarray, draws: np.random.Generator) -> Instances:
    """Each holder goes to one of ten groups, independently; those with ten or more are yielded."""
    group_of = draws.integers(GROUPS, size=len(counts))
    for group in range(GROUPS):
        members = counts[group_of == group]
        if len(members) >= DEVICES:
            batches = np.stack([_next_batch(device, draws) for device in members])
            yield Choice(batches.astype(np.float32), target, DEVICES, BATCH, draws)


def _next_batch(counts: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Class counts of 32 samples out of ``counts``."""
    rest = BATCH - counts.sum()
    if rest <= 0:
        return draws.multivariate_hypergeometric(counts, BATCH)
    return counts + draws.multivariate_hypergeometric(counts, rest)
