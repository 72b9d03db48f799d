"""Pools and convolutions written in the forms that XLA computes quickly on a CPU.

XLA's own forms are slow there in three places, each of which cost a small CNN more than all the
rest of a step: the gradient of a pool (a scatter, element by element), a convolution of one input
channel (its patches are gathered number by number), and the gradient to the input of a convolution
without padding, which it computes for a larger image than there is.

Inside a loop (``jax.lax.scan``) they are slow in a fourth one. XLA brings the two convolutions of a
gradient into the layout of its fast kernels only where a program does not loop; in a loop's body
they are computed number by number, up to a hundred times as slowly. Here they are written in that
layout from the start, with barriers so that it stays (it does unless a convolution's output is
larger than its input). The gradient to the kernel has the bits of XLA's form outside a loop.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Pads = Sequence[tuple[int, int]]

FEW_FEATURES = 16  # with more, XLA's convolution of one channel is the faster form
_LAYOUT = ("NHWC", "HWIO", "NHWC")
MUCH_LARGER = 2  # an input's area ÷ its output's from which the gradient is scattered


# ---- pools


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """The largest of each 2×2 square, (b, h, w, c) -> (b, h // 2, w // 2, c).

    The same as ``flax.linen.max_pool(x, (2, 2), strides=(2, 2))`` to the last bit, and so is its
    gradient: of equal numbers the first gets it, row by row. On a CPU the gradient takes a tenth of
    the time, or less.
    """
    first, *others = _corners(x)
    return functools.reduce(jnp.maximum, others, first)


def _pooled(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    largest = max_pool(x)
    return largest, (x, largest)


def _unpooled(kept: tuple[jax.Array, jax.Array], slope: jax.Array) -> tuple[jax.Array]:
    x, largest = kept
    at = jnp.full(largest.shape, 4, jnp.int8)
    for number, corner in reversed(list(enumerate(_corners(x)))):
        at = jnp.where(corner == largest, jnp.int8(number), at)
    _, high, wide, _ = at.shape
    place = jnp.asarray(np.tile(np.array([[0, 1], [2, 3]], np.int8), (high, wide)))[..., None]
    made = jnp.where(_doubled(at) == place, _doubled(slope), jnp.zeros((), slope.dtype))
    rest = [(0, whole - part) for whole, part in zip(x.shape, made.shape, strict=True)]
    return (jnp.pad(made, rest),)


max_pool.defvjp(_pooled, _unpooled)


def _corners(x: jax.Array) -> list[jax.Array]:
    even = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return [even[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]


def _doubled(x: jax.Array) -> jax.Array:
    """Each number four times, as a 2×2 square."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


# ---- convolutions


def convolve(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: str | Pads, **options: Any
) -> jax.Array:
    """:func:`jax.lax.conv_general_dilated`, for ``nn.Conv(..., conv_general_dilated=convolve)``.

    On a CPU, and for strides of 1 or 2 without dilation, two parts take another form, with the same
    sums in another order: the output for one input channel and few features, and the gradient to
    an input that is much larger than its output. Other gradients have another layout alone.
    """
    own = functools.partial(jax.lax.conv_general_dilated, **options)
    if not _plain(x, kernel, strides, options):
        return own(x, kernel, strides, padding)
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    pads = tuple((int(before), int(after)) for before, after in padding)
    return _convolve(x, kernel, int(strides[0]), pads, own)


def _plain(x: jax.Array, kernel: jax.Array, strides: Sequence[int], options: Any) -> bool:
    """A convolution of images that :func:`_by_squares` can do."""
    dilated = [*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ())]
    layout = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, options.get("dimension_numbers"))
    return (
        x.ndim == 4
        and layout == jax.lax.conv_dimension_numbers(
            x.shape, kernel.shape, _LAYOUT
        )
        and set(strides) in ({1}, {2})
        and all(each == 1 for each in dilated)
        and options.get("feature_group_count", 1) == 1
    )  # fmt: skip


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(
    x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, own: Callable[..., jax.Array]
) -> jax.Array:
    def usual(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return own(x, kernel, (stride, stride), pads)

    if kernel.shape[2] > 1 or kernel.shape[3] > FEW_FEATURES:
        return usual(x, kernel)
    squares = functools.partial(_by_squares, stride=stride, pads=pads)
    return jax.lax.platform_dependent(x, kernel, cpu=squares, default=usual)


def _convolved(
    x: jax.Array, kernel: jax.Array, stride: int, pads: Pads, own: Callable[..., jax.Array]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel, stride, pads, own), (x, kernel)


def _gradients(
    stride: int, pads: Pads, own: Callable[..., jax.Array], kept: tuple[jax.Array, jax.Array],
    slope: jax.Array,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    x, kernel = kept

    def usual(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return own(x, kernel, (stride, stride), pads)

    def to_input(form: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[..., jax.Array]:
        return lambda x, kernel, slope: jax.linear_transpose(lambda x: form(x, kernel), x)(slope)[0]

    def to_kernel(x: jax.Array, kernel: jax.Array, slope: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda kernel: usual(x, kernel), kernel)(slope)[0]

    if stride > 1 or x.shape[1] * x.shape[2] < MUCH_LARGER * slope.shape[1] * slope.shape[2]:
        on_cpu = functools.partial(_to_input, stride=stride, pads=pads)
    else:
        on_cpu = to_input(functools.partial(_by_squares, stride=stride, pads=pads))
    return (
        jax.lax.platform_dependent(x, kernel, slope, cpu=on_cpu, default=to_input(usual)),
        jax.lax.platform_dependent(
            x, kernel, slope, default=to_kernel,
            cpu=functools.partial(_to_kernel, stride=stride, pads=pads),
        ),
    )  # fmt: skip


def _to_input(
    x: jax.Array, kernel: jax.Array, slope: jax.Array, *, stride: int, pads: Pads
) -> jax.Array:
    """The gradient to the input as a convolution in XLA's canonical layout."""
    mirrored = jax.lax.optimization_barrier(kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    around = []
    for size, side, (before, _), count in zip(
        x.shape[1:3], kernel.shape[:2], pads, slope.shape[1:3], strict=True
    ):
        spread = (count - 1) * stride + 1
        around.append((side - 1 - before, size - spread + before))
    return jax.lax.conv_general_dilated(
        slope, mirrored, (1, 1), around, lhs_dilation=(stride, stride), dimension_numbers=_LAYOUT
    )


def _to_kernel(
    x: jax.Array, kernel: jax.Array, slope: jax.Array, *, stride: int, pads: Pads
) -> jax.Array:
    """The gradient to the kernel as a convolution in XLA's canonical layout."""
    images, slopes = jax.lax.optimization_barrier(
        (x.transpose(3, 1, 2, 0), slope.transpose(1, 2, 0, 3))
    )
    around = []
    for size, side, (before, _), count in zip(
        x.shape[1:3], kernel.shape[:2], pads, slope.shape[1:3], strict=True
    ):
        spread = (count - 1) * stride + 1
        around.append((before, side - 1 + spread - size - before))
    made = jax.lax.conv_general_dilated(
        images, slopes, (1, 1), around, rhs_dilation=(stride, stride), dimension_numbers=_LAYOUT
    )
    return jax.lax.optimization_barrier(made).transpose(1, 2, 0, 3)


_convolve.defvjp(_convolved, _gradients)


def _by_squares(x: jax.Array, kernel: jax.Array, *, stride: int, pads: Pads) -> jax.Array:
    """A convolution as one matrix product, whose patches are cut out in squares of 2×2 pixels.

    Args:
      x: (b, h, w, c).
      kernel: (rows, columns, c, features).
      stride: 1 or 2; with 1 each product makes the outputs of a square, with 2 one output.
      pads: before and after the rows, and the columns.
    """
    rows, columns, _, features = kernel.shape
    high, wide = (
        (size + sum(pad) - side) // stride + 1
        for size, pad, side in zip(x.shape[1:3], pads, (rows, columns), strict=True)
    )
    shifts = 3 - stride  # how many outputs a square has, in each direction
    squares = [-(-(side + shifts - 1) // 2) for side in (rows, columns)]
    up, across = -(-high // shifts), -(-wide // shifts)
    reach = [2 * (count + side - 1) for count, side in zip((up, across), squares, strict=True)]
    x = jax.lax.pad(
        x, jnp.zeros((), x.dtype),
        ((0, 0, 0), *((pad[0], to - size - pad[0], 0)
                      for pad, to, size in zip(pads, reach, x.shape[1:3], strict=True)), (0, 0, 0)),
    )  # fmt: skip
    x = _in_squares(x)
    patches = jnp.concatenate(
        [
            x[:, row : row + up, column : column + across]
            for row in range(squares[0]) for column in range(squares[1])
        ],
        axis=-1,
    )  # fmt: skip
    weights = jnp.concatenate(
        [
            _weights(kernel, squares, down, right)
            for down in range(shifts) for right in range(shifts)
        ],
        axis=-1,
    )  # fmt: skip
    made = (patches.reshape(-1, len(weights)) @ weights).reshape(len(x), up, across, -1)
    if shifts == 2:
        made = made.reshape(len(x), up, across, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
        made = made.reshape(len(x), 2 * up, 2 * across, features)
    return made[:, :high, :wide]


def _weights(kernel: jax.Array, squares: Sequence[int], down: int, right: int) -> jax.Array:
    """The kernel, moved, with a row for each number of a patch: (patch, features)."""
    rows, columns, _, features = kernel.shape
    below, beside = 2 * squares[0] - rows - down, 2 * squares[1] - columns - right
    moved = jnp.pad(kernel, ((down, below), (right, beside), (0, 0), (0, 0)))
    return _in_squares(moved.transpose(3, 0, 1, 2)).reshape(features, -1).T


def _in_squares(x: jax.Array) -> jax.Array:
    """Squares of 2×2 pixels as channels, (b, 2 h, 2 w, c) -> (b, h, w, 4 c)."""
    b, h, w, c = x.shape
    squares = x.reshape(b, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(b, h // 2, w // 2, 4 * c)
