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
which no merge waits for (see :mod:`geojax.hips.exchange.late_payloads`). What a parent sends on is
one payload.

Every round goes by one policy, and the scheduler may have another one from some later round on
(:meth:`TreeExchange.change`). Chunks carry the version of theirs. One of a version that is not
known here yet waits for it; one of a version that is not its round's is refused. A member knows the
policy of every round that it is granted, but its neighbours may be granted rounds earlier: what it
is given to offer of a round that it does not know to be granted waits too
(:meth:`TreeExchange.grant`).

When the membership changes (see :mod:`geojax.hips.roles.scheduler`), a round that nobody holds
whole is run again from the kept offers; one that somebody holds is fetched from there. The last
whole round is kept until the next one is whole: then every member has contributed to that one, so
every member has applied the one before.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from geojax.compression.codec import Codec
from geojax.errors import GeojaxError
from geojax.hips.exchange.contribution import Contribution, is_refused, mean_loss
from geojax.hips.exchange.late_payloads import RELIABLE, LatePayloads, own_parts
from geojax.hips.exchange.local_policy import ByRound, LocalPolicy, local_policy
from geojax.hips.exchange.rounds import Round
from geojax.hips.routing.multipath import MultipathSender
from geojax.machine.machine import Machine
from geojax.overlay.policy.policy import Policy
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import ROUTED, Kind, Message, Payload
from geojax.wire.transport import Transport

