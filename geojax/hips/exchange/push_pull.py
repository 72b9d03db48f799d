"""The server exchange: every center pushes and pulls at its own pace (MixedSync, DC-ASGD).

A policy's trees are stars. The root of each is a global server: it hosts a *shard*, the chunks of
its star. A center pushes round n of its own count to all shards (OFFER, with the version that its
offer was computed at); a shard applies a push at once when all its chunks are in, and answers that
center alone with its new parameters (RESULT, with their version). Push and pull are one round trip.
Pushes are applied in the order in which they are whole, one after the other; a root's own push
takes no network and stands in the same line.

**Staleness bound** (Ho et al., *More Effective Distributed ML via a Stale Synchronous Parallel
Parameter Server*, NIPS 2013). With bound s, a shard holds back the answer to round n until it has
applied round n − s of every center. An answer has the parameters of the moment in which it leaves.
Shards decide on their own, and there is no deadlock: pushes are never held back, only answers. Take
a center with the fewest rounds done, k. Every other one has pushed round k − 1 to all shards, and
those that have not pushed round k will, as they wait for nothing. Then at every shard nobody's
progress is below k, so that round k is answered for any s ≥ 0, and the fewest rounds done grow. A
center that makes no more offers says so (:meth:`PushPullExchange.retire`) and is not counted.

**Changes of the membership.** Shards survive an epoch; what was on its way does not. Centers send
pushes that were not answered again, and a shard that has applied one already only answers it. The
dead are not counted any more. When a server dies, the new policy gives its chunks to another root,
which goes on from what it pulled of them last, with fresh outer state and no backups; with the
parameters it has pulled whose pushes they contain, so none counts twice. What the dead server
applied after that is lost, unless its sender still waits for the answer: ``shard_moved`` says from
which version the shard goes on. A center that comes back pulls without a push, and goes on behind
the highest round that any center holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geojax.compression.codec import Codec
from geojax.errors import GeojaxError
from geojax.hips.exchange.contribution import Contribution, is_refused
from geojax.hips.exchange.shard import ShardMaker
from geojax.hips.exchange.shard_server import Pulled, ServedShard, ShardServer, ShardWatcher
from geojax.machine.machine import Machine
from geojax.overlay.policy.placement import place
from geojax.overlay.policy.policy import Policy
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import Kind, Message
from geojax.wire.transport import Transport

log = logging.getLogger("geojax.hips")


@dataclass
class _Round:
    """One round of this member."""

    own: dict[int, Contribution] = field(default_factory=dict)  # kept until all is answered
    results: dict[int, Contribution] = field(default_factory=dict)
    asked: dict[range, asyncio.Future[list[Contribution]]] = field(default_factory=dict)

    def give_out(self) -> None:
        """Gives out everything that was asked for and is here."""
        for chunks, wanted in self.asked.items():
            if not wanted.done() and all(chunk in self.results for chunk in chunks):
                wanted.set_result([self.results[chunk] for chunk in chunks])

    @property
    def given(self) -> int:
        """Number of chunks whose results have been given out."""
        return sum(len(chunks) for chunks, wanted in self.asked.items() if wanted.done())


class PushPullExchange:
    """One member's part in the exchanges of a group; see the module's docstring.

    It has the face of :class:`geojax.hips.exchange.tree.TreeExchange`, but the result of a round
    are parameters, not a merged offer.

    Args:
      me: this member's name.
      group: index of the group.
      values: the initial elements of each chunk; they must not change.
      transport: moves the chunks.
      codec: decodes pushes.
      answers: encodes parameters. A codec without residuals: each chunk's payload stands alone.
      make_shard: makes the shards that are hosted here.
      machine: charges the outer steps.
      recorder: takes the events.
      bound: the staleness bound in rounds; None: none.
      contributes: false for a global server that is no center.
      held: the last round that is done, when a run continues a broken one.
      layers: elements of each layer, for placements that go by layers.
      priorities: of each chunk, smaller first; by default its index.

    Attributes:
      answers: decodes the results of rounds.
      on_held: called with the number of a round when the last of its parameters are here.
      held: a center's last whole round; of a server that is no center the highest one applied.
    """

    keeps = True  # nobody asks this member for the results of a round

    def __init__(
        self,
        me: str,
        group: int,
        *,
        values: Sequence[np.ndarray],
        transport: Transport,
        codec: Codec,
        answers: Codec,
        make_shard: ShardMaker,
        machine: Machine,
        recorder: Recorder,
        bound: int | None = None,
        contributes: bool = True,
        held: int = -1,
        layers: Sequence[int] = (),
        priorities: Sequence[int] = (),
    ):
        self.me, self.group, self.sizes = me, group, tuple(part.size for part in values)
        self.layers = tuple(layers)
        self.epoch, self._held = -1, held
        self._transport, self._codec, self.answers = transport, codec, answers
        self._recorder, self._contributes = recorder, contributes
        self._host = ShardServer(
            codec=codec, answers=answers, make_shard=make_shard, machine=machine,
            recorder=recorder, bound=bound, answer=self._answer,
        )  # fmt: skip
        self._priorities = tuple(priorities) or range(len(self.sizes))
        self.on_held: Callable[[int], None] = lambda _: None
        self.policy: Policy | None = None
        self._frozen = True
        self._early: list[tuple[str, Message]] = []
        self._homes: tuple[str, ...] = ()  # the root of each chunk
        self._trees: tuple[int, ...] = ()  # the tree of each chunk
        self._rounds: dict[int, _Round] = {}
        self._initial = dict(enumerate(values))  # until something was pulled
        self._pulled = {chunk: Pulled(None, 0, {}) for chunk in self._initial}
        self._moved: set[int] = set()  # chunks whose server died since they were pulled
        self._returning = False
        self._retired = False

    @property
    def held(self) -> int:
        """See the class's docstring."""
        return self._held if self._contributes else max(self._held, self._host.highest)

    @property
    def hosted(self) -> tuple[ServedShard, ...]:
        """The shards hosted here, in order of their first chunks."""
        return self._host.shards

    def watch(self, watcher: ShardWatcher) -> None:
        """Has ``watcher`` told about the shards hosted here; call it before :meth:`resume`."""
        self._host.watcher = watcher

    # ---- the center's own side

    def offer(self, number: int, chunk: int, contribution: Contribution) -> None:
        """Pushes one chunk of a round. The payload must not change until the round is whole.

        A second offer of the same chunk changes nothing, as in a tree exchange.
        """
        if number <= self.held or chunk in self._round(number).own:
            return
        self._round(number).own[chunk] = contribution
        if not self._frozen:
            self._push(number, chunk)

    async def whole(self, number: int) -> list[Contribution]:
        """Waits until all shards have answered a round: the parameters, encoded by ``answers``.

        A center that comes back waits for the round that it was told to skip to.
        """
        return await self.ask(number, range(len(self.sizes)))

    def ask(self, number: int, chunks: range) -> asyncio.Future[list[Contribution]]:
        """The parameters of some chunks after a round, once they are here.

        The round is held when all of them are here and somebody has asked for each.
        """
        entry = self._round(number)
        if chunks not in entry.asked:
            entry.asked[chunks] = asyncio.get_running_loop().create_future()
            self._check_whole(number)
        return entry.asked[chunks]

    def missing(self, number: int) -> str:
        """Says what a round still waits for, and from whom."""
        entry = self._rounds.get(number)
        if entry is None or not self._homes:
            return f"anything of round {number}"
        open_ = [chunk for chunk in range(len(self.sizes)) if chunk not in entry.results]
        own = [chunk for chunk in open_ if chunk not in entry.own and not self._returning]
        if own:
            return f"chunk {own[0]} of round {number} from {self.me}"
        if not open_:
            return f"round {number}"
        chunk = open_[0]
        whom = self._homes[chunk]
        if chunk in self._host:
            whom = f"{whom}, which waits for {', '.join(self._host.behind(chunk))}"
        return f"parameters of chunk {chunk} after round {number} from {whom}"

    def retire(self) -> None:
        """This center makes no more offers: nobody waits for it any longer."""
        self._retired = True
        if not self._frozen:
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
        self._held, self._returning = held, True
        self._pulled.clear()
        self._initial.clear()

    # ---- the peers' side

    def handle(self, peer: str, message: Message) -> None:
        """Takes a message of this group. Old epochs are dropped and logged, new ones wait.

        Payloads that nobody could decode are refused; see :mod:`geojax.hips.exchange.contribution`.
        """
        assert message.epoch >= 0
        if message.epoch < self.epoch:
            self._recorder.event("dropped", peer=peer, epoch=message.epoch, now=self.epoch)
            log.warning("%s: dropped a chunk of epoch %d from %s", self.me, message.epoch, peer)
            return
        if message.epoch > self.epoch or self._frozen:
            self._early.append((peer, message))
            return
        if not 0 <= message.chunk < len(self.sizes):
            log.warning("%s: refused chunk %d from %s: no such chunk", self.me, message.chunk, peer)
            return
        body = message.body or {}
        if message.kind is Kind.OFFER and "retired" in body:
            self._host.retire(peer)
        elif message.kind is Kind.OFFER and "begin" in body:
            self._on_begin(peer, message.round)
        elif message.kind is Kind.OFFER:
            if is_refused(self.me, peer, message, self._codec, self.sizes[message.chunk]):
                return
            part = Contribution(message.payload, message.weight, message.contributors)
            self._on_push(peer, message.round, message.chunk, part, int(body.get("base", -1)))
        elif message.kind is Kind.RESULT:
            if peer != self._homes[message.chunk]:
                log.warning("%s: refused parameters from %s: not its server", self.me, peer)
                return
            if is_refused(self.me, peer, message, self.answers, self.sizes[message.chunk]):
                return
            version, applied = int(body["version"]), dict(body["applied"])
            self._on_answer(message.round, message.chunk, Pulled(message.payload, version, applied))
        else:
            log.warning("%s: refused %s from %s", self.me, message.kind.name, peer)

    # ---- membership

    def freeze(self, epoch: int) -> None:
        """Stops taking part until :meth:`resume`; messages of older epochs are dropped."""
        self.epoch = epoch
        self._frozen = True
        self._host.stop()

    def resume(
        self, epoch: int, policy: Policy, *, held: int = -1, lacking: Sequence[str] = ()
    ) -> None:
        """Takes part in ``epoch`` under ``policy``.

        ``held`` and ``lacking`` mean nothing here: every center has rounds of its own.

        Raises:
          GeojaxError: the policy takes chunks from this living server, or gives it some of which
            it has no parameters.
        """
        del held, lacking
        self.epoch, self.policy, self._frozen = epoch, policy, False
        before = self._homes
        self._trees = place(policy, self.sizes, self.layers)
        self._homes = tuple(policy.trees[tree].root for tree in self._trees)
        if before:
            chunks = range(len(self.sizes))
            self._moved |= {chunk for chunk in chunks if before[chunk] != self._homes[chunk]}
        elif not self._returning:
            start = dict.fromkeys(policy.members, self._held)
            self._pulled = {c: p._replace(applied=start) for c, p in self._pulled.items()}
        self._host.resume(policy.members)
        self._take_over(before)
        self._send_again()
        early, self._early = self._early, []
        for peer, message in early:
            self.handle(peer, message)

    # ---- a center's messages

    def _round(self, number: int) -> _Round:
        entry = self._rounds.get(number)
        if entry is None:
            entry = self._rounds[number] = _Round()
        return entry

    def _push(self, number: int, chunk: int) -> None:
        contribution = self._rounds[number].own[chunk]
        pulled = self._pulled.get(chunk)
        base = -1 if pulled is None or chunk in self._moved else pulled.version
        home = self._homes[chunk]
        if home == self.me:
            self._on_push(self.me, number, chunk, contribution, base)
            return
        message = self._message(
            Kind.OFFER, number, chunk, codec=self._codec.wire, weight=contribution.weight,
            contributors=contribution.contributors, payload=contribution.payload,
            body={"base": base},
        )  # fmt: skip
        self._transport.send(home, message, priority=self._priorities[chunk])

    def _send_again(self) -> None:
        """What was not answered before the epoch changed, whole for every server that owes some."""
        if self._returning:
            self._round(self.held).results.clear()
            for home in dict.fromkeys(self._homes):
                if home == self.me:
                    self._on_begin(self.me, self.held)
                else:
                    self._note(home, self.held, "begin")
        for number in sorted(n for n in self._rounds if n > self.held):
            entry = self._rounds[number]
            if entry.given:
                raise GeojaxError(
                    f"{self.me}: the membership changed when round {number} was applied in part, "
                    "layer by layer; run it without sync.p3 to survive that"
                )
            owing = {
                home
                for chunk, home in enumerate(self._homes)
                if chunk not in entry.results or chunk in self._moved
            }
            again = [chunk for chunk, home in enumerate(self._homes) if home in owing]
            for chunk in again:
                entry.results.pop(chunk, None)
            for chunk in again:
                if chunk in entry.own:
                    self._push(number, chunk)
        if self._retired:
            self._say_retired()

    def _say_retired(self) -> None:
        for home in dict.fromkeys(self._homes):
            if home == self.me:
                self._host.retire(self.me)
            else:
                self._note(home, self.held, "retired")

    def _note(self, home: str, number: int, what: str) -> None:
        self._transport.send(home, self._message(Kind.OFFER, number, 0, body={what: True}))

    def _message(self, kind: Kind, number: int, chunk: int, **fields: Any) -> Message:
        assert self.policy is not None
        return Message(
            kind, group=self.group, epoch=self.epoch, policy=self.policy.version,
            tree=self._trees[chunk], round=number, chunk=chunk, **fields,
        )  # fmt: skip

    def _on_answer(self, number: int, chunk: int, pulled: Pulled) -> None:
        if number <= self.held and not (self._returning and number == self.held):
            return
        self._pulled[chunk] = pulled
        self._initial.pop(chunk, None)
        self._moved.discard(chunk)
        self._round(number).results[chunk] = Contribution(pulled.payload, 1.0, 1)
        self._recorder.chunk_event("result", round=number, chunk=chunk)
        self._check_whole(number)

    def _check_whole(self, number: int) -> None:
        entry = self._round(number)
        entry.give_out()
        if entry.given == len(self.sizes):
            self._held, self._returning = number, False
            self.on_held(number)
            for old in [n for n in self._rounds if n <= number]:
                del self._rounds[old]

    # ---- a global server's work

    def _take_over(self, before: Sequence[str]) -> None:
        """Hosts the chunks that the policy newly gives to this server."""
        groups: dict[Any, list[int]] = {}
        for chunk, home in enumerate(self._homes):
            mine = home == self.me
            if chunk in self._host and not mine:
                raise GeojaxError(f"the policy takes chunk {chunk} from {self.me}, which holds it")
            if chunk in self._host or not mine:
                continue
            if chunk not in self._pulled or (before and not self._contributes):
                raise GeojaxError(f"{self.me} is to hold chunk {chunk}, but has no parameters yet")
            pulled = self._pulled[chunk]
            history = tuple(sorted(pulled.applied.items()))
            origin = before[chunk] if before else None
            groups.setdefault((origin, pulled.version, history), []).append(chunk)
        for (origin, version, history), chunks in groups.items():
            values = [self._floats(chunk) for chunk in chunks]
            self._host.add(chunks, values, version, dict(history), everyone=not before)
            if origin is not None:
                log.warning(
                    "%s: goes on for %s with chunks %s from version %d; later updates of them are "
                    "lost", self.me, origin, _span(chunks), version,
                )  # fmt: skip
                self._recorder.event("shard_moved", origin=origin, chunks=chunks, version=version)

    def _on_push(
        self, center: str, number: int, chunk: int, contribution: Contribution, base: int
    ) -> None:
        assert self.policy is not None
        if chunk not in self._host or center not in self.policy.members:
            why = "no member" if chunk in self._host else "not its server"
            log.warning("%s: refused chunk %d from %s: %s", self.me, chunk, center, why)
            return
        self._host.push(center, number, chunk, contribution, base)

    def _on_begin(self, center: str, number: int) -> None:
        assert self.policy is not None
        if center not in self.policy.members:
            log.warning("%s: refused a pull from %s: no member", self.me, center)
            return
        self._host.begin(center, number)

    def _answer(self, center: str, number: int, chunk: int, pulled: Pulled) -> None:
        if center == self.me:
            self._on_answer(number, chunk, pulled)
            return
        message = self._message(
            Kind.RESULT, number, chunk, codec=self.answers.wire, weight=1.0, contributors=1,
            payload=pulled.payload, body={"version": pulled.version, "applied": pulled.applied},
        )  # fmt: skip
        self._transport.send(center, message, priority=self._priorities[chunk])

    def _floats(self, chunk: int) -> np.ndarray:
        """What this member has of a chunk: the initial elements, or what it pulled last."""
        if chunk in self._initial:
            return self._initial[chunk]
        return self.answers.decode(self._pulled[chunk].payload)  # type: ignore[arg-type]


def _span(chunks: Sequence[int]) -> str:
    return str(chunks[0]) if len(chunks) == 1 else f"{chunks[0]} to {chunks[-1]}"
