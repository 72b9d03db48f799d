"""How alike a writer's images are: against plain loops, and at its two ends."""

import numpy as np
import pytest
from scipy.ndimage import convolve1d

from geojax.data.writer_effect import writer_effect

DRAWS = np.random.default_rng(0)


def plain(images, labels, groups):
    """All pairs of every digit, one by one."""
    kernel = np.array([1, 4, 6, 4, 1]) / 16
    blurred = images[..., 0]
    for axis in (1, 2):
        blurred = convolve1d(blurred, kernel, axis=axis, mode="constant")
    same, different = [], []
    for digit in range(10):
        own = np.flatnonzero(labels == digit)
        found = {True: [], False: []}
        for place, i in enumerate(own):
            for j in own[:place]:
                gap = ((blurred[i] - blurred[j]) ** 2).sum()
                found[groups[i] == groups[j]].append(gap)
        same.append(np.mean(found[True]))
        different.append(np.mean(found[False]))
    return np.mean(same), np.mean(different)


def test_it_is_what_all_pairs_say():
    labels, groups = np.repeat(np.arange(10), 60), np.tile(np.arange(6), 100)
    style = DRAWS.random((6, 9, 9, 1))
    images = (style[groups] + 0.7 * DRAWS.random((600, 9, 9, 1))).astype(np.float32)
    found = writer_effect(images, labels, groups)
    same, different = plain(images, labels, groups)
    assert found.same == pytest.approx(same, rel=0.05)
    assert found.different == pytest.approx(different, rel=0.05)
    assert found.ratio == found.same / found.different


def test_writers_who_do_not_differ_and_writers_who_never_vary():
    labels, groups = np.repeat(np.arange(10), 40), np.tile(np.arange(4), 100)
    noise = DRAWS.random((400, 8, 8, 1)).astype(np.float32)
    assert writer_effect(noise, labels, groups).ratio == pytest.approx(1, abs=0.1)
    assert writer_effect(noise[:4][groups], labels, groups).ratio == 0