log = logging.getLogger("geojax.hips")


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
        transport: Transport | MultipathSender,
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
        self._rounds: dict[int, Round] = {}
        self._early: list[tuple[str, Message]] = []
        self._late = LatePayloads(codec.fill)
        self._agreed: dict[int, int] = {}  # epoch: the round after which it began
        self._frozen = True
        self.on_held: Callable[[int], None] = lambda _: None
        self._laid = ByRound()
        self._until = math.inf  # the policies of all rounds before are known here
        self._passes_on: tuple[int, Sequence[str]] = (-1, ())  # a fetched round, and to whom

    @property
    def policy(self) -> Policy | None:
        """The policy of the latest rounds; None: there is none yet."""
        return self._laid.newest.policy if self._laid else None

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
        if not self._frozen and number < self._until:
            self._add(self.me, number, chunk, contribution)

    async def whole(self, number: int) -> list[Contribution]:
        """Waits for a round's result: the merged contribution of every chunk."""
        return await self.ask(number, range(len(self.sizes)))

    def ask(self, number: int, chunks: range) -> asyncio.Future[list[Contribution]]:
        """The merged contributions of some chunks of a round, once they are here.

        The round is held when all its results are here and somebody has asked for each of them.
        """
        known = chunks in self._round(number).asked
        results = self._round(number).ask(chunks)
        if not known:
            self._check_whole(number)
        return results

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
        if entry is None or not self._laid:
            return f"anything of round {number}"
        if number >= self._until:
            return f"the policy of round {number}, which is not granted yet"
        for chunk in range(len(self.sizes)):
            if chunk in entry.results:
                continue
            laid, arrived = self._laid.of(number), entry.arrived.get(chunk, {})
            absent = [name for name in laid.expected_of(chunk) if name not in arrived]
            tree = laid.tree(chunk)
            whom = absent or ([tree.source[self.me]] if tree.root != self.me else ["the merge"])
            return f"chunk {chunk} of round {number} from {', '.join(whom)}"
        return f"round {number}"

    # ---- the peers' side

    def handle(self, peer: str, message: Message) -> None:
        """Takes a message of this group. Old epochs are dropped and logged, new ones wait.

        Payloads that no sum could take are refused; see :mod:`geojax.hips.exchange.contribution`.
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
        if message.kind in ROUTED and message.round > self.held:
            if message.policy > self._laid.newest.policy.version:
                self._early.append((peer, message))
                return
            if not self._goes_by(peer, message):
                return
        if not is_refused(self.me, peer, message, self._codec, self.sizes[message.chunk]):
            self._take(peer, message)

    def _goes_by(self, peer: str, message: Message) -> bool:
        """Whether a chunk came along its round's policy."""
        version = self._laid.of(message.round).policy.version
        if message.policy != version:
            self._recorder.event("refused", peer=peer, round=message.round, policy=message.policy)
            log.warning(
                "%s: refused chunk %d of round %d from %s: sent by policy %d, its round has %d",
                self.me, message.chunk, message.round, peer, message.policy, version,
            )  # fmt: skip
        return message.policy == version

    def _take(self, peer: str, message: Message) -> None:
        contribution = Contribution(
            message.payload, message.weight, message.contributors,
            loss=(message.body or {}).get("loss"),
        )  # fmt: skip
        number, chunk = message.round, message.chunk
        if message.kind is Kind.LATE:
            self._add_late(peer, message)
        elif message.kind is Kind.OFFER:
            self._add(peer, number, chunk, contribution)
        elif message.kind is Kind.RESULT:
            if peer != self._laid.of(number).tree(chunk).source.get(self.me):
                log.warning("%s: refused a result from %s: not its parent", self.me, peer)
                return
            self._result(number, chunk, contribution)
        elif message.kind is Kind.AGGREGATE:
            fetched, others = self._passes_on
            for other in others if number == fetched else ():
                self._send(other, Kind.AGGREGATE, number, chunk, contribution)
            if number > self.held:
                self._round(number).take(chunk, contribution)
                self._check_whole(number)

    # ---- policies

    def grant(self, until: int) -> None:
        """Says that the policies of all rounds before ``until`` are known here."""
        before, self._until = self._until, until
        if self._frozen:
            return
        for number in sorted(n for n in self._rounds if before <= n < until):
            self._add_own(number)

    def change(self, first: int, policy: Policy) -> None:
        """Rounds from ``first`` on go by another policy over the same members."""
        self._laid.change(first, self._lay_out(policy))
        self._take_early()

    def _lay_out(self, policy: Policy) -> LocalPolicy:
        return local_policy(self.me, policy, self.sizes, self.layers, contributes=self._contributes)

    def _take_early(self) -> None:
        early, self._early = self._early, []
        for peer, message in early:
            self.handle(peer, message)

    def _add_own(self, number: int) -> None:
        for chunk, contribution in sorted(self._rounds[number].own.items()):
            self._add(self.me, number, chunk, contribution)

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
          policy: its trees over its members, for all rounds after ``held``.
          held: the highest round that any member holds whole; later ones run again.
          lacking: members to whom this one sends the aggregate of round ``held``: what it has kept,
            or, if it lacks it too, what it is sent.
        """
        self.epoch, self._frozen = epoch, False
        self._agreed[epoch] = held
        self._late.run_again(held, policy.members)
        self._laid.begin(self._lay_out(policy))
        if self._laid.newest.passive:  # what it published may be held by nobody, and runs again
            self.held = held
            self._rounds.clear()
        self._passes_on = (held, ()) if self.held == held else (held, lacking)
        if lacking and self.held == held:
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
                if number < self._until:
                    self._add_own(number)
        self._take_early()

    # ---- one chunk's way

    def _round(self, number: int) -> Round:
        entry = self._rounds.get(number)
        if entry is None:
            entry = self._rounds[number] = Round()
        return entry

    def _add(self, member: str, number: int, chunk: int, contribution: Contribution) -> None:
        if number <= self.held:
            return
        expected = self._laid.of(number).expected_of(chunk)
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
        laid, own = self._laid.of(number), arrived.get(self.me)
        if own is not None and not self._first_hop(number, chunk):
            for index, payload in own_parts(own.late, own.datagrams):
                self._late.add(self.me, number, chunk, index, payload)
        offers: dict[str, Payload] = {}
        if self._codec.fill is not None:
            # What comes from a child with children of its own is a sum: it never had late parts.
            others = {self.me, *laid.tree(chunk).parent.values()}
            # An offer of weight 0 counts nothing, and nothing stands in for it.
            offers = {n: c.payload for n, c in arrived.items() if n not in others and c.weight}
        return self._late.take(number, chunk, laid.policy.members, offers)

    def _first_hop(self, number: int, chunk: int) -> bool:
        """Whether this member's own offer goes to a parent as it is."""
        laid = self._laid.of(number)
        return laid.expected_of(chunk) == (self.me,) and laid.tree(chunk).root != self.me

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
                loss=mean_loss(ordered),
            )
        tree = self._laid.of(number).tree(chunk)
        if tree.root == self.me:
            self._recorder.chunk_event("reduced", round=number, chunk=chunk)
            self.at_root(number, chunk, total)
            return
        parent = tree.parent[self.me]
        self._send(parent, Kind.OFFER, number, chunk, total)
        if self._first_hop(number, chunk):
            self._send_late(parent, number, chunk, ordered[0])

    def _result(self, number: int, chunk: int, result: Contribution) -> None:
        if number <= self.held:
            return
        entry = self._round(number)
        if chunk in entry.results:
            return
        entry.take(chunk, result)
        laid = self._laid.of(number)
        for receiver in laid.receivers_of(chunk):
            self._send(receiver, Kind.RESULT, number, chunk, result)
        self._recorder.chunk_event("result", round=number, chunk=chunk)
        if laid.passive:
            self._check_published(number)
        else:
            self._check_whole(number)

    def _check_published(self, number: int) -> None:
        """Forgets a round of which this passive root has published all chunks of its trees."""
        if len(self._round(number).results) == self._laid.of(number).own:
            self.held = number
            self._laid.forget_before(number + 1)
            del self._rounds[number]

    def _check_whole(self, number: int) -> None:
        entry = self._round(number)
        if number > self.held and entry.given == len(self.sizes):
            self.held = number
            self._late.hold(number)
            self._laid.forget_before(number + 1)
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
        index = (message.body or {}).get("part", RELIABLE)
        if peer not in self._laid.newest.policy.members:
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
        laid = self._laid.of(number)
        return Message(
            kind,
            group=self.group,
            epoch=self.epoch,
            policy=laid.policy.version,
            tree=laid.placement[chunk],
            round=number,
            chunk=chunk,
            codec=self._codec.wire,
            payload=payload,
            **fields,
        )
