"""Small stand-ins for the published files of MNIST and Fashion-MNIST, and shared checks."""

import hashlib
import struct

import numpy as np

from geojax.data.idx import IdxArray


def idx_bytes(array):
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def small_set(files):
    """Arrays of a few samples, and the descriptions of ``files`` changed to fit them."""
    generator = np.random.default_rng(0)
    shapes = [(30, 28, 28), (30,), (10, 28, 28), (10,)]
    arrays = [generator.integers(0, 10, shape, np.uint8) for shape in shapes]
    small = [
        IdxArray(item.file, array.shape, hashlib.sha256(array.tobytes()).hexdigest())
        for item, array in zip(files, arrays, strict=True)
    ]
    return small, arrays


def assert_sound(data, train, test, shape):
    assert data.train_x.shape == (train, *shape)
    assert data.test_x.shape == (test, *shape)
    for images, labels in ((data.train_x, data.train_y), (data.test_x, data.test_y)):
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        assert images.min() == 0
        assert images.max() == 1
        assert labels.dtype == np.int32
        assert labels.shape == images.shape[:1]
        assert set(labels) == set(range(data.classes))
