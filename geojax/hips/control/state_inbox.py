"""The state that another member sends to one that starts elsewhere, or comes back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from geojax.config import TimeoutsConfig
from geojax.errors import FrameError
from geojax.hips.exchange.states import StatePieces
from geojax.machine.waits import wait_for
from geojax.wire.message import Message, Payload

log = logging.getLogger("geojax.member")


class _Early(NamedTuple):
    """The pieces of one state that waits for its epoch, and since when."""

    messages: list[Message]
    since: float


class StateInbox:
    """Takes one state, from the member that was told to send it and from nobody else.

    Who was told is not asked again before the next epoch. A state may come in pieces. One of a
    later epoch than this member knows of waits for it: of each peer one at most, not larger than
    its own, and as long as the peer's chunks would (see :class:`geojax.hips.exchange.base.Gate`).

    Args:
      timeouts: bounds the wait.
      refuse: called with a peer and why what it sent is refused.

    Attributes:
      most: bytes of the largest state that may come; 0: none may.
    """

    def __init__(self, timeouts: TimeoutsConfig, refuse: Callable[[str, str], None]):
        self._timeouts, self._refuse, self.most = timeouts, refuse, 0
        self._epoch, self._sender, self._round = -1, "", -1
        self._early: dict[str, _Early] = {}
        self._pieces = StatePieces(0)
        self._came: asyncio.Future[tuple[str, Message]] = asyncio.get_running_loop().create_future()

    def begin(self, epoch: int, sender: str | None = None, number: int = -1) -> None:
        """An epoch begins.

        Args:
          epoch: the epoch.
          sender: who was told to send its state; None: nobody, or who was told before.
          number: the round after which that state is.
        """
        self._epoch = epoch
        if sender is not None:
            self._pieces = StatePieces(self.most)
            self._sender, self._round = sender, number
        early, self._early = self._early, {}
        for peer, those in early.items():
            for message in those.messages:
                self.take(peer, message)

    def take(self, peer: str, message: Message) -> None:
        """Takes a STATE message."""
        if message.payload_bytes > self.most:
            self._refuse(peer, f"state: expected at most {self.most} bytes, came a larger one")
        elif peer == self._sender and message.round == self._round:
            try:
                whole = self._pieces.take(message)
            except FrameError as error:
                self._refuse(peer, str(error))
                return
            if whole is not None and not self._came.done():
                self._came.set_result((peer, whole))
        elif message.epoch > self._epoch:
            self._wait(peer, message)
        elif message.epoch < self._epoch:
            log.warning("dropped a state of epoch %d from %s", message.epoch, peer)
        else:
            self._refuse(peer, f"nobody told it to send the state after round {message.round}")

    def _wait(self, peer: str, message: Message) -> None:
        """Keeps a piece of a state of a later epoch."""
        early = self._early.get(peer)
        if early is None or early.messages[0].epoch < message.epoch:
            early = self._early[peer] = _Early([], asyncio.get_running_loop().time())
        known = {each.chunk for each in early.messages}
        kept = sum(each.payload_bytes for each in early.messages)
        if message.chunk in known or kept + message.payload_bytes > self.most:
            self._refuse(peer, f"a state of epoch {message.epoch} from it waits already")
            return
        early.messages.append(message)

    def expire(self, seconds: float) -> None:
        """Refuses states that were early for longer; called at every heartbeat."""
        before = asyncio.get_running_loop().time() - seconds
        for peer in [peer for peer, early in self._early.items() if early.since < before]:
            epoch = self._early.pop(peer).messages[0].epoch
            self._refuse(peer, f"a state: epoch {epoch} has not come in {seconds:g} s")

    async def receive(self, read: Callable[[Payload], Any], what: str) -> tuple[int, Any]:
        """Waits for the state.

        Args:
          read: reads the payload; raises ``FrameError`` if it is no such state. Then its sender is
            named, and the next one counts.
          what: it is, for errors.

        Raises:
          WaitTimeout: it has not come in time.

        Returns:
          The round after which it is (−1: none), and the state.
        """
        while True:
            peer, message = await wait_for(
                self._came,
                describe=lambda: f"{what} from {self._sender}",
                timeout=self._timeouts.round,
                warn=self._timeouts.warn,
            )
            try:
                return message.round, read(message.payload)
            except FrameError as error:
                self._came = asyncio.get_running_loop().create_future()
                self._refuse(peer, f"{what}: {error}")
