"""A CNN that a CPU trains quickly."""

from __future__ import annotations

import jax
from flax import linen as nn

from geojax.models.cpu_forms import convolve
from geojax.models.staged import StagedModule

_CONVOLUTIONS = ((8, 5), (16, 3))  # features, kernel side


class SmallCnn(StagedModule):
    """Conv 8@5×5 and Conv 16@3×3, both of stride 2 in place of pools, then Dense; ReLU between.

    For sweeps of many runs, as of federated algorithms on many clients. On 28 × 28 × 1 images it
    has 208 + 1,168 + 784 ``classes`` + ``classes`` parameters: 9,226 for ten classes. A stage per
    layer: three.

    Attributes:
      classes: number of classes.
    """

    classes: int = 10

    @property
    def stages(self) -> int:
        """Two convolutions and a dense layer."""
        return len(_CONVOLUTIONS) + 1

    @nn.compact
    def stage(self, index: int, hidden: jax.Array, *, train: bool = False) -> jax.Array:
        """See :class:`geojax.models.staged.StagedModule`."""
        del train  # the same in training and evaluation
        if index == len(_CONVOLUTIONS):
            flat = hidden.reshape((hidden.shape[0], -1))
            return nn.Dense(self.classes, name="Dense_0")(flat)
        features, side = _CONVOLUTIONS[index]
        convolution = nn.Conv(
            features, (side, side), strides=2, conv_general_dilated=convolve, name=f"Conv_{index}"
        )
        return nn.relu(convolution(hidden))
