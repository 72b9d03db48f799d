"""What travels in an exchange: payloads with what is summed in them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

from geojax.compression.codec import Codec, SplitPayload
from geojax.errors import FrameError
from geojax.wire.message import Message, Payload


class Contribution(NamedTuple):
    """A payload with the weight and the number of the contributions that are summed in it.

    Attributes:
      payload: what a merge waits for.
      weight: sum of the weights of the contributions.
      contributors: their number.
      late: see :class:`geojax.compression.codec.SplitPayload`; only on the first hop of an offer.
      datagrams: the same.
      loss: mean training loss of the contributions, by weight; None: nobody told.
    """

    payload: Payload
    weight: float
    contributors: int
    late: Payload = None
    datagrams: tuple[Payload, ...] = ()
    loss: float | None = None


def contribution_of(
    payload: Any, weight: float, *, contributors: int = 1, loss: float | None = None
) -> Contribution:
    """What is offered of a chunk: an encoded payload, whole or in parts.

    >>> import numpy as np
    >>> split = SplitPayload(np.ones(2, np.uint8), np.ones(0, np.uint8))
    >>> contribution_of(split, 2.0, loss=0.5)[1:]
    (2.0, 1, None, (), 0.5)
    """
    if not isinstance(payload, SplitPayload):
        return Contribution(payload, weight, contributors, loss=loss)
    late = payload.late if payload.late.size else None
    return Contribution(payload.now, weight, contributors, late, payload.datagrams, loss)


def mean_loss(contributions: Sequence[Contribution]) -> float | None:
    """The mean loss of those who told theirs, by weight."""
    told = [(c.loss, c.weight) for c in contributions if c.loss is not None]
    weight = sum(weight for _, weight in told)
    return sum(loss * weight for loss, weight in told) / weight if weight else None


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
