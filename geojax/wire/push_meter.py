"""How long a node was sending its offer, round by round."""

from __future__ import annotations

from geojax.wire.message import Kind, Message


class PushMeter:
    """Observes a transport: for how long it was sending the offers of a round.

    The time is that of the union of the sendings, so waits between two chunks do not count and
    chunks that leave to two parents at once count once. Over TCP a message counts as sent when the
    kernel has taken it, so the last 128 KiB of an offer are not in the figure.

    Args:
      group: whose offers, see :class:`geojax.wire.message.Message`.
    """

    def __init__(self, group: int):
        self._group, self._round, self._until, self._seconds = group, -1, 0.0, 0.0

    def __call__(self, peer: str, message: Message, nbytes: int, start: float, end: float) -> None:
        """Takes one message that left between two loop times."""
        del peer, nbytes
        if message.kind is not Kind.OFFER or message.group != self._group:
            return
        if message.round < self._round:
            return  # a repeated offer of an older round
        if message.round > self._round:
            self._round, self._until, self._seconds = message.round, start, 0.0
        self._seconds += max(0.0, end - max(start, self._until))
        self._until = max(self._until, end)

    def seconds(self) -> float:
        """For the last round of which anything was sent, s; 0: nothing was sent yet."""
        return self._seconds
