"""Keys of JAX's random numbers, made by numpy.

JAX would compile several programs for one key, which takes longer than what a small model needs.
The hash is Threefry-2x32 with 20 rounds (Salmon et al., *Parallel random numbers: as easy as
1, 2, 3*, SC 2011), JAX's default.
"""

from __future__ import annotations

import numpy as np

_ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
_PARITY = 0x1BD11BDA
_BITS = 0xFFFFFFFF


def seed_key(seed: int) -> np.ndarray:
    """The data of ``jax.random.key(seed)``, uint32 (2,).

    >>> seed_key(7)
    array([0, 7], dtype=uint32)
    """
    return np.array([0, seed & _BITS], np.uint32)


def fold_in(key: np.ndarray, data: int) -> np.ndarray:
    """The data of ``jax.random.fold_in`` of a key's data, uint32 (2,)."""
    first, second = (int(word) for word in key)
    words = first, second, first ^ second ^ _PARITY
    x, y = first, (second + (data & _BITS)) & _BITS
    for number in range(5):
        for rotation in _ROTATIONS[number % 2]:
            x = (x + y) & _BITS
            y = (y << rotation | y >> (32 - rotation)) & _BITS ^ x
        x = (x + words[(number + 1) % 3]) & _BITS
        y = (y + words[(number + 2) % 3] + number + 1) & _BITS
    return np.array([x, y], np.uint32)


def worker_key(seed: int, worker_index: int) -> np.ndarray:
    """The start of all random numbers of a worker's steps, uint32 (2,)."""
    return fold_in(seed_key(seed), worker_index)
