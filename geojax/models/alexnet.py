"""AlexNet for small images."""

from __future__ import annotations

import jax
from flax import linen as nn

from geojax.models.cpu_forms import max_pool
from geojax.models.staged import StagedModule

_HE = nn.initializers.he_normal()
_CONVOLUTIONS = (  # features, kernel side, stride, followed by a pool
    (64, 3, 2, True),
    (192, 5, 1, True),
    (384, 3, 1, False),
    (256, 3, 1, False),
    (256, 3, 1, True),
)


class AlexNet(StagedModule):
    """Five convolutions, three of them pooled, then Dense 4096, 4096, ``classes``; ReLU between.

    The widths are those of Krizhevsky's one-column AlexNet (*One weird trick for parallelizing
    convolutional neural networks*, 2014): 64, 192, 384, 256, 256 features, kernels of 5×5 in the
    second layer and 3×3 after it, dense layers of 4096. For images of 28 or 32 pixels, where the
    original takes 224, the first layer is 3×3 with stride 2 in place of 11×11 with stride 4, and
    pools are 2×2 in place of overlapping 3×3.

    Parameters: 20,321,994 on 28 × 28 × 1 images of ten classes, 23,468,874 on 32 × 32 × 3. Weights
    start normal after He et al. (2015), biases at zero. A stage per layer: eight. The three
    dense ones hold 88 % of the bytes, the convolutions do 66 % of the work.

    Attributes:
      classes: number of classes.
      hidden: widths of the hidden dense layers.
      dropout: share of a hidden dense layer's outputs that a training step drops; the original's
        is 0.5.
    """

    classes: int = 10
    hidden: tuple[int, ...] = (4096, 4096)
    dropout: float = 0.0

    @property
    def stages(self) -> int:
        """Five convolutions and three dense layers."""
        return len(_CONVOLUTIONS) + len(self.hidden) + 1

    @nn.compact
    def stage(self, index: int, hidden: jax.Array, *, train: bool = False) -> jax.Array:
        """See :class:`geojax.models.staged.StagedModule`."""
        if index < len(_CONVOLUTIONS):
            features, side, stride, pooled = _CONVOLUTIONS[index]
            convolution = nn.Conv(
                features, (side, side), strides=stride, kernel_init=_HE, name=f"Conv_{index}"
            )
            out = nn.relu(convolution(hidden))
            return max_pool(out) if pooled else out
        number = index - len(_CONVOLUTIONS)
        features = (*self.hidden, self.classes)[number]
        flat = hidden.reshape((hidden.shape[0], -1))
        out = nn.Dense(features, kernel_init=_HE, name=f"Dense_{number}")(flat)
        if number == len(self.hidden):
            return out
        drop = nn.Dropout(self.dropout, deterministic=not train, name=f"Dropout_{number}")
        return drop(nn.relu(out))
