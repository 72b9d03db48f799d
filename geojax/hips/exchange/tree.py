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

When the membership changes (see :mod:`geojax.hips.roles.scheduler`), a round that nobody holds
whole is run again from the kept offers; one that somebody holds is fetched from there. The last
whole round is kept until the next one is whole: then every member has contributed to that one, or
abstained, so every member has applied the one before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from geojax.compression.codec import Codec
from geojax.errors import FrameError, GeojaxError
from geojax.hips.cluster import WAN_GROUP
from geojax.hips.exchange.base import Gate, RoundWatcher, Sender
from geojax.hips.exchange.buckets import Chunks
from geojax.hips.exchange.chunk_sender import ChunkSender
from geojax.hips.exchange.contribution import (
    ABSTAINED,
    PARAMETERS,
    Allowance,
    Contribution,
    check_finite,
    received,
    summed,
    together,
)
from geojax.hips.exchange.debts import Owed
from geojax.hips.exchange.late_payloads import RELIABLE, LatePayloads, cannot_be_late, own_parts
from geojax.hips.exchange.local_policy import ByRound, LocalPolicy, local_policy
from geojax.hips.exchange.rounds import Fetch, Round
from geojax.machine.machine import Machine
from geojax.overlay.policy.policy import Policy
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import ROUTED, Kind, Message, Payload

log = logging.getLogger("geojax.hips")

