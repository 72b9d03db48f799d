"""ResNet-18 for small images, with GroupNorm or BatchNorm."""

from __future__ import annotations

import jax
from flax import linen as nn

from geojax.models.staged import StagedModule

_HE = nn.initializers.he_normal()
_GROUPS = 32  # of channels, as in Wu and He (2018)


def _normalize(hidden: jax.Array, norm: str, name: str, *, train: bool) -> jax.Array:
    if norm == "batch":
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, name=name)(hidden)
    return nn.GroupNorm(num_groups=_GROUPS, name=name)(hidden)


class Block(nn.Module):
    """Conv 3×3, norm, ReLU, Conv 3×3, norm, plus the input, ReLU.

    Where the size changes, the input goes through Conv 1×1 and a norm of its own.

    Attributes:
      features: channels of the output.
      stride: of the first convolution.
      norm: ``group`` or ``batch``.
    """

    features: int
    stride: int
    norm: str

    @nn.compact
    def __call__(self, hidden: jax.Array, *, train: bool = False) -> jax.Array:
        """(batch, height ÷ stride, width ÷ stride, features) of (batch, height, width, any)."""

        def convolved(
            given: jax.Array, kernel: int, stride: int, number: int, *, active: bool
        ) -> jax.Array:
            out = nn.Conv(
                self.features, (kernel, kernel), strides=stride, use_bias=False,
                kernel_init=_HE, name=f"Conv_{number}",
            )(given)  # fmt: skip
            out = _normalize(out, self.norm, f"Norm_{number}", train=train)
            return nn.relu(out) if active else out

        out = convolved(hidden, 3, self.stride, 0, active=True)
        out = convolved(out, 3, 1, 1, active=False)
        if hidden.shape != out.shape:
            hidden = convolved(hidden, 1, self.stride, 2, active=False)
        return nn.relu(hidden + out)


class ResNet(StagedModule):
    """Conv 3×3, norm, ReLU, groups of residual blocks, the spatial mean, Dense ``classes``.

    With the defaults it is ResNet-18 of the first version (He et al., CVPR 2016: the norm after
    each convolution, projections where the size changes) with the stem that is usual for images of
    28 or 32 pixels: 3×3 with stride 1 and no pool, in place of 7×7 with stride 2 and a pool. It has
    11,173,962 parameters on 32 × 32 × 3 images of ten classes and 11,172,810 on 28 × 28 × 1, with
    either norm; BatchNorm adds 9,600 elements of float state. GroupNorm (Wu and He, ECCV 2018, 32
    groups) is the default because statistics of a batch suffer when centers' data differ (Hsieh et
    al., ICML 2020). Weights start normal after He et al. (2015). A stage for the stem, one per
    block and one for the dense layer: ten.

    Attributes:
      classes: number of classes.
      norm: ``group`` or ``batch``.
      blocks: residual blocks of each group; a group halves the image and doubles the channels,
        but the first.
      width: channels of the first group; a multiple of 32 with GroupNorm.
    """

    classes: int = 10
    norm: str = "group"
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    width: int = 64

    @property
    def stages(self) -> int:
        """The stem, the blocks and the dense layer."""
        return sum(self.blocks) + 2

    @nn.compact
    def stage(self, index: int, hidden: jax.Array, *, train: bool = False) -> jax.Array:
        """See :class:`geojax.models.staged.StagedModule`."""
        if index == 0:
            stem = nn.Conv(self.width, (3, 3), use_bias=False, kernel_init=_HE, name="Conv_0")
            return nn.relu(_normalize(stem(hidden), self.norm, "Norm_0", train=train))
        if index == self.stages - 1:
            return nn.Dense(self.classes, name="Dense_0")(hidden.mean(axis=(1, 2)))
        group, number = self._blocks()[index - 1]
        stride = 2 if group and number == 0 else 1
        name = f"Block_{index - 1}"
        return Block(self.width * 2**group, stride, self.norm, name=name)(hidden, train=train)

    def _blocks(self) -> list[tuple[int, int]]:
        """Group of every block, and its number in the group."""
        return [
            (group, number) for group, count in enumerate(self.blocks) for number in range(count)
        ]
