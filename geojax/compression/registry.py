"""The codecs by their configured names."""

from __future__ import annotations

from collections.abc import Callable

from geojax.compression.codec import Codec
from geojax.compression.dense import dense
from geojax.compression.dgt import dgt
from geojax.compression.size_only import size_only
from geojax.config import CompressionConfig
from geojax.hollow import SIZE_ONLY
from geojax.registry import Registry

CODECS: Registry[Callable[[CompressionConfig], Codec]] = Registry("compression.name")


@CODECS.register("dense")
def _dense(config: CompressionConfig) -> Codec:
    del config
    return dense()


@CODECS.register("dgt")
def _dgt(config: CompressionConfig) -> Codec:
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
def _size_only(config: CompressionConfig) -> Codec:
    del config
    return size_only()


def build_codec(config: CompressionConfig) -> Codec:
    """The configured codec; a wrong name raises ``ConfigError``."""
    return CODECS[config.name](config)
