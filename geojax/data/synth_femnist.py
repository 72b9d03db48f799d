"""SynthFEMNIST: a set in the shape of FEMNIST, drawn by this program. It is not FEMNIST.

62 classes, images of 28x28, many writers with hands of their own (:mod:`geojax.data.handwriting`)
and their own mix of classes (:mod:`geojax.data.label_mixture`), for comparing algorithms where
FEMNIST cannot be had. How far writers differ is calibrated on MNIST's digits with their real
writers; letters have no such reference. **Never print its accuracies beside published figures of
FEMNIST.** What was measured stands in docs/fedgs.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from geojax.config import DataConfig
from geojax.data.dataset import DATASETS, Stored
from geojax.data.handwriting import Draws, new_hand, write
from geojax.data.kept import Arrays, kept
from geojax.data.label_mixture import CLASSES, SIZES, mean_shares, writer_groups, writer_shares
from geojax.data.streams import stream
from geojax.settings import key

VERSION = 1  # of what is drawn: a change of the program that changes an image raises it
LEAST, MOST = 20, 470  # samples of a writer, at size 1
SPREAD = (0.13, 0.07)  # deviation of a writer's number of samples, relative, in the two groups
_TEST_WRITERS_FROM = 2**20  # their numbers, so that no training writer is among them


@dataclass
class SynthFemnistConfig(DataConfig):
    """Keys of ``data=synth_femnist``."""

    name: str = "synth_femnist"
    writers: int = key(364, "who wrote the training samples", least=1, most=_TEST_WRITERS_FROM)
    test_writers: int = key(36, "other ones, who wrote the test samples", least=1)
    seed: int = key(0, "of the data; runs of any seed share it", least=0, below=2**32)
    style: float = key(1.0, "how far writers differ; 1: as MNIST's do; 0: not at all", least=0)
    label_alpha: float | None = key(
        None, "concentration of writers' classes: Dirichlet(62·alpha·mean); null: as FEMNIST's "
        "mixture has them", least=0.001,
    )  # fmt: skip
    size: float = key(1.0, "factor of every writer's number of samples, 227 on average", above=0)


@DATASETS.register("synth_femnist", SynthFemnistConfig)
def synth_femnist(config: SynthFemnistConfig) -> Stored:
    """Draws the set, or takes it from the cache: 85,000 + 8,000 images, 73 MB, by default.

    Samples stand writer by writer; paper is 0 and ink 1, as in MNIST (LEAF's FEMNIST: the reverse).
    Images are the same bytes on every machine. Classes of samples rest on NumPy's gamma draws,
    which a later NumPy may change; so its version is part of what the cache goes by.

    Raises:
      DataError: the package of strokes is missing, or the cache is damaged or cannot be written.
    """
    drawn = ("writers", "test_writers", "seed", "style", "label_alpha", "size")
    made_of = {name: getattr(config, name) for name in drawn}
    made_of |= {"version": VERSION, "numpy": np.__version__}
    arrays = kept("synth-femnist", made_of, lambda: draw(config))
    order = "train_x", "train_y", "test_x", "test_y"
    return Stored(
        *(arrays[name] for name in order),
        classes=CLASSES,
        largest=255,
        train_groups=arrays["train_writer"],
    )


def draw(config: SynthFemnistConfig) -> Arrays:
    """The arrays, always drawn anew: images uint8, classes uint8, writers int32."""
    train = [_samples(config, writer) for writer in range(config.writers)]
    last = _TEST_WRITERS_FROM + config.test_writers
    test = [_samples(config, writer) for writer in range(_TEST_WRITERS_FROM, last)]
    sizes = [len(labels) for _, labels in train]
    return {
        "train_x": np.concatenate([images for images, _ in train]),
        "train_y": np.concatenate([labels for _, labels in train]),
        "train_writer": np.repeat(np.arange(config.writers, dtype=np.int32), sizes),
        "test_x": np.concatenate([images for images, _ in test]),
        "test_y": np.concatenate([labels for _, labels in test]),
    }


def _samples(config: SynthFemnistConfig, writer: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and classes of one writer; they depend on its number, not on how many there are."""

    def draws(what: int) -> np.random.Generator:
        return stream("handwriting", config.seed, writer, what)

    generator = draws(0)
    group = writer_groups(1, generator)
    if config.label_alpha is None:
        shares = writer_shares(group, generator)[0]
    else:
        shares = generator.standard_gamma(CLASSES * config.label_alpha * mean_shares())
    exact = Draws(draws(1))
    usual = SIZES[group[0]] * (1 + SPREAD[group[0]] * float(exact.bell(1)[0]))
    count = max(round(config.size * min(max(usual, LEAST), MOST)), 1)
    ends = np.cumsum(shares)
    labels = np.searchsorted(ends, exact.uniform(count) * ends[-1], side="right")
    labels = np.minimum(labels, CLASSES - 1)
    hand = new_hand(Draws(draws(2)), config.style)
    return write(hand, labels, Draws(draws(3))), labels.astype(np.uint8)
