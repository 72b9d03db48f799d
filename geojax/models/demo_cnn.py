"""The CNN of the GeoMX demo."""

from __future__ import annotations

import jax
from flax import linen as nn

from geojax.models.cpu_forms import convolve, max_pool
from geojax.models.staged import StagedModule

_XAVIER = nn.initializers.xavier_uniform()
_CONVOLUTIONS = (16, 32)
_HIDDEN = (256, 128)


class DemoCnn(StagedModule):
    """Conv 16@5×5, pool, Conv 32@5×5, pool, Dense 256, 128, ``classes``; ReLU between, no padding.

    On 28 × 28 × 1 images of ten classes it has 178,762 parameters in ten arrays of 400, 16, 12,800,
    32, 131,072, 256, 32,768, 128, 1,280 and 10 elements, as in the examples of GeoMX (Li et al.,
    2023). Weights start uniform after Glorot and Bengio (2010), biases at zero. A stage per
    convolution (with its pool) and per dense layer: five.
    """

    classes: int = 10

    @property
    def stages(self) -> int:
        """Two convolutions and three dense layers."""
        return len(_CONVOLUTIONS) + len(_HIDDEN) + 1

    @nn.compact
    def stage(self, index: int, hidden: jax.Array, *, train: bool = False) -> jax.Array:
        """See :class:`geojax.models.staged.StagedModule`."""
        del train  # the same in training and evaluation
        if index < len(_CONVOLUTIONS):
            name = f"Conv_{index}"
            convolution = nn.Conv(
                _CONVOLUTIONS[index],
                (5, 5),
                padding="VALID",
                kernel_init=_XAVIER,
                conv_general_dilated=convolve,
                name=name,
            )
            return max_pool(nn.relu(convolution(hidden)))
        number = index - len(_CONVOLUTIONS)
        features = (*_HIDDEN, self.classes)[number]
        flat = hidden.reshape((hidden.shape[0], -1))
        out = nn.Dense(features, kernel_init=_XAVIER, name=f"Dense_{number}")(flat)
        return nn.relu(out) if number < len(_HIDDEN) else out
