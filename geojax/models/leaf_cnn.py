"""LEAF's CNN for FEMNIST."""

from __future__ import annotations

import jax
from flax import linen as nn

from geojax.models.cpu_forms import convolve, max_pool
from geojax.models.staged import StagedModule

_XAVIER = nn.initializers.xavier_uniform()
_CONVOLUTIONS = (32, 64)


class LeafCnn(StagedModule):
    """Conv 32@5×5, pool, Conv 64@5×5, pool, Dense 2048, ``classes``; ReLU between, same padding.

    The model that LEAF (Caldas et al., 2018) trains on FEMNIST, also FedGS's. On 28 × 28 × 1 images
    of 62 classes it has 832 + 51,264 + 6,424,576 + 127,038 = 6,603,710 parameters, 97 % of them in
    the first dense layer; of ten classes (Fashion-MNIST) 6,497,162. Weights start uniform after
    Glorot and Bengio (2010), TensorFlow's default, biases at zero. A stage per convolution (with
    its pool) and per dense layer: four.

    Attributes:
      classes: number of classes.
      hidden: width of the hidden dense layer.
    """

    classes: int = 62
    hidden: int = 2048

    @property
    def stages(self) -> int:
        """Two convolutions and two dense layers."""
        return len(_CONVOLUTIONS) + 2

    @nn.compact
    def stage(self, index: int, hidden: jax.Array, *, train: bool = False) -> jax.Array:
        """See :class:`geojax.models.staged.StagedModule`."""
        del train  # the same in training and evaluation
        if index < len(_CONVOLUTIONS):
            name = f"Conv_{index}"
            convolution = nn.Conv(
                _CONVOLUTIONS[index], (5, 5), kernel_init=_XAVIER, conv_general_dilated=convolve,
                name=name,
            )  # fmt: skip
            return max_pool(nn.relu(convolution(hidden)))
        if index == len(_CONVOLUTIONS):
            flat = hidden.reshape((hidden.shape[0], -1))
            return nn.relu(nn.Dense(self.hidden, kernel_init=_XAVIER, name="Dense_0")(flat))
        return nn.Dense(self.classes, kernel_init=_XAVIER, name="Dense_1")(hidden)
