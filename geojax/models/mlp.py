"""A multi-layer perceptron."""

from __future__ import annotations

import jax
from flax import linen as nn


class Mlp(nn.Module):
    """Dense ``hidden``, ReLU, Dense ``classes``, on images of any size.

    Attributes:
      classes: number of classes.
      hidden: width of the hidden layer.
    """

    classes: int = 10
    hidden: int = 64

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits (batch, classes) of images (batch, height, width, channels)."""
        del train  # the same in training and evaluation
        flat = images.reshape((images.shape[0], -1))
        hidden = nn.relu(nn.Dense(self.hidden)(flat))
        return nn.Dense(self.classes)(hidden)
