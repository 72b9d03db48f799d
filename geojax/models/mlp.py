"""A multi-layer perceptron."""

from __future__ import annotations

import jax
from flax import linen as nn

from geojax.models.staged import StagedModule


class Mlp(StagedModule):
    """Dense, ReLU, dropout for every hidden layer, then Dense ``classes``; a stage per dense layer.

    Samples of any shape are flattened.

    Attributes:
      classes: number of outputs.
      hidden: widths of the hidden layers.
      dropout: share of a hidden layer's outputs that a training step drops.
    """

    classes: int = 10
    hidden: tuple[int, ...] = (64,)
    dropout: float = 0.0

    @property
    def stages(self) -> int:
        """The hidden layers and the last one."""
        return len(self.hidden) + 1

    @nn.compact
    def stage(self, index: int, hidden: jax.Array, *, train: bool = False) -> jax.Array:
        """See :class:`geojax.models.staged.StagedModule`."""
        features = (*self.hidden, self.classes)[index]
        flat = hidden.reshape((hidden.shape[0], -1))
        out = nn.Dense(features, name=f"Dense_{index}")(flat)
        if index == len(self.hidden):
            return out
        drop = nn.Dropout(self.dropout, deterministic=not train, name=f"Dropout_{index}")
        return drop(nn.relu(out))
