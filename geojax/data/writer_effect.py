"""How much alike the images of one writer are, compared with those of two."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from geojax.data.streams import stream

DIGITS = 10  # the first classes, which MNIST and FEMNIST share
PAIRS = 2000  # of each class and kind
_BLUR = np.array([1, 4, 6, 4, 1], np.float32) / 16  # a deviation of one pixel


class WriterEffect(NamedTuple):
    """Mean squared distances of two blurred images of a class; pixels from 0 to 1."""

    same: float  # by one writer
    different: float  # by two writers

    @property
    def ratio(self) -> float:
        """1: images of a writer are no more alike than others; 0: they are all the same."""
        return self.same / self.different


def writer_effect(images: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> WriterEffect:
    """Distances within and between writers, mean over digits.

    Images are blurred first (binomial, of one pixel's deviation), so that strokes which lie beside
    each other count as nearly equal. Pairs are drawn with a fixed seed, of one writer: from all
    neighbors of a random order of each writer's images.

    Args:
      images: float32 (samples, height, width, 1), from 0 to 1.
      labels: classes, integers (samples,).
      groups: writers, integers (samples,).
    """
    same, different = [], []
    for digit in range(DIGITS):
        draws = stream("subset", 0, digit)
        own = draws.permutation(np.flatnonzero(labels == digit))
        own = own[np.argsort(groups[own], kind="stable")]
        first, second = own[:-1], own[1:]
        alike = np.flatnonzero(groups[first] == groups[second])
        chosen = draws.permutation(alike)[:PAIRS]
        mixed = draws.permutation(own)
        one, other = mixed[:-1], mixed[1:]
        unlike = np.flatnonzero(groups[one] != groups[other])[:PAIRS]
        if len(chosen) and len(unlike):
            same.append(_distance(images[first[chosen]], images[second[chosen]]))
            different.append(_distance(images[one[unlike]], images[other[unlike]]))
    return WriterEffect(float(np.mean(same)), float(np.mean(different)))


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    gap = _blurred(one[..., 0] - other[..., 0])
    return float((gap * gap).sum(axis=(1, 2)).mean())


def _blurred(images: np.ndarray) -> np.ndarray:
    """Images after the binomial filter, paper around them."""
    for axis in (1, 2):
        widths = [(2, 2) if at == axis else (0, 0) for at in range(3)]
        wide, length = np.pad(images, widths), images.shape[axis]
        images = np.zeros_like(images)
        for start, weight in enumerate(_BLUR):
            images += weight * np.take(wide, range(start, start + length), axis=axis)
    return images
