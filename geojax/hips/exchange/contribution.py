"""What travels in an exchange: payloads with what is summed in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from geojax.compression.codec import Parted
from geojax.wire.message import Payload


class Contribution(NamedTuple):
    """A payload with the weight and the number of the contributions that are summed in it.

    Attributes:
      payload: what a merge waits for.
      weight: sum of the weights of the contributions.
      contributors: their number.
      late: see :class:`geojax.compression.codec.Parted`; part of an offer on its first hop only.
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
    >>> parted = Parted(np.ones(2, np.uint8), np.ones(0, np.uint8))
    >>> contribution_of(parted, 2.0, loss=0.5)[1:]
    (2.0, 1, None, (), 0.5)
    """
    if not isinstance(payload, Parted):
        return Contribution(payload, weight, contributors, loss=loss)
    late = payload.late if payload.late.size else None
    return Contribution(payload.now, weight, contributors, late, payload.datagrams, loss)


def mean_loss(contributions: Sequence[Contribution]) -> float | None:
    """The mean loss of those who told theirs, by weight."""
    told = [(c.loss, c.weight) for c in contributions if c.loss is not None]
    weight = sum(weight for _, weight in told)
    return sum(loss * weight for loss, weight in told) / weight if weight else None
