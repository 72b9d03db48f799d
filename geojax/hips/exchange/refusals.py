"""Payloads come from the network: what an exchange asks of each one before it keeps it."""

from __future__ import annotations

import logging

from geojax.compression.codec import Codec
from geojax.errors import FrameError
from geojax.wire.message import Message

log = logging.getLogger("geojax.hips")


def is_refused(me: str, peer: str, message: Message, codec: Codec, size: int) -> bool:
    """Whether a message's payload is no chunk of ``size`` elements; logs why.

    Whatever is not refused can be decoded, and summed with others of its chunk, so no later step
    can fail because of it. A refused payload is as one that never came: its round waits for it,
    and says for whom.

    Args:
      me: who received it.
      peer: who sent it.
      message: with the payload of one chunk.
      codec: reads it.
      size: elements of the chunk.
    """
    why = _why(message, codec, size)
    if why:
        log.warning(
            "%s: refused %s of chunk %d of round %d from %s: %s",
            me, message.kind.name, message.chunk, message.round, peer, why,
        )  # fmt: skip
    return bool(why)


def _why(message: Message, codec: Codec, size: int) -> str:
    if message.payload is None:
        return "no payload"
    if message.codec != codec.wire:
        return f"expected a payload of codec {codec.wire}, came one of {message.codec}"
    try:
        elements = codec.elements(message.payload)  # type: ignore[arg-type]
    except FrameError as error:
        return str(error)
    return "" if elements == size else f"expected {size} elements, came {elements}"
