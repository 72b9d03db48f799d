"""Where the server of each chunk is, and how pushes and answers leave for it and come from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geojax.compression.codec import Codec
from geojax.hips.exchange.base import Gate, Sender
from geojax.hips.exchange.contribution import Contribution
from geojax.hips.exchange.cuts import Cut
from geojax.hips.exchange.shard_server import Pulled
from geojax.hips.exchange.states import state_messages
from geojax.overlay.policy.placement import place
from geojax.overlay.policy.policy import Policy
from geojax.wire.message import Kind, Message
from geojax.wire.priority import chunk_priority


class PushSender:
    """Makes the messages of one member of a push-pull exchange, and sends them.

    Args:
      group: index of the group.
      transport: moves the messages.
      gate: knows the epoch.
      priorities: of each chunk, smaller first.

    Attributes:
      policy: of the epoch; None: there was none yet.
      homes: the server of each chunk: the root of its tree.
    """

    def __init__(self, group: int, transport: Sender, gate: Gate, priorities: Sequence[int]):
        self._group, self._transport, self._gate = group, transport, gate
        self._priorities = tuple(priorities)
        self.policy: Policy | None = None
        self.homes: tuple[str, ...] = ()
        self._trees: tuple[int, ...] = ()  # of each chunk

    @property
    def servers(self) -> tuple[str, ...]:
        """All servers, each once, in order of their first chunks."""
        return tuple(dict.fromkeys(self.homes))

    def begin(self, policy: Policy, sizes: Sequence[int], layers: Sequence[int]) -> None:
        """An epoch has this policy."""
        self.policy, self._trees = policy, place(policy, sizes, layers)
        self.homes = tuple(policy.trees[tree].root for tree in self._trees)

    def push(self, number: int, chunk: int, offer: Contribution, base: int, codec: Codec) -> None:
        """Pushes a chunk to its server; it was computed at version ``base``."""
        message = self._message(
            Kind.OFFER, number, chunk, codec=codec.wire, weight=offer.weight,
            contributors=offer.contributors, steps=offer.steps, payload=offer.payload,
            body={"base": base},
        )  # fmt: skip
        self._send(self.homes[chunk], message)

    def answer(self, center: str, number: int, chunk: int, pulled: Pulled, codec: Codec) -> None:
        """Answers a push, or a pull."""
        message = self._message(
            Kind.RESULT, number, chunk, codec=codec.wire, weight=1.0, contributors=1,
            payload=pulled.payload, body={"version": pulled.version, "applied": pulled.applied},
        )  # fmt: skip
        self._send(center, message)

    def note(self, server: str, number: int, what: str) -> None:
        """Tells a server something about this member."""
        self._transport.send(server, self._message(Kind.OFFER, number, 0, body={what: True}))

    def marker(self, peer: str, cut: Cut) -> None:
        """Tells a peer of a cut, behind all that was sent to it before."""
        self._transport.send(peer, self._message(Kind.OFFER, cut.number, 0, body={"cut": cut.time}))

    def state(self, peer: str, number: int, payload: np.ndarray) -> None:
        """Sends the whole state after a round."""
        for message in state_messages(self._group, self._gate.epoch, number, payload):
            self._transport.send(peer, message)

    def _send(self, peer: str, message: Message) -> None:
        priority = chunk_priority(message.round, self._priorities[message.chunk])
        self._transport.send(peer, message, priority)

    def _message(self, kind: Kind, number: int, chunk: int, **fields: Any) -> Message:
        assert self.policy is not None
        return Message(
            kind, group=self._group, epoch=self._gate.epoch, policy=self.policy.version,
            tree=self._trees[chunk], round=number, chunk=chunk, **fields,
        )  # fmt: skip
