"""How chunks of a round leave a tree exchange: as messages of its policy, by priority."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geojax.compression.codec import Codec
from geojax.hips.exchange.base import Gate, Sender
from geojax.hips.exchange.contribution import Contribution
from geojax.hips.exchange.late_payloads import RELIABLE, Part
from geojax.hips.exchange.local_policy import ByRound
from geojax.hips.exchange.states import state_messages
from geojax.wire.message import Kind, Message, Payload
from geojax.wire.priority import chunk_priority, late_priority


class ChunkSender:
    """Makes messages of one member's contributions and results, and sends them.

    Args:
      group: index of the group.
      transport: moves the messages.
      codec: says what payloads are.
      gate: knows the epoch.
      policies: which policy a round goes by.
      priorities: of each chunk, smaller first; empty: its index.
    """

    def __init__(
        self,
        group: int,
        transport: Sender,
        codec: Codec,
        gate: Gate,
        policies: ByRound,
        priorities: Sequence[int] = (),
    ):
        self._group, self._transport, self._codec = group, transport, codec
        self._gate, self._policies, self._priorities = gate, policies, tuple(priorities)

    def chunk(self, peer: str, kind: Kind, number: int, chunk: int, sent: Contribution) -> None:
        """Sends a chunk: an offer, a result, or the result of a round that is over."""
        if sent.abstains:
            message = self._message(kind, number, chunk, None, body={"abstains": True})
        else:
            message = self._message(
                kind, number, chunk, sent.payload, weight=sent.weight,
                contributors=sent.contributors, steps=sent.steps,
                body=None if sent.loss is None else {"loss": sent.loss},
            )  # fmt: skip
        priority = self._priorities[chunk] if self._priorities else chunk
        self._transport.send(peer, message, chunk_priority(number, priority))

    def late(
        self, peer: str, number: int, chunk: int, parts: Sequence[Part], *, chunks: int
    ) -> None:
        """Sends the late parts of an offer, behind all ``chunks`` that wait or will soon."""
        priority = late_priority(number, chunk, chunks)
        for index, payload in parts:
            if index == RELIABLE:
                message = self._message(Kind.LATE, number, chunk, payload)
                self._transport.send(peer, message, priority)
            else:
                message = self._message(Kind.LATE, number, chunk, payload, body={"part": index})
                self._transport.send_datagram(peer, message, priority)

    def state(self, peer: str, number: int, payload: np.ndarray) -> None:
        """Sends the whole state after a round."""
        for message in state_messages(self._group, self._gate.epoch, number, payload):
            self._transport.send(peer, message)

    def _message(
        self, kind: Kind, number: int, chunk: int, payload: Payload, **fields: Any
    ) -> Message:
        local = self._policies.of(number)
        return Message(
            kind, group=self._group, epoch=self._gate.epoch, policy=local.policy.version,
            tree=local.placement[chunk], round=number, chunk=chunk, codec=self._codec.wire,
            payload=payload, **fields,
        )  # fmt: skip
