"""A whole state on its way to one member: pieces that fit messages, and what is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from geojax.errors import FrameError
from geojax.wire.message import Kind, Message

PIECE_BYTES = 64 << 20
_MOST = 65_536  # pieces of one state
_PIECES = "pieces"  # in the body: how many there are, if several; ``chunk`` counts them


def state_messages(group: int, epoch: int, number: int, payload: np.ndarray) -> Iterator[Message]:
    """The messages that carry the state after a round, in order.

    Args:
      group: of the exchange.
      epoch: of the membership.
      number: of the round.
      payload: the packed state, uint8.
    """
    count = max(1, -(-payload.nbytes // PIECE_BYTES))
    whole = Message(Kind.STATE, group=group, epoch=epoch, round=number, payload=payload)
    if count == 1:
        yield whole
        return
    for at in range(count):
        piece = payload[at * PIECE_BYTES : (at + 1) * PIECE_BYTES]
        yield replace(whole, chunk=at, body={_PIECES: count}, payload=piece)


class StatePieces:
    """Puts the pieces of one sender's state together, in whatever order they come.

    Args:
      most: bytes of the largest state.
    """

    def __init__(self, most: int):
        self._pieces: dict[int, np.ndarray] = {}
        self._count, self._most = 0, most

    def take(self, message: Message) -> Message | None:
        """Takes a piece; returns the whole state when it was the last one.

        Raises:
          FrameError: it is no piece of this state.
        """
        body = message.body or {}
        if not body:
            self._pieces.clear()
            return message
        count, payload = body.get(_PIECES), message.payload
        if set(body) != {_PIECES} or type(count) is not int or not 1 < count <= _MOST:
            raise FrameError(f"state: expected a number of pieces, came {body!r:.100}")
        if not 0 <= message.chunk < count or not isinstance(payload, np.ndarray):
            raise FrameError(f"state: no piece {message.chunk} of {count}")
        if count != self._count:
            self._pieces, self._count = {}, count
        others = sum(each.nbytes for at, each in self._pieces.items() if at != message.chunk)
        if others + payload.nbytes > self._most:
            raise FrameError(f"state: expected at most {self._most} bytes in all")
        self._pieces[message.chunk] = payload
        if len(self._pieces) < count:
            return None
        whole = np.concatenate([self._pieces[at] for at in range(count)])
        self._pieces = {}
        return replace(message, chunk=0, body=None, payload=whole)
