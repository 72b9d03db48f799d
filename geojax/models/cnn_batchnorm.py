"""A small CNN with every kind of leaf that a model can have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn


class CnnBatchNorm(nn.Module):
    """Two blocks of Conv 3×3, BatchNorm, ReLU, then the spatial mean and Dense ``classes``.

    Beside its parameters it has float state that centers average (collection ``batch_stats``) and
    an integer that stays where it is (``counters/batches``: training batches seen).
    """

    classes: int = 10

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits (batch, classes) of images (batch, height, width, channels)."""
        batches = self.variable("counters", "batches", lambda: jnp.zeros((), jnp.int32))
        if train:
            batches.value += 1
        hidden = images
        for features, stride in ((8, 1), (16, 2)):
            hidden = nn.Conv(features, (3, 3), strides=stride, use_bias=False)(hidden)
            hidden = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(hidden))
        return nn.Dense(self.classes)(hidden.mean(axis=(1, 2)))
