"""The one reduce-and-broadcast engine: every tree overlay is executed here.

Each chunk of a round is reduced along its tree to the root, and the result goes down the same tree
or, where the policy says so, down another one from the same root.
A node sends a chunk up when it has its own contribution and those of all its children, summed in
member order, never in order of arrival, so that replicas are bit-identical. Nothing else couples
the chunks: each moves on as soon as it can.

A root that contributes nothing and is no member of the policy (a global server on a site of its
own) is *passive*: it keeps no results, and for it a round is over when it has published its chunks.

An offer may have late parts. They go to the parent alone, behind all chunks, and no merge waits for
them (see :mod:`geojax.hips.exchange.late_payloads`); where links have no room for them they are
dropped (:mod:`geojax.wire.priority`). A parent sends on a single payload.

A member that does not contribute to a round *abstains*: its offer has no values, and its subtree's
sum is that of the others. It receives the result like everyone. An abstention still says that its
sender has applied the round before, which the keeping of rounds below relies on.

Where rounds exchange chunks in turn (``turns``: fragments), a round is about its own chunks only.

Every round goes by one policy, and the scheduler may set another one from a later round on
(:meth:`TreeExchange.change`). A chunk carries the version of its policy. It waits if this member
does not know the version yet, and is refused if the version is not its round's. A member knows the
policy of every round that it is granted, but its neighbours may be granted rounds earlier: an own
offer to a round that is not known to be granted waits too (:meth:`TreeExchange.grant`).

A plan may also take over rounds that are under way (:meth:`TreeExchange.take_over`). First all
members hold back the results of rounds of which they have given out none (:meth:`hold_back`), and
say which chunks they lack; then chunks that any of them lacks run again by the new policy, from the
kept offers. Chunks of the policy before are dropped then, those that wait to leave among them.

When the membership changes (see :mod:`geojax.hips.roles.scheduler`), a round that nobody holds
whole is run again from the kept offers; one that somebody holds is fetched from there. The last
whole round is kept until the next one is whole: then every member has contributed to that one, or
abstained, so every member has applied the one before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np

from geojax.errors import FrameError, GeojaxError
from geojax.hips.exchange.base import Gate, RoundWatcher, Sender
from geojax.hips.exchange.buckets import Chunks
from geojax.hips.exchange.chunk_sender import ChunkSender
from geojax.hips.exchange.contribution import Allowances, ChunkSum, ChunkSums, Contribution
from geojax.hips.exchange.late_payloads import RELIABLE, LatePayloads, own_parts
from geojax.hips.exchange.local_policy import ByRound, LocalPolicy, local_policy
from geojax.hips.exchange.rounds import Rounds, TreeRules
from geojax.overlay.policy.policy import Policy
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import ROUTED, Kind, Message

log = logging.getLogger("geojax.hips")

_BY_POLICY = (*ROUTED, Kind.LATE)
_SENT_AGAIN = (*ROUTED, Kind.AGGREGATE)  # in a new epoch


class RootMerge(Protocol):
    """What becomes of a chunk's sum at its root, where that is not the result.

    It ends with :meth:`TreeExchange.publish`, called with the result.
    """

    def merged(self, number: int, chunk: int, total: Contribution) -> None:
        """Takes the sum of a chunk of a round."""
        ...

    def standing(self) -> dict[int, Contribution]:
        """The last result of every chunk, where rounds exchange them in turn."""
        ...


class TreeExchange:
    """One member's part in the exchanges of one group, along trees.

    See :class:`geojax.hips.exchange.base.Exchange` for the methods without a docstring here.

    Args:
      me: this member's name.
      group: index of the group (see :class:`geojax.wire.message.Message`).
      sizes: elements of each chunk.
      transport: moves the chunks.
      sums: sums payloads.
      recorder: takes the events.
      allowances: what the own offer of each member may carry; who is not in it only merges (a
        local server among its workers).
      layers: elements of each layer, for placements that go by layers.
      priorities: of each chunk, smaller first; by default its index.
      turns: the chunks that rounds exchange in turn; empty: every round exchanges all.

    Attributes:
      at_root: takes each fully reduced chunk at its root; None: it is the result. To be set before
        the first round.
    """

    replicas = True

    def __init__(
        self,
        me: str,
        group: int,
        *,
        sizes: Sequence[int],
        transport: Sender,
        sums: ChunkSums,
        recorder: Recorder,
        allowances: Allowances,
        layers: Sequence[int] = (),
        priorities: Sequence[int] = (),
        turns: Sequence[Chunks] = (),
    ):
        self.me, self.group = me, group
        self._rounds, self._policies = Rounds(turns), ByRound()
        self.learn(sizes, layers)
        self._sums, self._recorder, self._allowances = sums, recorder, allowances
        self._by_chunk = recorder.level == "chunk"
        self._rules = TreeRules(
            me, group, rounds=self._rounds, policies=self._policies, codec=sums.codec,
            allowances=allowances,
        )  # fmt: skip
        self.gate = Gate(me, recorder, len(sizes))
        self.gate.owed = self._rules.owed
        self._sender = ChunkSender(
            group, transport, sums.codec, self.gate, self._policies, priorities
        )
        self._late = LatePayloads(sums.codec.fill, me, recorder.add)
        self.at_root: RootMerge | None = None
        self.watcher: RoundWatcher | None = None

    @property
    def held(self) -> int:
        """The last round that this member holds whole."""
        return self._rounds.held

    @property
    def policy(self) -> Policy | None:
        """The policy of the latest rounds; None: there is none yet."""
        return self._policies.newest.policy if self._policies else None

    def learn(self, sizes: Sequence[int], layers: Sequence[int]) -> None:
        """Takes note of how vectors are cut; a global server is told when the run starts."""
        self.sizes, self.layers = tuple(sizes), tuple(layers)
        self._rounds.chunks_in_all = len(self.sizes)

    # ---- the member's own side

    def offer(self, number: int, chunk: int, contribution: Contribution) -> None:
        """Contributes one chunk to a round. The payload must not change until the round ends.

        Later offers of the same chunk are ignored: workers repeat theirs after a change of the
        membership, and the first one is kept and sent again anyway.
        """
        new = self._rounds.offer(number, chunk, contribution)
        if new and not self.gate.frozen and self._policies.knows(number):
            self._add(self.me, number, chunk, contribution)

    async def whole(self, number: int) -> list[Contribution]:
        """Waits for the merged contribution of every chunk, whether the round exchanges it or not.

        Where rounds exchange chunks in turn, this is for a member that is sent all of them.
        """
        return await asyncio.shield(self.results(number, range(len(self.sizes))))

    def results(self, number: int, chunks: Chunks) -> asyncio.Future[list[Contribution]]:
        """The merged contributions of some chunks of a round, once they are here.

        The round is held when all its results are here and somebody has asked for each of them.
        """
        results, new = self._rounds.ask(number, chunks)
        if new:
            self._check_whole(number)
        return results

    @property
    def keeps(self) -> bool:
        """Whether the results of round ``held`` are still here, to be sent to others."""
        if self.held < 0:
            return True
        return len(self._rounds[self.held].results) >= len(self._rounds.chunks(self.held))

    def skip_to(self, held: int) -> None:
        """Takes part from round ``held + 1`` on; for who comes back or continues a broken run."""
        self._rounds.held = held

    def adopt(self, number: int, results: Sequence[Contribution], to: Sequence[str]) -> None:
        """Takes the results of a round as given, holds it, and sends it ``to`` other members."""
        self._rounds[number].results = dict(enumerate(results))
        self._rounds.held = number
        for peer in to:
            for chunk, result in enumerate(results):
                self._sender.chunk((peer,), Kind.AGGREGATE, number, chunk, result)

    def stand_for(self, number: int, later: int) -> None:
        """The results of round ``number`` will be those of ``later`` too.

        When it is held, so is that one, and the rounds between are skipped. All members do so; one
        that does not know yet and lacks the results when the membership changes is sent those of
        the later round for the one that it waits for.
        """
        if number == self.held:
            self.adopt(later, [c for _, c in sorted(self._rounds[number].results.items())], ())
        elif number > self.held:
            self._rounds.skip(number, later)

    def send_state(self, peer: str, number: int, payload: np.ndarray) -> None:
        """Sends the whole state after round ``number`` to a member that comes back."""
        self._sender.state(peer, number, payload)

    def publish(self, number: int, chunk: int, result: Contribution) -> None:
        """Sends a chunk's result down its tree; called at the root."""
        if not self.gate.frozen:
            self._result(number, chunk, result)

    def retire(self) -> None:
        """Nothing to do: after this member's last round none can wait for it."""

    def missing(self, number: int) -> str:
        """Says what a round still waits for, and from whom."""
        if number not in self._rounds or not self._policies:
            return f"anything of round {number}"
        if not self._policies.knows(number):
            return f"the policy of round {number}, which is not granted yet"
        for chunk in self._rounds.chunks(number):
            if self._rounds.has_result(number, chunk):
                continue
            local, arrived = self._policies.of(number), self._rounds.arrived(number, chunk)
            absent = [name for name in local.expected_of(chunk) if name not in arrived]
            tree = local.tree(chunk)
            whom = absent or ([tree.source[self.me]] if tree.root != self.me else ["the merge"])
            return f"chunk {chunk} of round {number} from {', '.join(whom)}"
        return f"round {number}"

    # ---- the peers' side

    def handle(self, peer: str, message: Message) -> None:
        """Takes a message of this group; see :class:`geojax.hips.exchange.base.Gate`."""
        kind, number, chunk, gate = message.kind, message.round, message.chunk, self.gate
        old = message.epoch < gate.epoch
        counts = old and self._late.still_counts(message, frozen=gate.frozen)
        if not gate.admits(peer, message, though_old=counts):
            return
        if not 0 <= chunk < len(self.sizes):
            gate.refuse(peer, message, "no such chunk")
            return
        if kind in ROUTED and chunk not in self._rounds.chunks(number):
            gate.refuse(peer, message, "its round exchanges other chunks")
            return
        ahead = number > self.held or kind is Kind.LATE
        if kind in _BY_POLICY and self._superseded(message):
            self._recorder.add("superseded_chunks")
            gate.owes(peer, message)
            return
        if ahead and message.policy > self._policies.newest.policy.version and kind in _BY_POLICY:
            gate.wait(peer, message)
            return
        try:
            contribution = self._rules.read(peer, message, self.sizes)
        except FrameError as error:
            gate.refuse(peer, message, str(error))
            return
        if kind is Kind.OFFER:
            self._add(peer, number, chunk, contribution)
        elif kind is Kind.RESULT:
            self._result(number, chunk, contribution)
        elif kind is Kind.LATE:
            self._add_late(peer, message)
        else:
            self._fetched(number, chunk, contribution)

    def _fetched(self, number: int, chunk: int, result: Contribution) -> None:
        """Takes a result of the last held round, and sends it on to members that lack it."""
        fetch, awaited = self._rounds.fetch, self.held + 1
        fetch.came.add(chunk)
        if number == fetch.round and fetch.lacking:
            self._sender.chunk(fetch.lacking, Kind.AGGREGATE, number, chunk, result)
        if awaited < number and awaited in self._rounds:  # it stands for the one awaited here
            self._rounds[awaited].take(chunk, result)
            self._check_whole(awaited)
        if number > self.held:
            self._rounds[number].take(chunk, result)
            self._check_whole(number)

    # ---- policies

    def grant(self, until: int) -> None:
        """Says that the policies of all rounds before ``until`` are known here."""
        waiting = [number for number in self._rounds if not self._policies.knows(number)]
        self._policies.until = until
        if self.gate.frozen:
            return
        for number in waiting:
            if self._policies.knows(number):
                self._add_own(number)

    def change(self, first: int, policy: Policy) -> None:
        """Rounds from ``first`` on go by another policy over the same members."""
        self._policies.change(first, self._local(policy))
        self._take_early()

    def hold_back(self) -> tuple[int, list[int]]:
        """Holds back the results of rounds of which none has been given out here.

        It ends with :meth:`take_over`, :meth:`release` or :meth:`resume`.

        Returns:
          The last round of which results have been given out, and the chunks that this member
          lacks of the next one.
        """
        begun, rounds = self._rounds.begun, self._rounds
        rounds.hold_back(begun)
        lacks = [c for c in rounds.chunks(begun + 1) if not rounds.has_result(begun + 1, c)]
        return begun, lacks

    def has_offered(self, number: int) -> bool:
        """Whether this member has offered anything to a round."""
        return number in self._rounds and bool(self._rounds[number].own)

    def take_over(self, first: int, policy: Policy, again: Collection[int]) -> None:
        """Rounds from ``first`` on go by another policy, though they may be under way.

        Args:
          first: no member has given out results of this round; all of them hold back its results.
          policy: over the same members.
          again: the chunks of that round that run again; all members have the results of the
            others. Later rounds run again as a whole.
        """
        if self._rounds.begun >= first:
            raise GeojaxError(f"{self.me}: round {first} was applied before it was taken over")
        before, of_all = self._policies.of(first).policy.version, self._rounds.chunks(first)
        self._policies.take_over(first, self._local(policy))
        for number in [number for number in self._rounds if number >= first]:
            entry, chunks = self._rounds[number], of_all if number == first else ()
            entry.begin_again({c: entry.settled.get(c, before) for c in chunks if c not in again})
        for chunk in range(len(self.sizes)):
            self._late.run_again(chunk, first if chunk in again else first + 1)
        withdrawn = self._sender.withdraw(self._unwanted)
        self._recorder.add("withdrawn_chunks", withdrawn)
        for number in [number for number in self._rounds if number >= first]:
            if self._policies.knows(number):
                self._add_own(number)
        self._take_early()
        self.release()

    def release(self) -> None:
        """Ends what :meth:`hold_back` began."""
        for number in self._rounds.release():
            self._check_whole(number)

    def _superseded(self, message: Message) -> bool:
        """Whether a chunk comes again by the policy that has taken over its round since."""
        if not self._policies.superseded(message.round, message.policy):
            return False
        settled = self._rounds.settled(message.round, message.chunk)
        return message.kind is not Kind.LATE or settled is None or message.policy < settled

    def _unwanted(self, waiting: Message) -> bool:
        """Whether a message that waits to leave is :meth:`_superseded`."""
        here = waiting.group == self.group and waiting.epoch == self.gate.epoch
        return here and waiting.kind in _BY_POLICY and self._superseded(waiting)

    def _local(self, policy: Policy) -> LocalPolicy:
        return local_policy(self.me, policy, self.sizes, self.layers, allowances=self._allowances)

    def _take_early(self) -> None:
        for peer, message in self.gate.early():
            self.handle(peer, message)

    def _add_own(self, number: int) -> None:
        entry = self._rounds[number]
        for chunk, contribution in sorted(entry.own.items()):
            if chunk not in entry.settled:
                self._add(self.me, number, chunk, contribution)

    # ---- membership

    def freeze(self, epoch: int) -> None:
        """Stops taking part until :meth:`resume`; messages of older epochs are dropped.

        Those that wait to leave are dropped, too, late parts apart: all of it is sent again.
        """
        self.gate.freeze(epoch)
        self._sender.withdraw(
            lambda waiting: waiting.group == self.group and waiting.epoch < epoch
            and waiting.kind in _SENT_AGAIN
        )  # fmt: skip

    def resume(
        self,
        epoch: int,
        policy: Policy,
        *,
        held: int = -1,
        lacking: Sequence[str] = (),
        source: str | None = None,
    ) -> None:
        """See :class:`geojax.hips.exchange.base.Exchange`."""
        self.gate.begin(epoch)
        self._late.begin(epoch, held, policy.members)
        self._policies.begin(self._local(policy))
        if self._policies.newest.passive:  # what it published may be held by nobody: it runs again
            self._rounds.held = held
            self._rounds.clear()
        self._rounds.begin(held, source, lacking)
        if lacking and self.held == held:
            kept = self._rounds[held].results
            if self._rounds.period > 1 and self.at_root is not None:
                # for who comes back and has nothing
                kept = {**self.at_root.standing(), **kept}
            for peer in lacking:
                for chunk, result in sorted(kept.items()):
                    self._sender.chunk((peer,), Kind.AGGREGATE, held, chunk, result)
        for number in self._rounds:
            entry = self._rounds[number]
            if number == held > self.held and source is not None and not entry.given:
                entry.begin_again()  # all of it comes, and what came before may be wrong
            if number > held:
                if entry.given and number > self.held:
                    raise GeojaxError(
                        f"{self.me}: the membership changed when round {number} was applied in "
                        "part; run it without sync.p3 and overlay.pieces to survive that"
                    )
                entry.begin_again()
                if self._policies.knows(number):
                    self._add_own(number)
        self.release()
        self._take_early()

    # ---- the path of one chunk

    def _add(self, member: str, number: int, chunk: int, contribution: Contribution) -> None:
        if number <= self.held:
            self._rounds.catches_up(number, member, chunk)
            return
        local = self._policies.of(number)
        expected = local.expected_of(chunk)
        arrived = self._rounds[number].arrived.setdefault(chunk, {})
        arrived[member] = contribution
        if len(arrived) < len(expected):
            return
        epoch, late = self.gate.epoch, self._late.of_sum(number, chunk, local, arrived)
        offers = {name: arrived[name] for name in expected}
        self._sums.begin(offers, late, lambda of: self._reduced(epoch, number, chunk, local, of))

    def _reduced(
        self, epoch: int, number: int, chunk: int, local: LocalPolicy, of: ChunkSum
    ) -> None:
        if epoch != self.gate.epoch or local is not self._policies.of(number):
            return  # it has changed, and the offers are sent again
        total = self._sums.total(of, lambda: f"{self.me}, chunk {chunk} of round {number}")
        tree = local.tree(chunk)
        if tree.root == self.me:
            if self._by_chunk:
                self._recorder.chunk_event("reduced", round=number, chunk=chunk)
            if chunk == self._rounds.chunks(number)[0]:
                self._sums.tell_steps(number, of)
            if self.at_root is None:
                self.publish(number, chunk, total)
            else:
                self.at_root.merged(number, chunk, total)
            return
        parent, own = tree.parent[self.me], of.offers.get(self.me)
        self._sender.chunk((parent,), Kind.OFFER, number, chunk, total)
        if own is not None and (own.late is not None or own.datagrams) and local.first_hop(chunk):
            parts = own_parts(own.late, own.datagrams)
            self._late.offered(number, chunk, len(parts))
            self._sender.late(parent, number, chunk, parts, chunks=len(self.sizes))

    def _result(self, number: int, chunk: int, result: Contribution) -> None:
        if number <= self.held or self._rounds.has_result(number, chunk):
            return
        self._rounds[number].take(chunk, result)
        local = self._policies.of(number)
        receivers = local.receivers_of(chunk)
        if receivers:
            self._sender.chunk(receivers, Kind.RESULT, number, chunk, result)
        if self._by_chunk:
            self._recorder.chunk_event("result", round=number, chunk=chunk)
        if local.passive:
            self._check_published(number)
        else:
            self._check_whole(number)

    def _check_published(self, number: int) -> None:
        """Forgets a round of which this passive root has published all chunks of its trees."""
        if len(self._rounds[number].results) == self._policies.of(number).own:
            self._rounds.held = number
            self._late.hold(number - self._rounds.period)  # all that offered have held that
            self._policies.forget_before(number + 1)
            self._rounds.forget(number)

    def _check_whole(self, number: int) -> None:
        due = len(self._rounds.chunks(number))
        if number > self.held and self._rounds[number].given >= due:
            self._rounds.held = number
            self._late.hold(number)
            self._policies.forget_before(number + 1)
            if self.watcher is not None:
                self.watcher.held(number)
            later = self._rounds.close(number, self._policies.of(number))
            if later is not None:
                self.stand_for(number, later)

    def _add_late(self, peer: str, message: Message) -> None:
        index = (message.body or {}).get("part", RELIABLE)
        known = self._policies.by_version(message.policy) is not None
        if peer not in self._policies.newest.policy.members:
            log.warning("%s: dropped a late part from %s, which is dead", self.me, peer)
        elif known and self._late.add(peer, message.round, message.chunk, index, message.payload):
            self._recorder.add("late_parts")
            self._recorder.chunk_event("late", peer=peer, round=message.round, chunk=message.chunk)
        else:
            log.debug("%s: dropped a late part from %s: too late, or here", self.me, peer)
