"""How chunks of a round leave a tree exchange: as messages of its policy, by priority."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

_ABSTAINS: Mapping[str, Any] = {"abstains": True}


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

    def chunk(
        self, peers: Sequence[str], kind: Kind, number: int, chunk: int, sent: Contribution
    ) -> None:
        """Sends peers a chunk: an offer, a result, or the result of a round that is over."""
        if sent.abstains:
            message = self._message(kind, number, chunk, None, body=_ABSTAINS)
        else:
            message = self._message(
                kind, number, chunk, sent.payload, sent.weight, sent.contributors, sent.steps,
                None if sent.loss is None else {"loss": sent.loss},
            )  # fmt: skip
        place = self._priorities[chunk] if self._priorities else chunk
        priority, send = chunk_priority(number, place), self._transport.send
        for peer in peers:
            send(peer, message, priority)

    def withdraw(self, unwanted: Callable[[Message], bool]) -> int:
        """Drops messages that have not begun to leave; returns how many."""
        return self._transport.withdraw(unwanted)

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
        self,
        kind: Kind,
        number: int,
        chunk: int,
        payload: Payload,
        weight: float = 0.0,
        contributors: int = 0,
        steps: int = 0,
        body: Mapping[str, Any] | None = None,
    ) -> Message:
        local = self._policies.of(number)
        return Message(  # by place, as this is done for every chunk that leaves
            kind, self._group, self._gate.epoch, local.policy.version, local.placement[chunk],
            number, chunk, self._codec.wire, weight, contributors, steps, body,
            payload,
        )  # fmt: skip
