"""The one reduce-and-broadcast engine: every tree overlay is executed here.

Each chunk of a round is reduced along its tree to the root, and the result goes down the same tree
or, where the policy says so, down another one from the same root.
A node sends a chunk up when it has its own contribution and those of all its children, summed in
member order, never in order of arrival, so that replicas are bit-identical. Nothing else couples
the chunks: each moves on as soon as it can.

When the membership changes (see :mod:`geojax.hips.scheduler`), a round that nobody holds whole is
run again from the kept offers; one that somebody holds is fetched from there. The last whole round
is kept until the next one is whole: then every member has contributed to that one, so every member
has applied the one before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from geojax.compression.codec import Codec, Parted
from geojax.errors import GeojaxError
from geojax.hips.machine import Machine
from geojax.overlay.policy import Policy, Tree, deal
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import Kind, Message, Payload
from geojax.wire.transport import Transport

log = logging.getLogger("geojax.hips")


class Contribution(NamedTuple):
    """A payload with the weight and the number of the contributions that are summed in it.

    Attributes:
      payload: what a merge waits for.
      weight: sum of the weights of the contributions.
      contributors: their number.
      late: see :class:`geojax.compression.codec.Parted`; part of an offer on its first hop only.
      datagrams: the same.
      loss: mean training loss of the contributions, by weight; None: nobody told.
    """

    payload: Payload
    weight: float
    contributors: int
    late: Payload = None
    datagrams: tuple[Payload, ...] = ()
    loss: float | None = None


def contribution_of(
    payload: Payload | Parted, weight: float, *, contributors: int = 1, loss: float | None = None
) -> Contribution:
    """What a codec gave for a chunk, as a contribution."""
    if isinstance(payload, Parted):
        now, late, datagrams = payload
        return Contribution(now, weight, contributors, late, datagrams, loss)
    return Contribution(payload, weight, contributors, loss=loss)


@dataclass
class _Asked:
    """Some chunks' results that somebody waits for."""

    results: asyncio.Future[list[Contribution]]
    missing: set[int]


@dataclass
class _Round:
    """One round at one member."""

    own: dict[int, Contribution] = field(default_factory=dict)  # kept for a re-run
    arrived: dict[int, dict[str, Contribution]] = field(default_factory=dict)
    results: dict[int, Contribution] = field(default_factory=dict)
    asked: dict[range, _Asked] = field(default_factory=dict)

    def take(self, chunk: int, result: Contribution) -> None:
        """Takes a result, and gives out every part that is whole with it."""
        self.results[chunk] = result
        for chunks, part in self.asked.items():
            if chunk in chunks:
                part.missing.discard(chunk)
                self.give_out(chunks, part)

    def give_out(self, chunks: range, part: _Asked) -> None:
        """Gives out a part if all of it is there."""
        if not part.missing and not part.results.done():
            part.results.set_result([self.results[chunk] for chunk in chunks])

    def begin_again(self) -> None:
        """Forgets what came from others."""
        self.arrived.clear()
        self.results.clear()
        for chunks, part in self.asked.items():
            part.missing = set(chunks)

    @property
    def given(self) -> int:
        """Number of chunks whose results have been given out."""
        return sum(len(chunks) for chunks, part in self.asked.items() if part.results.done())


RootHandler = Callable[[int, int, Contribution], None]


