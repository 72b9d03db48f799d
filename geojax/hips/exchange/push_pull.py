"""Push and pull: every center pushes and pulls at its own pace (MixedSync, DC-ASGD).

A policy's trees are stars. The root of each is a global server: it hosts a *shard*, the chunks of
its star. A center pushes round n of its own count to all shards (OFFER, with the version that its
offer was computed at); a shard applies a push at once when all its chunks are in, and answers that
center alone with its new parameters (RESULT, with their version). Push and pull are one round trip.
Pushes are applied one after the other, in the order in which they are complete; a root's own push
crosses no network and waits in the same queue.

**Staleness bound** (Ho et al., *More Effective Distributed ML via a Stale Synchronous Parallel
Parameter Server*, NIPS 2013). With bound s, a shard holds back the answer to round n until it has
applied round n − s of every center. An answer has the parameters of the moment in which it leaves.
Shards decide on their own, and there is no deadlock: pushes are never held back, only answers. Take
a center with the fewest rounds done, k. Every other one has pushed round k − 1 to all shards, and
those that have not pushed round k will, as they wait for nothing. Then no center's progress is
below k at any shard, so round k is answered for any s ≥ 0, and the fewest rounds done grow. A
center that makes no more offers says so (:meth:`PushPullExchange.retire`) and is not counted.

**Changes of the membership.** Shards survive an epoch; messages in flight do not. Centers repeat
pushes that were not answered, and a shard that has applied such a push only answers it. Dead
centers are not counted any more. When a server dies, the new policy gives its chunks to another
root. That root goes on from the parameters that it pulled last, with fresh outer state and no
backups. They came with the rounds that they contain, so no push counts twice. Pushes that the dead
server applied later are lost, unless their senders still wait for the answers; the event
``shard_moved`` has the version from which the shard goes on. A center that comes back pulls without
a push, and goes on after the highest round that any center holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from geojax.compression.codec import Codec
from geojax.errors import FrameError, GeojaxError
from geojax.hips.cluster import WAN_GROUP
from geojax.hips.exchange.base import Gate, RoundWatcher, Sender
from geojax.hips.exchange.buckets import Chunks
from geojax.hips.exchange.contribution import (
    PARAMETERS,
    Allowance,
    Contribution,
    is_count,
    received,
)
from geojax.hips.exchange.cut_part import CutPart
from geojax.hips.exchange.cuts import Cut, Cuts
from geojax.hips.exchange.debts import Owed
from geojax.hips.exchange.pulled_chunks import PulledChunks
from geojax.hips.exchange.push_sender import PushSender
from geojax.hips.exchange.pushed_rounds import PushedRounds
from geojax.hips.exchange.served_shard import ServedShard
from geojax.hips.exchange.shard_server import Pulled, ShardServer
from geojax.overlay.policy.policy import Policy
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import Kind, Message

log = logging.getLogger("geojax.hips")


class PushPullExchange:
    """One member's part in the exchanges of a group; see the module's docstring.

    The results of a round are parameters, not merged offers. See
    :class:`geojax.hips.exchange.base.Exchange` for the methods without a docstring here.

    Args:
      me: this member's name.
      group: index of the group.
      values: the initial elements of each chunk; they must not change.
      transport: moves the chunks.
      codec: decodes pushes.
      server: the shards that this member serves; it answers by :meth:`send_answer`.
      recorder: takes the events.
      allowances: what the pushes of each member may carry; a global server that is no center is
        not in it.
      layers: elements of each layer, for placements that go by layers.
      priorities: of each chunk, smaller first; by default its index.
      cuts: for checkpoints; None: none are kept.

    Attributes:
      held: a center's last whole round; of a server that is no center the highest one applied.
      on_merged: called with a shard that is served here whenever it has a new version.
    """

    replicas = False
    keeps = True  # nobody asks this member for the results of a round

    def __init__(
        self,
        me: str,
        group: int,
        *,
        values: Sequence[np.ndarray],
        transport: Sender,
        codec: Codec,
        server: ShardServer,
        recorder: Recorder,
        allowances: Mapping[str, Allowance],
        layers: Sequence[int] = (),
        priorities: Sequence[int] = (),
        cuts: Cuts | None = None,
    ):
        self.me, self.group, self.sizes = me, group, tuple(part.size for part in values)
        self.layers = tuple(layers)
        self.gate = Gate(me, recorder, len(values))
        self.gate.owed = self._owed
        priorities = tuple(priorities) or range(len(self.sizes))
        self._sender = PushSender(group, transport, self.gate, priorities)
        self._codec, self._recorder = codec, recorder
        self._contributes, self._allowances = me in allowances, allowances
        self._server = server
        server.answers_by = self
        self.watcher: RoundWatcher | None = None
        self.on_merged: Callable[[ServedShard], None] = lambda _: None
        self._rounds = PushedRounds(len(self.sizes))
        self._pulled = PulledChunks(values, server.answers)
        self._cut_part = CutPart(
            me, cuts, contributes=self._contributes, gate=self.gate, sender=self._sender,
            server=server, pulled=self._pulled, rounds=self._rounds,
        )  # fmt: skip
        self._suspended: tuple[int, Policy] | None = None

    def go_on(self, held: int, kept: Mapping[str, Any] | None = None) -> None:
        """Continues a broken run; before the first epoch.

        Args:
          held: the last round that is done.
          kept: this exchange's part of the cut from which the run goes on; None: there is none.

        Raises:
          GeojaxError: it is a cut of another run.
        """
        self._rounds.held = held
        if kept is None:
            return
        for shard in kept["shards"]:
            for chunk, part in zip(shard["chunks"], shard["values"], strict=True):
                if self.sizes[chunk : chunk + 1] != (part.size,):
                    raise GeojaxError(_another_run(self.me, chunk))
        self._pulled.load(kept["pulled"])
        self._server.load(kept["shards"])
        self._cut_part.note_pulled()

    @property
    def policy(self) -> Policy | None:
        """The policy of the epoch; None: there is none yet."""
        return self._sender.policy

    @property
    def held(self) -> int:
        """See the class's docstring."""
        held = self._rounds.held
        return held if self._contributes else max(held, self._server.highest)

    def contains(self, center: str) -> int:
        """The last round of a center that is in what this member pulled last; −1: none."""
        return self._pulled[0].applied.get(center, -1) if 0 in self._pulled else -1

    @property
    def hosted(self) -> tuple[ServedShard, ...]:
        """The shards served here, in order of their first chunks."""
        return self._server.shards

    # ---- the center's own side

    def offer(self, number: int, chunk: int, contribution: Contribution) -> None:
        """Pushes one chunk of a round. The payload must not change until the round is whole.

        Later offers of the same chunk are ignored, as in a tree exchange.
        """
        if self._rounds.offer(number, chunk, contribution) and not self.gate.frozen:
            self._push(number, chunk)

    async def whole(self, number: int) -> list[Contribution]:
        """Waits until all shards have answered a round: the parameters, encoded by ``answers``.

        A center that comes back waits for the round that it was told to skip to.
        """
        return await asyncio.shield(self.results(number, range(len(self.sizes))))

    def results(self, number: int, chunks: Chunks) -> asyncio.Future[list[Contribution]]:
        """The parameters of some chunks after a round, once they are here.

        The round is held when all of them are here and somebody has asked for each.
        """
        results, new = self._rounds.ask(number, chunks)
        if new:
            self._check_whole(number)
        return results

    def missing(self, number: int) -> str:
        """Says what a round still waits for, and from whom."""
        if number not in self._rounds or not self._sender.homes:
            return f"anything of round {number}"
        entry = self._rounds[number]
        open_ = [chunk for chunk in range(len(self.sizes)) if chunk not in entry.results]
        own = [chunk for chunk in open_ if chunk not in entry.own and not self._rounds.returning]
        if own:
            return f"chunk {own[0]} of round {number} from {self.me}"
        if not open_:
            return f"round {number}"
        chunk = open_[0]
        whom = self._sender.homes[chunk]
        if chunk in self._server:
            whom = f"{whom}, which waits for {', '.join(self._server.behind(chunk))}"
        return f"parameters of chunk {chunk} after round {number} from {whom}"

    def retire(self) -> None:
        """This center makes no more offers: no answer waits for it."""
        self._rounds.retired = True
        if not self.gate.frozen:
            self._say_retired()

    def learn(self, sizes: Sequence[int], layers: Sequence[int]) -> None:
        """How vectors are cut: known here, as this member holds parameters.

        Raises:
          GeojaxError: it is known otherwise.
        """
        if (tuple(sizes), tuple(layers)) != (self.sizes, self.layers):
            raise GeojaxError(f"{self.me}: the scheduler tells of other chunks than the model has")

    def skip_to(self, held: int) -> None:
        """This center comes back, and goes on with round ``held + 1`` from pulled parameters.

        They are the result of :meth:`whole` for round ``held``.
        """
        self._rounds.held, self._rounds.returning = held, True
        self._pulled.forget()
        self._server.forget()

    def host(self, values: Sequence[np.ndarray]) -> None:
        """A LAN's server that comes back serves its workers from now on, with these elements.

        What they asked for since :meth:`skip_to` has waited for it.
        """
        self._pulled.restart(values)
        self._rounds.returning = False
        if self._suspended is not None:
            self.resume(*self._suspended)

    def grant(self, until: int) -> None:
        """All rounds of an epoch go by one policy."""

    def change(self, first: int, policy: Policy) -> None:
        """Not possible: a server keeps its chunks as long as it lives.

        Raises:
          GeojaxError: always.
        """
        del policy
        raise GeojaxError(f"{self.me}: another policy from round {first} on, but servers stay")

    def stand_for(self, number: int, later: int) -> None:
        """Not possible: each member counts rounds of its own.

        Raises:
          GeojaxError: always.
        """
        raise GeojaxError(f"{self.me}: round {number} for {later}, but rounds are not common")

    def send_state(self, peer: str, number: int, payload: np.ndarray) -> None:
        """Sends the initial vector to a center that has a different one."""
        self._sender.state(peer, number, payload)

    # ---- the peers' side

    def handle(self, peer: str, message: Message) -> None:
        """Takes a message of this group; see :class:`geojax.hips.exchange.base.Gate`."""
        if not self.gate.admits(peer, message):
            return
        try:
            why = self._taken(peer, message)
        except FrameError as error:
            why = str(error)
        if why:
            self.gate.refuse(peer, message, why)

    def _taken(self, peer: str, message: Message) -> str:
        """Takes a message of this epoch, or says why not."""
        if not 0 <= message.chunk < len(self.sizes):
            return "no such chunk"
        if message.kind not in (Kind.OFFER, Kind.RESULT):
            return "neither a push nor an answer"
        assert self.policy is not None
        if message.policy != self.policy.version:
            return f"sent by policy {message.policy}, this epoch has {self.policy.version}"
        if "cut" in (message.body or {}):
            return self._cut_part.take_marker(peer, message)
        if message.kind is Kind.RESULT:
            return self._take_answer(peer, message)
        if peer not in self.policy.members or peer == self.me:
            return "no member"
        body = message.body or {}
        if "retired" in body:
            self._server.retire(peer)
        elif "begin" in body:
            self._server.begin(peer, message.round)
        else:
            return self._take_push(peer, message, body.get("base"))
        return ""

    def _take_push(self, peer: str, message: Message, base: Any) -> str:
        number, chunk = message.round, message.chunk
        if chunk not in self._server:
            return "not its server"
        contribution = received(message, self._codec, self.sizes[chunk])
        if contribution.abstains:
            return "a push brings values"
        if not is_count(base, -1):
            return f"expected the version that it was computed at, came {base!r:.40}"
        why = self._allowances[peer].refuses(message)
        why = why or self._server.out_of_turn(peer, number, chunk)
        if not why:
            self._server.push(peer, number, chunk, contribution, base)  # type: ignore[arg-type]
        return why

    def _take_answer(self, peer: str, message: Message) -> str:
        number, chunk, body = message.round, message.chunk, message.body or {}
        if peer != self._sender.homes[chunk] or peer == self.me:
            return "not its server"
        if received(message, self._server.answers, self.sizes[chunk]).abstains:
            return "an answer brings values"
        heavy = PARAMETERS.refuses(message)
        if heavy:
            return heavy
        version, applied = body.get("version"), body.get("applied")
        if not is_count(version):
            return f"expected the version of the parameters, came {version!r:.40}"
        if type(applied) is not dict or not all(
            type(name) is str and is_count(last, -1) for name, last in applied.items()
        ):
            return f"expected the last round of each center, came {applied!r:.40}"
        why = self._rounds.unasked(number, chunk)
        if not why:
            self._on_answer(number, chunk, Pulled(message.payload, version, applied))  # type: ignore[arg-type]
        return why

    def _owed(self, peer: str, message: Message) -> Owed:
        """Whether a peer has to send this message once more in this epoch.

        A center repeats pushes without an answer at once; answers may be held back.
        """
        number, chunk = message.round, message.chunk
        if not 0 <= chunk < len(self.sizes):
            return Owed.NOT
        if message.kind is Kind.OFFER:
            lacks = chunk in self._server and self._server.lacks(peer, number, chunk)
            return Owed.NOW if lacks else Owed.NOT
        lacks = self._rounds.awaits(number, chunk)
        wanted = message.kind is Kind.RESULT and lacks and peer == self._sender.homes[chunk]
        return Owed.LATER if wanted else Owed.NOT

    # ---- membership

    def freeze(self, epoch: int) -> None:
        """Stops taking part until :meth:`resume`; messages of older epochs are dropped."""
        self.gate.freeze(epoch)
        self._server.stop()
        self._suspended = None

    def resume(
        self,
        epoch: int,
        policy: Policy,
        *,
        held: int = -1,
        lacking: Sequence[str] = (),
        source: str | None = None,
    ) -> None:
        """Takes part in ``epoch`` under ``policy``; no rounds are sent: each center has its own.

        Raises:
          GeojaxError: the policy takes chunks from this living server, or gives it some of which
            it has no parameters.
        """
        del held, lacking, source
        if self._rounds.returning and self.group != WAN_GROUP and policy.trees[0].root == self.me:
            self._sender.policy, self._suspended = policy, (epoch, policy)
            self.gate.freeze(epoch)  # until it has something to serve
            return
        before, self._suspended = self._sender.homes, None
        self.gate.begin(epoch)
        self._sender.begin(policy, self.sizes, self.layers)
        if before:
            for chunk, home in enumerate(self._sender.homes):
                if before[chunk] != home:
                    self._pulled.move(chunk)
        elif not self._rounds.returning and not self._pulled.of_cut:
            self._pulled.begin(dict.fromkeys(policy.members, self._rounds.held))
            self._cut_part.note_pulled()
        self._cut_part.resume()
        self._server.resume(policy.members)
        self._take_over(before)
        self._send_again()
        for peer, message in self.gate.early():
            self.handle(peer, message)

    # ---- a center's messages

    def _push(self, number: int, chunk: int) -> None:
        contribution, base = self._rounds[number].own[chunk], self._pulled.base(chunk)
        home = self._sender.homes[chunk]
        if home == self.me:
            self._server.push(self.me, number, chunk, contribution, base)
            return
        self._sender.push(number, chunk, contribution, base, self._codec)

    def _send_again(self) -> None:
        """Repeats pushes without an answer: all chunks of each server that owes one."""
        if self._rounds.returning:
            self._rounds[self._rounds.held].begin_again()
            for home in self._sender.servers:
                if home == self.me:
                    self._server.begin(self.me, self._rounds.held)
                else:
                    self._sender.note(home, self._rounds.held, "begin")
        for number in (n for n in self._rounds if n > self._rounds.held):
            entry = self._rounds[number]
            if entry.given:
                raise GeojaxError(
                    f"{self.me}: the membership changed when round {number} was applied in part; "
                    "run it without sync.p3 and overlay.pieces to survive that"
                )
            owing = {
                home
                for chunk, home in enumerate(self._sender.homes)
                if chunk not in entry.results or self._pulled.has_moved(chunk)
            }
            again = [chunk for chunk, home in enumerate(self._sender.homes) if home in owing]
            entry.drop(again)
            for chunk in again:
                if chunk in entry.own:
                    self._push(number, chunk)
        if self._rounds.retired:
            self._say_retired()

    def _say_retired(self) -> None:
        for home in self._sender.servers:
            if home == self.me:
                self._server.retire(self.me)
            else:
                self._sender.note(home, self.held, "retired")

    def _on_answer(self, number: int, chunk: int, pulled: Pulled) -> None:
        if number <= self._rounds.held and not self._rounds.pulls(number):
            return
        self._pulled.take(chunk, pulled)
        self._rounds[number].take(chunk, Contribution(pulled.payload, 1.0, 1))
        self._recorder.chunk_event("result", round=number, chunk=chunk)
        self._check_whole(number)

    def _check_whole(self, number: int) -> None:
        if self._rounds.hold(number):
            self._cut_part.held()
            if self.watcher is not None:
                self.watcher.held(number)
            self._rounds.forget_before(number + 1)

    # ---- a global server's work

    def merged(self, hosted: ServedShard) -> None:
        """A shard that is served here has a new version; the shard server calls it."""
        self.on_merged(hosted)
        self._cut_part.merged(hosted)

    def part_of(self, cut: Cut) -> dict[str, Any]:
        """See :meth:`geojax.hips.exchange.cut_part.CutPart.take`."""
        return self._cut_part.take(cut)

    def _take_over(self, before: Sequence[str]) -> None:
        """Hosts the chunks that the policy newly gives to this server."""
        groups: dict[Any, list[int]] = {}
        for chunk, home in enumerate(self._sender.homes):
            mine = home == self.me
            if chunk in self._server and not mine:
                raise GeojaxError(f"the policy takes chunk {chunk} from {self.me}, which holds it")
            if chunk in self._server or not mine:
                continue
            if self._pulled.of_cut and not before and not self._rounds.returning:
                raise GeojaxError(_another_run(self.me, chunk))
            if chunk not in self._pulled or (before and not self._contributes):
                raise GeojaxError(f"{self.me} is to hold chunk {chunk}, but has no parameters yet")
            pulled = self._pulled[chunk]
            history = tuple(sorted(pulled.applied.items()))
            origin = before[chunk] if before else None
            groups.setdefault((origin, pulled.version, history), []).append(chunk)
        for (origin, version, history), chunks in groups.items():
            values = [self._pulled.elements(chunk) for chunk in chunks]
            self._server.add(chunks, values, version, dict(history), everyone=not before)
            if origin is not None:
                log.warning(
                    "%s: goes on for %s with chunks %s from version %d; later updates of them are "
                    "lost", self.me, origin, _span(chunks), version,
                )  # fmt: skip
                self._recorder.event("shard_moved", origin=origin, chunks=chunks, version=version)

    def send_answer(self, center: str, number: int, chunk: int, pulled: Pulled) -> None:
        """Answers one chunk of a center's push, or of its pull; the shard server calls it."""
        if center == self.me:
            self._on_answer(number, chunk, pulled)
            return
        self._sender.answer(center, number, chunk, pulled, self._server.answers)


def _another_run(me: str, chunk: int) -> str:
    return (
        f"{me}: chunk {chunk} is not as in the run that is to go on; give it the overlay, the WAN "
        "and the model that it had before, or start anew in another folder"
    )


def _span(chunks: Sequence[int]) -> str:
    return str(chunks[0]) if len(chunks) == 1 else f"{chunks[0]} to {chunks[-1]}"
