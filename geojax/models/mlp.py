"""A multi-layer perceptron."""

from __future__ import annotations

import jax
from flax import linen as nn

from geojax.models.staged import StagedModule


class Mlp(StagedModule):
    """Dense ``hidden``, ReLU, Dense ``classes``, on images of any size; a stage per dense layer.

    Attributes:
      classes: number of classes.
      hidden: width of the hidden layer.
    """

    classes: int = 10
    hidden: int = 64

    @property
    def stages(self) -> int:
        """Two dense layers."""
        return 2

    @nn.compact
    def stage(self, index: int, hidden: jax.Array, *, train: bool = False) -> jax.Array:
        """See :class:`geojax.models.staged.StagedModule`."""
        del train  # the same in training and evaluation
        if index == 0:
            flat = hidden.reshape((hidden.shape[0], -1))
            return nn.relu(nn.Dense(self.hidden, name="Dense_0")(flat))
        return nn.Dense(self.classes, name="Dense_1")(hidden)