class TreeExchange:
    """One member's part in the exchanges of one group.

    Args:
      me: this member's name.
      group: index of the group (see :class:`geojax.wire.message.Message`).
      sizes: elements of each chunk.
      transport: moves the chunks.
      codec: sums payloads.
      machine: charges the sums.
      recorder: takes the events.
      contributes: false for a root that only merges (a local server among its workers).
      at_root: called with each fully reduced chunk at its root; by default it is the result.
      held: the last round that is done, when a run continues a broken one.
      priorities: of each chunk, smaller first; by default its index.

    Attributes:
      on_held: called with the number of a round when its last result is here.
    """

    def __init__(
        self,
        me: str,
        group: int,
        *,
        sizes: Sequence[int],
        transport: Transport,
        codec: Codec,
        machine: Machine,
        recorder: Recorder,
        contributes: bool = True,
        at_root: RootHandler | None = None,
        held: int = -1,
        priorities: Sequence[int] = (),
    ):
        self.me, self.group, self.sizes = me, group, tuple(sizes)
        self.epoch, self.held = -1, held
        self._transport, self._codec, self._machine = transport, codec, machine
        self._recorder = recorder
        self._contributes = contributes
        self._at_root = at_root or self.publish
        self._priorities = tuple(priorities) or range(len(self.sizes))
        self._rounds: dict[int, _Round] = {}
        self._early: list[tuple[str, Message]] = []
        self._frozen = True
        self.on_held: Callable[[int], None] = lambda _: None
        self.policy: Policy | None = None
        self._trees: tuple[Tree, ...] = ()
        self._placement: tuple[int, ...] = ()
        self._receivers: tuple[tuple[str, ...], ...] = ()
        self._expected: tuple[tuple[str, ...], ...] = ()

    # ---- the member's own side

    def offer(self, number: int, chunk: int, contribution: Contribution) -> None:
        """Contributes one chunk to a round. The payload must not change until the round ends.

        A second offer of the same chunk changes nothing: it comes from workers who repeat theirs
        after a change of the membership, while the first one is kept and sent again anyway.
        """
        if number <= self.held or chunk in self._round(number).own:
            return
        self._round(number).own[chunk] = contribution
        if not self._frozen:
            self._add(self.me, number, chunk, contribution)

    async def whole(self, number: int) -> list[Contribution]:
        """Waits for a round's result: the merged contribution of every chunk."""
        return await self.ask(number, range(len(self.sizes)))

    def ask(self, number: int, chunks: range) -> asyncio.Future[list[Contribution]]:
        """The merged contributions of some chunks of a round, once they are here.

        The round is held when all its results are here and somebody has asked for each of them.
        """
        entry = self._round(number)
        part = entry.asked.get(chunks)
        if part is None:
            loop = asyncio.get_running_loop()
            missing = {chunk for chunk in chunks if chunk not in entry.results}
            part = entry.asked[chunks] = _Asked(loop.create_future(), missing)
            entry.give_out(chunks, part)
            self._check_whole(number)
        return part.results

    @property
    def keeps(self) -> bool:
        """Whether the results of round ``held`` are still here, to be sent to others."""
        return self.held < 0 or len(self._round(self.held).results) == len(self.sizes)

    def skip_to(self, held: int) -> None:
        """Takes part from round ``held + 1`` on; for a member that comes back."""
        self.held = held

    def adopt(self, number: int, results: Sequence[Contribution], to: Sequence[str]) -> None:
        """Takes the results of a round as given, holds it, and sends it ``to`` other members."""
        self._round(number).results = dict(enumerate(results))
        self.held = number
        for peer in to:
            for chunk, result in enumerate(results):
                self._send(peer, Kind.AGGREGATE, number, chunk, result)

    def send_state(self, peer: str, number: int, payload: np.ndarray) -> None:
        """Sends the whole state after round ``number`` to a member that comes back."""
        message = Message(
            Kind.STATE, group=self.group, epoch=self.epoch, round=number, payload=payload
        )
        self._transport.send(peer, message)

    def publish(self, number: int, chunk: int, result: Contribution) -> None:
        """Sends a chunk's result down its tree; called at the root."""
        if not self._frozen:
            self._result(number, chunk, result)

    def missing(self, number: int) -> str:
        """Says what a round still waits for, and from whom."""
        entry = self._rounds.get(number)
        if entry is None or self.policy is None:
            return f"anything of round {number}"
        for chunk in range(len(self.sizes)):
            if chunk in entry.results:
                continue
            arrived = entry.arrived.get(chunk, {})
            absent = [name for name in self._expected_of(chunk) if name not in arrived]
            tree = self._trees[self._placement[chunk]]
            whom = absent or ([tree.source[self.me]] if tree.root != self.me else ["the merge"])
            return f"chunk {chunk} of round {number} from {', '.join(whom)}"
        return f"round {number}"

    # ---- the peers' side

    def handle(self, peer: str, message: Message) -> None:
        """Takes a message of this group. Old epochs are dropped and logged, new ones wait."""
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
        contribution = Contribution(message.payload, message.weight, message.contributors)
        if message.kind is Kind.OFFER:
            self._add(peer, message.round, message.chunk, contribution)
        elif message.kind is Kind.RESULT:
            if peer != self._trees[self._placement[message.chunk]].source.get(self.me):
                log.warning("%s: refused a result from %s: not its parent", self.me, peer)
                return
            self._result(message.round, message.chunk, contribution)
        elif message.kind is Kind.AGGREGATE and message.round > self.held:
            self._round(message.round).take(message.chunk, contribution)
            self._check_whole(message.round)

    # ---- membership

    def freeze(self, epoch: int) -> None:
        """Stops taking part until :meth:`resume`; messages of older epochs are dropped."""
        self.epoch = epoch
        self._frozen = True

    def resume(
        self, epoch: int, policy: Policy, *, held: int = -1, lacking: Sequence[str] = ()
    ) -> None:
        """Takes part in ``epoch`` under ``policy``.

        Args:
          epoch: the membership epoch.
          policy: its trees over its members.
          held: the highest round that any member holds whole; later ones run again.
          lacking: members to whom this one sends its kept aggregate of round ``held``.
        """
        self.epoch, self.policy, self._frozen = epoch, policy, False
        self._trees = policy.trees
        self._placement = deal(policy.trees, self.sizes)
        self._receivers = tuple(tree.receivers(self.me) for tree in policy.trees)
        self._expected = tuple(self._children_first(tree) for tree in policy.trees)
        if lacking:
            kept = self._rounds[held].results
            for peer in lacking:
                for chunk in range(len(self.sizes)):
                    self._send(peer, Kind.AGGREGATE, held, chunk, kept[chunk])
        for number in sorted(self._rounds):
            if number > held:
                entry = self._rounds[number]
                if entry.given and number > self.held:
                    raise GeojaxError(
                        f"{self.me}: the membership changed when round {number} was applied in "
                        "part, layer by layer; run it without sync.p3 to survive that"
                    )
                entry.begin_again()
                for chunk, contribution in sorted(entry.own.items()):
                    self._add(self.me, number, chunk, contribution)
        early, self._early = self._early, []
        for peer, message in early:
            self.handle(peer, message)

    def _children_first(self, tree: Tree) -> tuple[str, ...]:
        """Whose contributions this member sums in a tree, in member order."""
        assert self.policy is not None
        wanted = set(tree.children(self.me))
        if self._contributes:
            wanted.add(self.me)
        return tuple(name for name in self.policy.members if name in wanted)

    # ---- one chunk's way

    def _expected_of(self, chunk: int) -> tuple[str, ...]:
        return self._expected[self._placement[chunk]]

    def _round(self, number: int) -> _Round:
        entry = self._rounds.get(number)
        if entry is None:
            entry = self._rounds[number] = _Round()
        return entry

    def _add(self, member: str, number: int, chunk: int, contribution: Contribution) -> None:
        if number <= self.held:
            return
        expected = self._expected_of(chunk)
        arrived = self._round(number).arrived.setdefault(chunk, {})
        if member not in expected or member in arrived:
            log.warning(
                "%s: refused chunk %d of round %d from %s: %s",
                self.me, chunk, number, member,
                "counted already" if member in arrived else "not its child",
            )  # fmt: skip
            return
        arrived[member] = contribution
        if len(arrived) < len(expected):
            return
        ordered = [arrived[name] for name in expected]
        work = sum(c.payload.nbytes for c in ordered[1:]) if len(ordered) > 1 else 0  # type: ignore[union-attr]
        epoch = self.epoch
        self._machine.after("sum", work, lambda: self._reduced(epoch, number, chunk, ordered))

    def _reduced(
        self, epoch: int, number: int, chunk: int, ordered: Sequence[Contribution]
    ) -> None:
        if epoch != self.epoch or self._frozen:
            return
        total = ordered[0]
        if len(ordered) > 1:
            total = Contribution(
                self._codec.combine([c.payload for c in ordered]),  # type: ignore[misc]
                sum(c.weight for c in ordered),
                sum(c.contributors for c in ordered),
            )
        tree = self._trees[self._placement[chunk]]
        if tree.root == self.me:
            self._recorder.chunk_event("reduced", round=number, chunk=chunk)
            self._at_root(number, chunk, total)
        else:
            self._send(tree.parent[self.me], Kind.OFFER, number, chunk, total)

    def _result(self, number: int, chunk: int, result: Contribution) -> None:
        if number <= self.held:
            return
        entry = self._round(number)
        if chunk in entry.results:
            return
        entry.take(chunk, result)
        for receiver in self._receivers[self._placement[chunk]]:
            self._send(receiver, Kind.RESULT, number, chunk, result)
        self._recorder.chunk_event("result", round=number, chunk=chunk)
        self._check_whole(number)

    def _check_whole(self, number: int) -> None:
        entry = self._round(number)
        if number > self.held and entry.given == len(self.sizes):
            self.held = number
            self.on_held(number)
            entry.arrived.clear()
            for old in [n for n in self._rounds if n < number]:
                del self._rounds[old]

    def _send(
        self, peer: str, kind: Kind, number: int, chunk: int, contribution: Contribution
    ) -> None:
        assert self.policy is not None
        message = Message(
            kind,
            group=self.group,
            epoch=self.epoch,
            policy=self.policy.version,
            tree=self._placement[chunk],
            round=number,
            chunk=chunk,
            codec=self._codec.wire,
            weight=contribution.weight,
            contributors=contribution.contributors,
            payload=contribution.payload,
        )
        self._transport.send(peer, message, priority=self._priorities[chunk])
