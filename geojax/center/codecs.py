"""Programs for codecs, to the bits of numpy's loops in ``geojax.compression``, but in one pass.

They run on a CPU client of their own, which computes in the calling thread: the client that trains
hands larger programs to another thread, and the hand-over takes longer than 65,536 elements do.
Bits and whole numbers do the work where an instruction could differ: hardware makes signalling NaN
quiet, and XLA's CPU code takes subnormal float32 for zero, which all have the same two-byte codes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding
from jaxlib import xla_client

from geojax.compression.compiled import Compiled
from geojax.compression.halves import BFLOAT16, FLOAT16
from geojax.compression.scratch import LINE, address, scratch

SIZES = (65_536, 16_384)  # elements of a piece; smaller ones are not worth a call
_MAGNITUDE, _INFINITY, _SIGN = 0x7FFFFFFF, 0x7F800000, 0x8000
_bits = jax.lax.bitcast_convert_type


def compiled_codecs() -> Compiled:
    """The programs of this process; each is compiled when it is first used."""
    return Compiled(
        SIZES,
        {"fp16": _first(_narrow_half), "bf16": _first(_narrow_bfloat)},
        {"fp16": _first(_widen_half)},
        lambda values, residual, step: _run(_two_bits, values, residual, step),
    )


def _first(function: Callable[..., tuple[jax.Array]]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda values: _run(function, values)[0]


def _run(function: Callable[..., Any], *given: Any) -> Any:
    ready = [_ready(one, f"program {at}") for at, one in enumerate(given)]
    return tuple(map(np.asarray, _program(function)(*ready)))


def _ready(values: Any, use: str) -> Any:
    """The same values where XLA need not copy them, which takes it longer."""
    if not isinstance(values, np.ndarray) or not address(values) % LINE:
        return values
    aligned = scratch(use, values.size, values.dtype)
    np.copyto(aligned, values)
    return aligned


@functools.cache
def _program(function: Callable[..., Any]) -> Callable[..., Any]:
    here = SingleDeviceSharding(_device())
    return jax.jit(function, in_shardings=here, out_shardings=here)


@functools.cache
def _device() -> Any:
    return xla_client.make_cpu_client(asynchronous=False, num_devices=1).local_devices()[0]


def _narrow_half(values: jax.Array) -> tuple[jax.Array]:
    every = _bits(values, jnp.uint32)
    size, sign = every & _MAGNITUDE, (every >> 16).astype(jnp.uint16) & _SIGN
    rounded = _bits(values.astype(jnp.float16), jnp.uint16)
    clipped = sign | jnp.uint16(0x7BFF)
    payload = jnp.maximum((size >> 13).astype(jnp.uint16) & 0x3FF, 1)
    rounded = jnp.where((size >= FLOAT16.overflow) & (size < _INFINITY), clipped, rounded)
    return (jnp.where(size > _INFINITY, sign | jnp.uint16(0x7C00) | payload, rounded),)


def _widen_half(halves: jax.Array) -> tuple[jax.Array]:
    every = halves.astype(jnp.uint32)
    widened = _bits(_bits(halves, jnp.float16).astype(jnp.float32), jnp.uint32)
    missing = (every & _SIGN) << 16 | _INFINITY | (every & 0x3FF) << 13
    return (_bits(jnp.where(every & 0x7FFF > 0x7C00, missing, widened), jnp.float32),)


def _narrow_bfloat(values: jax.Array) -> tuple[jax.Array]:
    every = _bits(values, jnp.uint32)
    size, sign = every & _MAGNITUDE, every >> 16 & _SIGN
    rounded = (every + 0x7FFF + (every >> 16 & 1)) >> 16
    too_large = (size >= BFLOAT16.overflow) & (size < _INFINITY)
    rounded = jnp.where(too_large, sign | 0x7F7F, rounded)
    return (jnp.where(size > _INFINITY, sign | 0x7FC0, rounded).astype(jnp.uint16),)


def _two_bits(
    values: jax.Array, residual: jax.Array, step: jax.Array
) -> tuple[jax.Array, jax.Array]:
    total = values + residual
    plus, minus = total >= step, total <= -step
    codes = jnp.where(plus, jnp.uint32(0b11), jnp.where(minus, jnp.uint32(0b10), jnp.uint32(0)))
    fours = codes.reshape(-1, 4)
    packed = fours[:, 0] << 6 | fours[:, 1] << 4 | fours[:, 2] << 2 | fours[:, 3]
    left = total - jnp.where(plus, step, jnp.where(minus, -step, jnp.float32(0)))
    return packed.astype(jnp.uint8), left
