"""The one reduce-and-broadcast engine: every tree overlay is executed here.

Each chunk of a round is reduced along its tree to the root, and the result goes down the same tree
or, where the policy says so, down another one from the same root.
A node sends a chunk up when it has its own contribution and those of all its children, summed in
member order, never in order of arrival, so that replicas are bit-identical. Nothing else couples
the chunks: each moves on as soon as it can.

A root that contributes nothing and is no member of the policy (a global server on a site of its
own) is *passive*: it keeps no results, and a round of which it has published all its chunks is over
for it.

An offer may have late parts, which follow behind all chunks on its first hop, to the parent, and
which no merge waits for (see :mod:`geojax.hips.late_parts`). What a parent sends on is one payload.

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
from typing import Any, NamedTuple

import numpy as np

from geojax.compression.codec import Codec, Parted
from geojax.errors import GeojaxError
from geojax.hips.late_parts import RELIABLE, LateParts, own_parts
from geojax.hips.machine import Machine
from geojax.hips.outlet import Outlet
from geojax.hips.refusals import is_refused
from geojax.overlay.placement import place
from geojax.overlay.policy import Policy, Tree
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
    payload: Any, weight: float, *, contributors: int = 1, loss: float | None = None
) -> Contribution:
    """What is offered of a chunk: an encoded payload, whole or in parts.

    >>> parted = Parted(np.ones(2, np.uint8), np.ones(0, np.uint8))
    >>> contribution_of(parted, 2.0, loss=0.5)[1:]
    (2.0, 1, None, (), 0.5)
    """
    if not isinstance(payload, Parted):
        return Contribution(payload, weight, contributors, loss=loss)
    late = payload.late if payload.late.size else None
    return Contribution(payload.now, weight, contributors, late, payload.datagrams, loss)


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
      transport: moves the chunks, or the outlet in front of it.
      codec: sums payloads.
      machine: charges the sums.
      recorder: takes the events.
      contributes: false for a root that only merges (a local server among its workers).
      at_root: called with each fully reduced chunk at its root; by default it is the result.
      held: the last round that is done, when a run continues a broken one.
      layers: elements of each layer, for placements that go by layers.
      priorities: of each chunk, smaller first; by default its index.

    Attributes:
      at_root: as above; may be set before the first round.
      on_held: called with the number of a round when its last result is here.
    """

    def __init__(
        self,
        me: str,
        group: int,
        *,
        sizes: Sequence[int],
        transport: Transport | Outlet,
        codec: Codec,
        machine: Machine,
        recorder: Recorder,
        contributes: bool = True,
        at_root: RootHandler | None = None,
        held: int = -1,
        layers: Sequence[int] = (),
        priorities: Sequence[int] = (),
    ):
        self.me, self.group = me, group
        self.learn(sizes, layers)
        self.epoch, self.held = -1, held
        self._transport, self._codec, self._machine = transport, codec, machine
        self._recorder = recorder
        self._contributes = contributes
        self.at_root = at_root or self.publish
        self._priorities = tuple(priorities)
        self._rounds: dict[int, _Round] = {}
        self._early: list[tuple[str, Message]] = []
        self._late = LateParts(codec.fill)
        self._agreed: dict[int, int] = {}  # epoch: the round after which it began
        self._frozen = True
        self.on_held: Callable[[int], None] = lambda _: None
        self._passive, self._own = False, 0  # a passive root's chunks
        self.policy: Policy | None = None
        self._trees: tuple[Tree, ...] = ()
        self._placement: tuple[int, ...] = ()
        self._receivers: tuple[tuple[str, ...], ...] = ()
        self._expected: tuple[tuple[str, ...], ...] = ()

    def learn(self, sizes: Sequence[int], layers: Sequence[int]) -> None:
        """Takes note of how vectors are cut; a global server is told when the run starts."""
        self.sizes, self.layers = tuple(sizes), tuple(layers)

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
        """Takes a message of this group. Old epochs are dropped and logged, new ones wait.

        Payloads that no sum could take are refused; see :mod:`geojax.hips.refusals`.
        """
        assert message.epoch >= 0
        if message.epoch < self.epoch and not self._still_late(message):
            self._recorder.event("dropped", peer=peer, epoch=message.epoch, now=self.epoch)
            log.warning("%s: dropped a chunk of epoch %d from %s", self.me, message.epoch, peer)
            return
        if message.epoch > self.epoch or self._frozen:
            self._early.append((peer, message))
            return
        if not 0 <= message.chunk < len(self.sizes):
            log.warning("%s: refused chunk %d from %s: no such chunk", self.me, message.chunk, peer)
            return
        if is_refused(self.me, peer, message, self._codec, self.sizes[message.chunk]):
            return
        loss = (message.body or {}).get("loss")
        contribution = Contribution(
            message.payload, message.weight, message.contributors, loss=loss
        )
        if message.kind is Kind.LATE:
            self._add_late(peer, message)
        elif message.kind is Kind.OFFER:
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
        self._agreed[epoch] = held
        self._late.run_again(held, policy.members)
        self._trees = policy.trees
        self._placement = place(policy, self.sizes, self.layers)
        self._passive = self.me not in policy.members
        self._own = sum(policy.trees[tree].root == self.me for tree in self._placement)
        if self._passive:  # what it published may be held by nobody, and then runs again
            self.held = held
            self._rounds.clear()
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
        late = self._late_payloads(number, chunk, arrived)
        payloads = [*(c.payload for c in ordered), *late]
        work = sum(payload.nbytes for payload in payloads[1:])  # type: ignore[union-attr]
        epoch = self.epoch
        self._machine.after(
            "sum", work, lambda: self._reduced(epoch, number, chunk, ordered, payloads)
        )

    def _late_payloads(
        self, number: int, chunk: int, arrived: dict[str, Contribution]
    ) -> list[Payload]:
        """Late parts that count in this sum; the own ones too, unless they go on from here."""
        assert self.policy is not None
        own = arrived.get(self.me)
        if own is not None and not self._first_hop(chunk):
            for index, payload in own_parts(own.late, own.datagrams):
                self._late.add(self.me, number, chunk, index, payload)
        offers: dict[str, Payload] = {}
        if self._codec.fill is not None:
            # What comes from a child with children of its own is a sum: it never had late parts.
            others = {self.me, *self._trees[self._placement[chunk]].parent.values()}
            # An offer of weight 0 counts nothing, and nothing stands in for it.
            offers = {n: c.payload for n, c in arrived.items() if n not in others and c.weight}
        return self._late.take(number, chunk, self.policy.members, offers)

    def _first_hop(self, chunk: int) -> bool:
        """Whether this member's own offer goes to a parent as it is."""
        root = self._trees[self._placement[chunk]].root
        return self._expected_of(chunk) == (self.me,) and root != self.me

    def _reduced(
        self,
        epoch: int,
        number: int,
        chunk: int,
        ordered: Sequence[Contribution],
        payloads: Sequence[Payload],
    ) -> None:
        if epoch != self.epoch or self._frozen:
            return
        total = ordered[0]
        if len(payloads) > 1:
            total = Contribution(
                self._codec.combine(payloads),  # type: ignore[arg-type]
                sum(c.weight for c in ordered),
                sum(c.contributors for c in ordered),
                loss=_mean_loss(ordered),
            )
        tree = self._trees[self._placement[chunk]]
        if tree.root == self.me:
            self._recorder.chunk_event("reduced", round=number, chunk=chunk)
            self.at_root(number, chunk, total)
            return
        parent = tree.parent[self.me]
        self._send(parent, Kind.OFFER, number, chunk, total)
        if self._first_hop(chunk):
            self._send_late(parent, number, chunk, ordered[0])

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
        if self._passive:
            self._check_published(number)
        else:
            self._check_whole(number)

    def _check_published(self, number: int) -> None:
        """Forgets a round of which this passive root has published all chunks of its trees."""
        if len(self._round(number).results) == self._own:
            self.held = number
            del self._rounds[number]

    def _check_whole(self, number: int) -> None:
        entry = self._round(number)
        if number > self.held and entry.given == len(self.sizes):
            self.held = number
            self._late.hold(number)
            self.on_held(number)
            entry.arrived.clear()
            for old in [n for n in self._rounds if n < number]:
                del self._rounds[old]

    def _still_late(self, message: Message) -> bool:
        """Whether a message of an old epoch is a late part that nobody will send again.

        That is so if its round was whole somewhere whenever the membership changed since.
        """
        after = [held for epoch, held in self._agreed.items() if epoch > message.epoch]
        return message.kind is Kind.LATE and (self._frozen or message.round <= min(after))

    def _add_late(self, peer: str, message: Message) -> None:
        assert self.policy is not None
        index = (message.body or {}).get("part", RELIABLE)
        if peer not in self.policy.members:
            log.warning("%s: refused a late part from %s: no member", self.me, peer)
        elif self._late.add(peer, message.round, message.chunk, index, message.payload):
            self._recorder.add("late_parts")
        else:
            log.debug("%s: dropped a late part from %s: too late, or here", self.me, peer)

    def _send(
        self, peer: str, kind: Kind, number: int, chunk: int, contribution: Contribution
    ) -> None:
        loss = contribution.loss
        message = self._message(
            kind, number, chunk, contribution.payload,
            weight=contribution.weight,
            contributors=contribution.contributors,
            body=None if loss is None else {"loss": loss},
        )  # fmt: skip
        priority = self._priorities[chunk] if self._priorities else chunk
        self._transport.send(peer, message, priority)

    def _send_late(self, peer: str, number: int, chunk: int, own: Contribution) -> None:
        """Sends the late parts of an offer, behind all chunks that wait or will soon."""
        for index, payload in own_parts(own.late, own.datagrams):
            if index == RELIABLE:
                message = self._message(Kind.LATE, number, chunk, payload)
                self._transport.send(peer, message, priority=len(self.sizes) + chunk)
            else:
                message = self._message(Kind.LATE, number, chunk, payload, body={"part": index})
                self._transport.send_datagram(peer, message)

    def _message(
        self, kind: Kind, number: int, chunk: int, payload: Payload, **fields: Any
    ) -> Message:
        assert self.policy is not None
        return Message(
            kind,
            group=self.group,
            epoch=self.epoch,
            policy=self.policy.version,
            tree=self._placement[chunk],
            round=number,
            chunk=chunk,
            codec=self._codec.wire,
            payload=payload,
            **fields,
        )


def _mean_loss(contributions: Sequence[Contribution]) -> float | None:
    """The mean loss of those who told theirs, by weight."""
    told = [(c.loss, c.weight) for c in contributions if c.loss is not None]
    weight = sum(weight for _, weight in told)
    return sum(loss * weight for loss, weight in told) / weight if weight else None
