"""What a member tells the scheduler about the others."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from geojax.hips.context import NodeContext
from geojax.hips.control.messages import ControlMessage, LostPeer
from geojax.wire.message import Kind

log = logging.getLogger("geojax.member")


class Complaints:
    """A member's complaints.

    Args:
      context: its node.
      say: tells the scheduler.
      epoch: the membership epoch now.
    """

    def __init__(
        self,
        context: NodeContext,
        say: Callable[[ControlMessage], None],
        epoch: Callable[[], int],
    ):
        self._context, self._say, self._epoch = context, say, epoch
        self._last: dict[str, int] = {}  # peer: the epoch in which it was complained about
        self._patience: dict[tuple[int, ...], float] = {}

    def refuse(self, kind: Kind, peer: str, why: str) -> None:
        """Names who made a message that no exchange gets to see."""
        self._context.recorder.event("refused", peer=peer, kind=kind.name, why=why)
        log.warning("%s: refused %s from %s: %s", self._context.name, kind.name, peer, why)
        self.refused(peer, why)

    def refused(self, peer: str, why: str) -> None:
        """Tells of a refused message, once an epoch for each peer.

        See :class:`geojax.hips.exchange.base.Gate`.
        """
        epoch = self._epoch()
        if self._is_member(peer) and self._last.get(peer, -1) < epoch:
            self._last[peer] = epoch
            self._say(LostPeer(peer, f"refused: {why}"[:1000], refused=True))

    def owed(self, peer: str, what: str, accuses: bool) -> None:
        """Tells of what does not come, and perhaps for no fault of the peer."""
        if self._is_member(peer):
            self._say(LostPeer(peer, what[:1000], refused=accuses or None, silent=True))

    def lost(self, peer: str, why: str) -> None:
        """Tells that a connection has ended."""
        self._context.recorder.event("lost", peer=peer)
        self._say(LostPeer(peer, why[:1000]))

    def _is_member(self, peer: str) -> bool:
        return peer in self._context.setup.cluster.members

    def patience(self, sizes: tuple[int, ...]) -> float:
        """So long an honest peer may send nothing although it owes something, s.

        That is a fifth of ``timeouts.round``; or, where it is more, four times what vectors for all
        members take over the slowest link: others may be before it, and links may be slower than
        when the run started.

        Args:
          sizes: elements of each chunk.
        """
        if sizes not in self._patience:
            setup = self._context.setup
            view, members = setup.view, len(setup.cluster.members)
            rates = [*view.rate.values(), *view.egress.values(), *view.ingress.values()]
            whole = 4 * members * 32 * sum(sizes) / min(rates, default=math.inf)
            self._patience[sizes] = max(setup.config.timeouts.round / 5, whole)
        return self._patience[sizes]
