"""One member's part in the cuts of a push-pull exchange: its state, and the markers that it sends.

See :mod:`geojax.hips.exchange.cuts` for what a cut is.
"""

from __future__ import annotations

from typing import Any

from geojax.hips.exchange.base import Gate
from geojax.hips.exchange.cuts import Cut, Cuts
from geojax.hips.exchange.pulled_chunks import PulledChunks
from geojax.hips.exchange.push_sender import PushSender
from geojax.hips.exchange.pushed_rounds import PushedRounds
from geojax.hips.exchange.served_shard import ServedShard
from geojax.hips.exchange.shard_server import ShardServer
from geojax.wire.message import Message


class CutPart:
    """A member's part in cuts.

    Args:
      me: the member.
      cuts: those of the run; None: it keeps no checkpoints.
      contributes: the member has rounds of its own.
      gate: knows whether the membership is changing.
      sender: sends markers.
      server: its shards.
      pulled: what it pulled last.
      rounds: its rounds.
    """

    def __init__(
        self,
        me: str,
        cuts: Cuts | None,
        *,
        contributes: bool,
        gate: Gate,
        sender: PushSender,
        server: ShardServer,
        pulled: PulledChunks,
        rounds: PushedRounds,
    ):
        self._me, self._cuts, self._contributes = me, cuts, contributes
        self._gate, self._sender, self._server = gate, sender, server
        self._pulled, self._rounds = pulled, rounds

    def resume(self) -> None:
        """An epoch begins."""
        policy = self._sender.policy
        if self._cuts is not None and policy is not None:
            self._cuts.resume(self._me, policy.members, self._sender.homes)

    def note_pulled(self) -> None:
        """What this member has pulled is that of its last whole round."""
        if self._cuts is not None:
            self._cuts.pulled = self._pulled.state()

    def held(self) -> None:
        """This member holds a round: takes its part in a cut that has waited for that."""
        self.note_pulled()
        if self._cuts is not None and self._cuts.postponed is not None:
            self._keep(self._cuts.postponed)

    def merged(self, hosted: ServedShard) -> None:
        """A shard that is served here has a new version."""
        if self._cuts is None or 0 not in hosted.shard.chunks:
            return
        cut = None if hosted.goes_on else self._cuts.due(hosted.shard.version)
        if cut is not None:
            self._keep(cut)

    def take_marker(self, peer: str, message: Message) -> str:
        """Takes a peer's marker, or says why not."""
        homes, policy = self._sender.homes, self._sender.policy
        assert policy is not None
        if peer not in (*policy.members, *homes) or peer == self._me:
            return "no member"
        if self._me not in homes and peer not in homes:
            return "only servers tell of cuts here"
        if self._cuts is None:
            return "no checkpoints are kept here"
        cut = self._cuts.hear(peer, message.round, (message.body or {})["cut"])
        if self._rounds.returning:
            self._cuts.postponed = cut or self._cuts.postponed  # until it holds a round
        elif cut is not None:
            self._keep(cut)
        return ""

    def _keep(self, cut: Cut) -> None:
        assert self._cuts is not None
        held = self._rounds.held if self._contributes else None
        self._cuts.keep(cut, held, self.take(cut))

    def take(self, cut: Cut) -> dict[str, Any]:
        """Takes this member's part in a cut, and tells those that it pushes to or answers.

        Nobody is told while the membership changes: then the cut is never complete.
        """
        policy = self._sender.policy
        assert self._cuts is not None
        assert policy is not None
        self._cuts.take(cut)
        peers = policy.members if self._server.shards else self._sender.servers
        for peer in () if self._gate.frozen else peers:
            if peer != self._me:
                self._sender.marker(peer, cut)
        return {"shards": self._server.state(), "pulled": self._cuts.pulled}
