"""The codecs by their configured names."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from geojax.compression.bisparse import bisparse
from geojax.compression.codec import Codec
from geojax.compression.dense import dense
from geojax.compression.dgt import dgt
from geojax.compression.half import bf16, fp16
from geojax.compression.mpq import mpq
from geojax.compression.size_only import size_only
from geojax.compression.sparsify import Kernel, numpy_kernel
from geojax.compression.twobit import twobit
from geojax.config import CompressionConfig
from geojax.hollow import SIZE_ONLY
from geojax.registry import Registry

GRADIENT_MOMENTUM = 0.9  # DGC's and GeoMX's


class Setting(NamedTuple):
    """What a codec is built from, beside its configuration.

    Attributes:
      gradients: whether the offers are gradients, rather than deltas or parameters.
      kernel: accumulates and picks, where a codec is sparse.
    """

    gradients: bool = True
    kernel: Kernel = numpy_kernel


CODECS: Registry[Callable[[CompressionConfig, Setting], Codec]] = Registry("compression.name")


@CODECS.register("dense")
def _dense(config: CompressionConfig, setting: Setting) -> Codec:
    del config, setting
    return dense()


@CODECS.register("dgt")
def _dgt(config: CompressionConfig, setting: Setting) -> Codec:
    del setting
    return dgt(
        k=config.k,
        k_min=config.k_min,
        alpha=config.alpha,
        block_bytes=config.block_bytes,
        adaptive=config.adaptive,
        tail=config.tail,
        channel=config.channel,
        lost=config.lost,
    )


@CODECS.register(SIZE_ONLY)
def _size_only(config: CompressionConfig, setting: Setting) -> Codec:
    del config, setting
    return size_only()


@CODECS.register("fp16")
def _fp16(config: CompressionConfig, setting: Setting) -> Codec:
    del setting
    return fp16(overflow=config.overflow)


@CODECS.register("bf16")
def _bf16(config: CompressionConfig, setting: Setting) -> Codec:
    del setting
    return bf16(overflow=config.overflow)


@CODECS.register("bisparse")
def _bisparse(config: CompressionConfig, setting: Setting) -> Codec:
    return bisparse(
        ratio=config.ratio, bound=config.bound, momentum=_momentum(config, setting),
        exact=config.exact, kernel=setting.kernel,
    )  # fmt: skip


@CODECS.register("mpq")
def _mpq(config: CompressionConfig, setting: Setting) -> Codec:
    return mpq(
        ratio=config.ratio, bound=config.bound, momentum=_momentum(config, setting),
        exact=config.exact, overflow=config.overflow, kernel=setting.kernel,
    )  # fmt: skip


@CODECS.register("twobit")
def _twobit(config: CompressionConfig, setting: Setting) -> Codec:
    del setting
    return twobit(threshold=config.threshold)


def _momentum(config: CompressionConfig, setting: Setting) -> float:
    if config.momentum is not None:
        return config.momentum
    return GRADIENT_MOMENTUM if setting.gradients else 0.0


def build_codec(
    config: CompressionConfig, *, gradients: bool = True, kernel: Kernel = numpy_kernel
) -> Codec:
    """The configured codec.

    Args:
      config: which, and its settings.
      gradients: whether the offers are gradients: ``compression.momentum`` unset then means 0.9.
        For deltas it means 0, since momentum correction amplifies what waits, up to 1/(1 - m)
        times, and a delta is a whole displacement; see
        :func:`geojax.compression.bisparse.bisparse`.
      kernel: what picks elements; training processes give ``geojax.center.sparsify.jax_kernel``.

    Raises:
      ConfigError: the name or a setting is wrong.
    """
    return CODECS[config.name](config, Setting(gradients, kernel))
