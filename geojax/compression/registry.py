"""The codecs by their configured names."""

from __future__ import annotations

from geojax.compression import (  # noqa: F401  they register themselves
    bisparse,
    dense,
    dgt,
    e3m0,
    half,
    integers,
    mpq,
    size_only,
    topk2bit,
    twobit,
)
from geojax.compression.codec import CODECS, Codec, Setting
from geojax.compression.sparsify import Kernel
from geojax.config import CompressionConfig

__all__ = ["CODECS", "build_codec"]


def build_codec(
    config: CompressionConfig,
    *,
    gradients: bool = True,
    kernel: Kernel | None = None,
    seed: int = 0,
    compiled: bool = False,
) -> Codec:
    """The configured codec.

    Args:
      config: which, and its settings.
      gradients: whether the offers are gradients: ``compression.momentum`` unset then means 0.9.
        For deltas it means 0, since momentum correction amplifies what waits, up to 1/(1 - m)
        times, and a delta is a whole displacement; see
        :func:`geojax.compression.bisparse.bisparse`.
      kernel: what picks elements on an accelerator; None: the host does. Training processes give
        ``geojax.center.sparsify.center_kernel()``.
      seed: of what a codec draws, e.g. the run's.
      compiled: take the loops of :mod:`geojax.compression.compiled` where a codec has such; results
        are the same, bit for bit. Needs numba.

    Raises:
      ConfigError: the name or a setting is wrong.
    """
    return CODECS.build(config, Setting(gradients, kernel, seed, compiled))