_BY_POLICY = (*ROUTED, Kind.LATE)
_NOTHING: Mapping[str, Contribution] = {}


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
      codec: sums payloads.
      machine: charges the sums.
      recorder: takes the events.
      allowances: what the own offer of each member may carry; who is not in it only merges (a
        local server among its workers).
      layers: elements of each layer, for placements that go by layers.
      priorities: of each chunk, smaller first; by default its index.
      turns: the chunks that rounds exchange in turn; empty: every round exchanges all.
      counts: told, at the root of a round's first chunk, how many local steps came from the member
        itself, and from each child with all below it; again if the round runs again.

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
        codec: Codec,
        machine: Machine,
        recorder: Recorder,
        allowances: Mapping[str, Allowance],
        layers: Sequence[int] = (),
        priorities: Sequence[int] = (),
        turns: Sequence[Chunks] = (),
        counts: Callable[[int, Mapping[str, int]], None] | None = None,
    ):
        self.me, self.group, self.held = me, group, -1
        self.learn(sizes, layers)
        self.gate = Gate(me, recorder, len(sizes))
        self.gate.owed = self._owed
        self._policies = ByRound()
        self._sender = ChunkSender(group, transport, codec, self.gate, self._policies, priorities)
        self._codec, self._machine, self._recorder = codec, machine, recorder
        self._by_chunk = recorder.level == "chunk"
        self._allowances, self._turns = allowances, tuple(turns)
        self._counts = counts
        self.at_root: RootMerge | None = None
        self._rounds: dict[int, Round] = {}
        self._late = LatePayloads(codec.fill, me, recorder.add)
        self.watcher: RoundWatcher | None = None
        self._fetch = Fetch(-1, None, (), set())
        self._stands_for: dict[int, int] = {}
        self._behind: set[tuple[int, str, int]] = set()  # (round held in this epoch, whose, chunk)

    @property
    def policy(self) -> Policy | None:
        """The policy of the latest rounds; None: there is none yet."""
        return self._policies.newest.policy if self._policies else None

    def learn(self, sizes: Sequence[int], layers: Sequence[int]) -> None:
        """Takes note of how vectors are cut; a global server is told when the run starts."""
        self.sizes, self.layers = tuple(sizes), tuple(layers)

    def _chunks(self, number: int) -> Chunks:
        """What a round exchanges."""
        if not self._turns or number < 0:
            return range(len(self.sizes))
        return self._turns[number % len(self._turns)]

    # ---- the member's own side

    def offer(self, number: int, chunk: int, contribution: Contribution) -> None:
        """Contributes one chunk to a round. The payload must not change until the round ends.

        Later offers of the same chunk are ignored: workers repeat theirs after a change of the
        membership, and the first one is kept and sent again anyway.
        """
        if number <= self.held or chunk in self._round(number).own:
            return
        self._round(number).own[chunk] = contribution
        if not self.gate.frozen and self._policies.knows(number):
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
        known = chunks in self._round(number).asked
        results = self._round(number).ask(chunks)
        if not known:
            self._check_whole(number)
        return results

    @property
    def keeps(self) -> bool:
        """Whether the results of round ``held`` are still here, to be sent to others."""
        if self.held < 0:
            return True
        return len(self._round(self.held).results) >= len(self._chunks(self.held))

    def skip_to(self, held: int) -> None:
        """Takes part from round ``held + 1`` on; for who comes back or continues a broken run."""
        self.held = held

    def adopt(self, number: int, results: Sequence[Contribution], to: Sequence[str]) -> None:
        """Takes the results of a round as given, holds it, and sends it ``to`` other members."""
        self._round(number).results = dict(enumerate(results))
        self.held = number
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
            self.adopt(later, [c for _, c in sorted(self._round(number).results.items())], ())
        elif number > self.held:
            self._stands_for[number] = later

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
        entry = self._rounds.get(number)
        if entry is None or not self._policies:
            return f"anything of round {number}"
        if not self._policies.knows(number):
            return f"the policy of round {number}, which is not granted yet"
        for chunk in self._chunks(number):
            if chunk in entry.results:
                continue
            local, arrived = self._policies.of(number), entry.arrived.get(chunk, {})
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
        if self._turns and kind in ROUTED and chunk not in self._chunks(number):
            gate.refuse(peer, message, "its round exchanges other chunks")
            return
        ahead = number > self.held or kind is Kind.LATE
        if ahead and message.policy > self._policies.newest.policy.version and kind in _BY_POLICY:
            gate.wait(peer, message)
            return
        try:
            contribution = received(message, self._codec, self.sizes[chunk])
            if contribution.abstains and kind is not Kind.OFFER and self.group != WAN_GROUP:
                raise FrameError("parameters without values")
            local = self._policies.of(number)
            why = self._out_of_turn(peer, message, local)
            why = why or self._too_heavy(peer, message, local)
            if why:
                raise FrameError(why)
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

    def _out_of_turn(self, peer: str, message: Message, local: LocalPolicy) -> str:
        """Why this message breaks the protocol now; "": it does not.

        A peer's offer of a round comes after its offer of the round before, since it depends on
        that round's result; a result comes after this member's own offer. One exception: after a
        change of the membership, a center's server may have a result before its workers offered.
        """
        number, chunk, kind = message.round, message.chunk, message.kind
        done = max(self.held, self._fetch.round)
        if kind is Kind.LATE:
            latest = self.held + 2 * max(1, len(self._turns))
            size, sent_by = self.sizes[chunk], self._policies.by_version(message.policy)
            return cannot_be_late(peer, message, self._codec, size, latest, sent_by)
        if kind is Kind.AGGREGATE:
            if peer != self._fetch.source or number != self._fetch.round:
                return "nobody told it to send this"
            return "it is here already" if chunk in self._fetch.came else ""
        if kind not in ROUTED:
            return "no message of an exchange along trees"
        if number > done and message.policy != local.policy.version:
            return f"sent by policy {message.policy}, its round has {local.policy.version}"
        tree, entry = local.placement[chunk], self._rounds.get(number)
        expected = local.expected[tree]
        arrived = _NOTHING if entry is None else entry.arrived.get(chunk, _NOTHING)
        if kind is Kind.RESULT:
            if peer != local.sources[tree]:
                return "not its parent"
            if number <= done or (entry is not None and chunk in entry.results):
                return "it is here already"
            may = self.group != WAN_GROUP and number == done + 1
            early = len(arrived) < len(expected) and not may
            return "this member has not made its own offer" if early else ""
        if peer == self.me or peer not in expected:
            return "not its child"
        if self._behind and (number, peer, chunk) in self._behind:
            return ""
        if number <= done or peer in arrived:
            return "counted already"
        before = number - (len(self._turns) or 1)
        due = before > done and peer in self._policies.of(before).expected_of(chunk)
        behind = due and peer not in self._arrived(before, chunk)
        return f"its offer of round {before} has not come" if behind else ""

    def _too_heavy(self, peer: str, message: Message, local: LocalPolicy) -> str:
        """Why a message in turn cannot be of so many contributions, or weigh so much."""
        number, kind = message.round, message.kind
        over = kind is Kind.OFFER and number <= self.held
        if over or kind is Kind.LATE or (message.body and message.body.get("abstains") is True):
            return ""
        if kind is Kind.OFFER:
            allowed = local.allowed[local.placement[message.chunk]][peer]
        elif self.group != WAN_GROUP:
            allowed = PARAMETERS
        elif kind is Kind.RESULT:
            allowed = local.allowed_result
        else:  # of a round whose members may have died since
            allowed = together(self._allowances.values())
        return allowed.refuses(message)

    def _owed(self, peer: str, message: Message) -> Owed:
        """Whether a peer has to send this message (once more) in this epoch.

        A member that has nobody below it has kept its offers, and who was told to send a round
        holds it. All others may be waiting for somebody.
        """
        number, chunk, kind = message.round, message.chunk, message.kind
        if kind is Kind.AGGREGATE:
            promised = peer == self._fetch.source and number == self._fetch.round > self.held
            return Owed.NOW if promised else Owed.NOT
        over = number <= max(self.held, self._fetch.round)
        if over or kind not in ROUTED or not 0 <= chunk < len(self.sizes):
            return Owed.NOT
        local = self._policies.of(number)
        if kind is Kind.RESULT:
            lacks = peer == local.source_of(chunk) and chunk not in self._round(number).results
            return Owed.LATER if lacks else Owed.NOT
        if peer not in local.expected_of(chunk) or peer in self._arrived(number, chunk):
            return Owed.NOT
        return Owed.NOW if local.is_leaf(peer, chunk) else Owed.LATER

    def _arrived(self, number: int, chunk: int) -> dict[str, Contribution]:
        entry = self._rounds.get(number)
        return {} if entry is None else entry.arrived.get(chunk, {})

    def _fetched(self, number: int, chunk: int, result: Contribution) -> None:
        """Takes a result of the last held round, and sends it on to members that lack it."""
        self._fetch.came.add(chunk)
        if number == self._fetch.round and self._fetch.lacking:
            self._sender.chunk(self._fetch.lacking, Kind.AGGREGATE, number, chunk, result)
        awaited = self.held + 1
        if awaited < number and awaited in self._rounds:  # it stands for the one awaited here
            self._round(awaited).take(chunk, result)
            self._check_whole(awaited)
        if number > self.held:
            self._round(number).take(chunk, result)
            self._check_whole(number)

    # ---- policies

    def grant(self, until: int) -> None:
        """Says that the policies of all rounds before ``until`` are known here."""
        waiting = sorted(n for n in self._rounds if not self._policies.knows(n))
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

    def _local(self, policy: Policy) -> LocalPolicy:
        return local_policy(self.me, policy, self.sizes, self.layers, allowances=self._allowances)

    def _take_early(self) -> None:
        for peer, message in self.gate.early():
            self.handle(peer, message)

    def _add_own(self, number: int) -> None:
        for chunk, contribution in sorted(self._rounds[number].own.items()):
            self._add(self.me, number, chunk, contribution)

    # ---- membership

    def freeze(self, epoch: int) -> None:
        """Stops taking part until :meth:`resume`; messages of older epochs are dropped."""
        self.gate.freeze(epoch)

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
        self._behind.clear()
        self._late.begin(epoch, held, policy.members)
        self._policies.begin(self._local(policy))
        if self._policies.newest.passive:  # what it published may be held by nobody: it runs again
            self.held = held
            self._rounds.clear()
        self._fetch = Fetch(held, source, () if self.held == held else lacking, set())
        if lacking and self.held == held:
            kept = self._rounds[held].results
            if self._turns and self.at_root is not None:  # for who comes back and has nothing
                kept = {**self.at_root.standing(), **kept}
            for peer in lacking:
                for chunk, result in sorted(kept.items()):
                    self._sender.chunk((peer,), Kind.AGGREGATE, held, chunk, result)
        for number in sorted(self._rounds):
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
        self._take_early()

    # ---- the path of one chunk

    def _round(self, number: int) -> Round:
        entry = self._rounds.get(number)
        if entry is None:
            entry = self._rounds[number] = Round()
        return entry

    def _add(self, member: str, number: int, chunk: int, contribution: Contribution) -> None:
        if number <= self.held:
            self._behind.discard((number, member, chunk))
            return
        local = self._policies.of(number)
        expected = local.expected_of(chunk)
        arrived = self._round(number).arrived.setdefault(chunk, {})
        arrived[member] = contribution
        if len(arrived) < len(expected):
            return
        ordered = [arrived[name] for name in expected]
        late = self._late.of_sum(number, chunk, local, arrived)
        payloads: list[Any] = [c.payload for c in ordered if c.contributors]
        payloads += late
        work = sum([payload.nbytes for payload in payloads[1:]])
        epoch = self.gate.epoch
        self._machine.after(
            "sum", work, lambda: self._reduced(epoch, number, chunk, ordered, payloads)
        )

    def _reduced(
        self,
        epoch: int,
        number: int,
        chunk: int,
        ordered: Sequence[Contribution],
        payloads: Sequence[Payload],
    ) -> None:
        if epoch != self.gate.epoch:  # it has changed, and the offers are sent again
            return
        given = [c for c in ordered if c.contributors]
        total = given[0] if given else ABSTAINED
        local = self._policies.of(number)
        if len(payloads) > 1:
            total = summed(self._codec.combine(payloads), given)  # type: ignore[arg-type]
            check_finite(
                total.payload, self._codec,
                lambda: dict(zip(local.expected_of(chunk), ordered, strict=True)),
                lambda: f"{self.me}, chunk {chunk} of round {number}",
            )  # fmt: skip
        tree = local.tree(chunk)
        if tree.root == self.me:
            if self._by_chunk:
                self._recorder.chunk_event("reduced", round=number, chunk=chunk)
            if self._counts is not None and chunk == self._chunks(number)[0]:
                offers = zip(local.expected_of(chunk), ordered, strict=True)
                self._counts(number, {n: c.steps for n, c in offers if c.contributors})
            if self.at_root is None:
                self.publish(number, chunk, total)
            else:
                self.at_root.merged(number, chunk, total)
            return
        parent = tree.parent[self.me]
        self._sender.chunk((parent,), Kind.OFFER, number, chunk, total)
        own = ordered[0]
        if (own.late is not None or own.datagrams) and local.first_hop(chunk):
            parts = own_parts(own.late, own.datagrams)
            self._late.offered(number, chunk, len(parts))
            self._sender.late(parent, number, chunk, parts, chunks=len(self.sizes))

    def _result(self, number: int, chunk: int, result: Contribution) -> None:
        if number <= self.held:
            return
        entry = self._round(number)
        if chunk in entry.results:
            return
        entry.take(chunk, result)
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
        if len(self._round(number).results) == self._policies.of(number).own:
            self.held = number
            self._late.hold(number - max(1, len(self._turns)))  # all that offered have held that
            self._policies.forget_before(number + 1)
            del self._rounds[number]

    def _check_whole(self, number: int) -> None:
        entry = self._round(number)
        if number > self.held and entry.given >= len(self._chunks(number)):
            self.held = number
            self._late.hold(number)
            self._policies.forget_before(number + 1)
            if self.watcher is not None:
                self.watcher.held(number)
            self._note_behind(number)
            entry.arrived.clear()
            for old in [n for n in self._rounds if n < number]:
                del self._rounds[old]
            later = self._stands_for.pop(number, None)
            if later is not None:
                self.stand_for(number, later)

    def _note_behind(self, number: int) -> None:
        """Notes whose offers to a round have not come, though its result is here."""
        local = self._policies.of(number)
        for chunk in self._chunks(number):
            expected, arrived = local.expected_of(chunk), self._arrived(number, chunk)
            if len(arrived) < len(expected):
                self._behind |= {(number, name, chunk) for name in expected if name not in arrived}

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
