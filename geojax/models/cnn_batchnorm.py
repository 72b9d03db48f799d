"""A small CNN with every kind of leaf that a model can have."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from geojax.models.staged import StagedModule

_BLOCKS = ((8, 1), (16, 2))  # features, stride


class CnnBatchNorm(StagedModule):
    """Two blocks of Conv 3×3, BatchNorm, ReLU, then the spatial mean and Dense ``classes``.

    Beside its parameters it has float state that centers average (collection ``batch_stats``) and
    an integer that stays where it is (``counters/batches``: training batches seen). A stage per
    block and one for the dense layer: three.
    """

    classes: int = 10

    @property
    def stages(self) -> int:
        """Two blocks and a dense layer."""
        return len(_BLOCKS) + 1

    @nn.compact
    def stage(self, index: int, hidden: jax.Array, *, train: bool = False) -> jax.Array:
        """See :class:`geojax.models.staged.StagedModule`."""
        if index == len(_BLOCKS):
            return nn.Dense(self.classes, name="Dense_0")(hidden.mean(axis=(1, 2)))
        if index == 0:
            batches = self.variable("counters", "batches", lambda: jnp.zeros((), jnp.int32))
            if train:
                batches.value += 1
        features, stride = _BLOCKS[index]
        convolution = nn.Conv(
            features, (3, 3), strides=stride, use_bias=False, name=f"Conv_{index}"
        )
        normalize = nn.BatchNorm(
            use_running_average=not train, momentum=0.9, name=f"BatchNorm_{index}"
        )
        return nn.relu(normalize(convolution(hidden)))
