"""Rounding to binary16 in one pass, to the bits of ``geojax.compression.halves``.

Programs run on a CPU client of their own, which computes in the calling thread: the client that
trains hands larger programs to another thread, and that takes longer than rounding 65,536 elements.
Bits are moved by hand where an instruction would make a signalling NaN quiet.
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
from geojax.compression.halves import FLOAT16
from geojax.compression.scratch import LINE, address, scratch

SIZES = (65_536, 16_384)  # elements of a piece; smaller ones are not worth a call
_MAGNITUDE, _INFINITY, _SIGN = 0x7FFFFFFF, 0x7F800000, 0x8000
_bits = jax.lax.bitcast_convert_type


def compiled_codecs() -> Compiled:
    """The programs of this process; each is compiled when it is first used."""
    return Compiled(SIZES, {"fp16": _narrowed})


def _narrowed(values: np.ndarray) -> np.ndarray:
    if address(values) % LINE:  # else XLA copies, and takes longer
        ready = scratch("program", values.size)
        np.copyto(ready, values)
        values = ready
    return np.asarray(_program()(values)).view(np.float16)


@functools.cache
def _program() -> Callable[[Any], jax.Array]:
    client = xla_client.make_cpu_client(asynchronous=False, num_devices=1)
    here = SingleDeviceSharding(client.local_devices()[0])
    return jax.jit(_narrow_half, in_shardings=here, out_shardings=here)


def _narrow_half(values: jax.Array) -> jax.Array:
    every = _bits(values, jnp.uint32)
    size, sign = every & _MAGNITUDE, (every >> 16).astype(jnp.uint16) & _SIGN
    rounded = _bits(values.astype(jnp.float16), jnp.uint16)
    clipped = sign | jnp.uint16(0x7BFF)
    payload = jnp.maximum((size >> 13).astype(jnp.uint16) & 0x3FF, 1)
    rounded = jnp.where((size >= FLOAT16.overflow) & (size < _INFINITY), clipped, rounded)
    return jnp.where(size > _INFINITY, sign | jnp.uint16(0x7C00) | payload, rounded)
