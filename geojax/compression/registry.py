"""The codecs by their configured names."""

from __future__ import annotations

from collections.abc import Callable

from geojax.compression.codec import Codec
from geojax.compression.dense import dense
from geojax.config import CompressionConfig
from geojax.registry import Registry

CODECS: Registry[Callable[[CompressionConfig], Codec]] = Registry("compression.name")


@CODECS.register("dense")
def _dense(config: CompressionConfig) -> Codec:
    del config
    return dense()


def build_codec(config: CompressionConfig) -> Codec:
    """The configured codec; a wrong name raises ``ConfigError``."""
    return CODECS[config.name](config)
