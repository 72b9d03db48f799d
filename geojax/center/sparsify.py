"""The kernel of Bi-Sparse, compiled for the center's device.

Same signature and same results, bit for bit, as :func:`geojax.compression.sparsify.numpy_kernel`,
which is the one to read first. Products and sums are apart there, so no fused multiply-add can
round differently here. One exception: XLA's CPU code takes subnormal numbers for zero.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from geojax.center.transfer import to_host
from geojax.compression.sparsify import Accumulated, Draw, Kernel, Picked, pick

_MAGNITUDE = 0x7FFFFFFF  # all bits of a float32 but its sign


def center_kernel() -> Kernel | None:
    """The kernel of this process's accelerator; None: it has none, and the host's is faster.

    On a CPU there is nothing to move the work to: XLA writes into fresh memory and copies most of
    its input (``python -m experiments.bench.codecs`` shows all kernels).
    """
    return None if jax.default_backend() == "cpu" else jax_kernel


def jax_kernel(
    gradient: np.ndarray,
    decayed: np.ndarray,
    residual: np.ndarray,
    draw: Draw,
    momentum: float,
) -> Picked:
    """Accumulation, threshold and mask in one program; compiled once for each size of layer.

    The device computes up to the mask. How many elements pass is known only then, and a compiled
    program has fixed shapes, so the host gathers these elements and resets them in the state. The
    state stays on the host, where checkpoints read it.
    """
    if draw.sample is None:  # the exact top-k: everything passes, the budget cuts
        moved, total, passed = _accumulate(gradient, decayed, residual, momentum=momentum)
    else:
        moved, total, passed = _accumulate(
            gradient, decayed, residual, draw.sample, momentum=momentum, rank=draw.rank
        )
    # Copies: views would be read-only, and may lie in the caller's arrays.
    sums, positions = to_host(total), np.flatnonzero(to_host(passed))
    return pick(Accumulated(to_host(moved), sums, positions, sums[positions]), draw.budget)


@partial(jax.jit, static_argnames=("momentum", "rank"))
def _accumulate(
    gradient: jax.Array,
    decayed: jax.Array,
    residual: jax.Array,
    sample: jax.Array | None = None,
    *,
    momentum: float,
    rank: int = 1,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    moved = decayed + gradient if decayed.size else gradient
    total = residual + moved
    decayed = moved * jnp.float32(momentum) if decayed.size else decayed
    keys = jax.lax.bitcast_convert_type(total, jnp.int32) & _MAGNITUDE
    least = jnp.int32(1)
    if sample is not None:
        least = jnp.maximum(jnp.sort(keys[sample])[-rank], 1)
    return decayed, total, keys >= least
