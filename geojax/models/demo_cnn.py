"""The CNN of the GeoMX demo."""

from __future__ import annotations

import jax
from flax import linen as nn

_XAVIER = nn.initializers.xavier_uniform()


class DemoCnn(nn.Module):
    """Conv 16@5×5, pool, Conv 32@5×5, pool, Dense 256, 128, ``classes``; ReLU between, no padding.

    On 28 × 28 × 1 images of ten classes it has 178,762 parameters in ten arrays of 400, 16, 12,800,
    32, 131,072, 256, 32,768, 128, 1,280 and 10 elements, as in the examples of GeoMX (Li et al.,
    2023). Weights start uniform after Glorot and Bengio (2010), biases at zero.
    """

    classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits (batch, classes) of images (batch, height, width, channels)."""
        del train  # the same in training and evaluation
        hidden = images
        for features in (16, 32):
            hidden = nn.Conv(features, (5, 5), padding="VALID", kernel_init=_XAVIER)(hidden)
            hidden = nn.max_pool(nn.relu(hidden), (2, 2), strides=(2, 2))
        hidden = hidden.reshape((hidden.shape[0], -1))
        for features in (256, 128):
            hidden = nn.relu(nn.Dense(features, kernel_init=_XAVIER)(hidden))
        return nn.Dense(self.classes, kernel_init=_XAVIER)(hidden)
