"""The forms for CPUs against XLA's own."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from geojax.models.cpu_forms import convolve, max_pool

LAYOUT = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


def normal(*shape: int, seed: int = 0) -> jax.Array:
    """Seeded normal numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def with_slopes(form, *arguments: jax.Array, quickly: bool = False) -> tuple[jax.Array, ...]:
    """What a form makes of its arguments, and their slopes for a seeded one; one program.

    ``quickly``: compiled so, for values to compare with.
    """
    slope = normal(*jax.eval_shape(form, *arguments).shape, seed=2)

    @functools.partial(
        jax.jit, compiler_options={"xla_backend_optimization_level": 0} if quickly else None
    )
    def both(slope: jax.Array, *arguments: jax.Array) -> tuple[jax.Array, ...]:
        found, back = jax.vjp(form, *arguments)
        return found, *back(slope)

    return both(slope, *arguments)


@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (3, 5, 7, 2), (1, 2, 2, 1)])
def test_a_pool_is_flaxs_to_the_last_bit_also_where_numbers_are_equal(shape):
    x = jnp.asarray(np.maximum(np.round(normal(*shape) * np.float32(2)) / 2, 0))  # many equal ones

    def flax(x: jax.Array) -> jax.Array:
        return nn.max_pool(x, (2, 2), strides=(2, 2))

    for got, wanted in zip(with_slopes(max_pool, x), with_slopes(flax, x), strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("image", "kernel", "strides", "padding"),
    [
        ((2, 28, 28, 1), (5, 5, 1, 8), (2, 2), "SAME"),
        ((2, 12, 12, 6), (5, 5, 6, 7), (1, 1), "VALID"),
        ((2, 11, 14, 1), (3, 4, 1, 5), (2, 2), "VALID"),
        ((2, 9, 8, 3), (4, 5, 3, 2), (1, 1), "VALID"),
        ((2, 7, 6, 1), (2, 3, 1, 4), (1, 1), ((2, 1), (0, 3))),
        ((2, 7, 6, 1), (3, 3, 1, 40), (1, 1), "SAME"),
        ((2, 9, 9, 1), (3, 3, 1, 4), (3, 3), "SAME"),
    ],
)
def test_a_convolution_and_its_gradients_are_those_of_xla(image, kernel, strides, padding):
    x, w = normal(*image), normal(*kernel, seed=1)
    expected = with_slopes(
        lambda x, w: jax.lax.conv_general_dilated(x, w, strides, padding, **LAYOUT),
        x, w, quickly=True,
    )  # fmt: skip
    found = with_slopes(lambda x, w: convolve(x, w, strides, padding, **LAYOUT), x, w)
    for got, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_on_a_cpu_one_channel_needs_no_convolution_and_many_features_do():
    def program(features: int) -> str:
        images, kernel = normal(2, 28, 28, 1), normal(5, 5, 1, features)
        lowered = jax.jit(lambda x, w: convolve(x, w, (2, 2), "SAME", **LAYOUT))
        return lowered.lower(images, kernel).as_text()

    assert "stablehlo.convolution" not in program(8)
    assert "stablehlo.convolution" in program(32)


@pytest.mark.parametrize(
    ("image", "kernel", "strides", "padding"),
    [
        ((4, 28, 28, 1), (5, 5, 1, 8), (2, 2), "SAME"),
        ((4, 14, 14, 8), (3, 3, 8, 16), (2, 2), "SAME"),
        ((4, 12, 12, 6), (5, 5, 6, 7), (1, 1), "VALID"),
        ((4, 14, 14, 3), (5, 4, 3, 20), (1, 1), ((2, 1), (1, 2))),
        ((4, 9, 7, 3), (2, 2, 3, 5), (2, 2), ((4, 0), (0, 3))),
    ],
)
def test_gradients_have_the_bits_of_xla_and_its_fast_layout_in_loops(
    image, kernel, strides, padding
):
    def xla(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, w, strides, padding, **LAYOUT)

    def ours(x: jax.Array, w: jax.Array) -> jax.Array:
        return convolve(x, w, strides, padding, **LAYOUT)

    def slopes(form, x: jax.Array, w: jax.Array, slope: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.vjp(lambda w: form(x, w), w)[1](slope)[0], jax.vjp(form, x, w)[1](slope)[0]

    x, w = normal(*image), normal(*kernel, seed=1)
    slope = normal(*xla(x, w).shape, seed=2)
    found, expected = (
        jax.jit(functools.partial(slopes, form))(x, w, slope) for form in (ours, xla)
    )
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-4)

    def body(_: int, slope: jax.Array) -> jax.Array:
        return slope + sum(each.sum() for each in slopes(ours, x, w, slope))

    looped = jax.jit(lambda slope: jax.lax.fori_loop(0, 3, body, slope))
    program = looped.lower(slope).compile().as_text()
    layouts = re.findall(r"= f32\S* convolution\(.* dim_labels=([^ ,]+)", program)
    assert set(layouts) == {"b01f_01io->b01f"}


def test_clients_side_by_side_and_one_by_one_agree():
    x, w = normal(3, 2, 12, 12, 1), normal(3, 5, 5, 1, 4)

    @jax.jit
    def slope(x: jax.Array, w: jax.Array) -> jax.Array:
        def total(w: jax.Array) -> jax.Array:
            return (max_pool(convolve(x, w, (1, 1), "VALID", **LAYOUT)) ** 2).sum()

        return jax.grad(total)(w)

    together = jax.jit(jax.vmap(slope))(x, w)
    for number in range(3):
        np.testing.assert_allclose(together[number], slope(x[number], w[number]), rtol=1e-4)
