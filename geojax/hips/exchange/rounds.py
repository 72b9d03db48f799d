"""The rounds of an exchange at one member; of one along trees, which messages they take when."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from geojax.compression.codec import Codec
from geojax.errors import FrameError
from geojax.hips.cluster import WAN_GROUP
from geojax.hips.exchange.buckets import Chunks
from geojax.hips.exchange.contribution import (
    PARAMETERS,
    Allowances,
    Contribution,
    received,
)
from geojax.hips.exchange.debts import Owed
from geojax.hips.exchange.late_payloads import RELIABLE_ROUNDS, cannot_be_late
from geojax.hips.exchange.local_policy import ByRound, LocalPolicy
from geojax.wire.message import ROUTED, Kind, Message

_NOTHING: Mapping[str, Contribution] = {}


@dataclass(slots=True)
class Asked:
    """Some chunks' results that somebody waits for."""

    results: asyncio.Future[list[Contribution]]
    missing: set[int]


@dataclass(slots=True)
class Round:
    """One round at one member.

    Attributes:
      own: the member's own contributions, by chunk; kept for a re-run.
      arrived: what came of each chunk, by contributor.
      results: the merged contributions that are here, by chunk.
      asked: who waits for which of them.
      held_back: no results are given out for now.
      settled: chunks that stayed as they were when another policy took the round over, and the
        version that they go by.
    """

    own: dict[int, Contribution] = field(default_factory=dict)
    arrived: dict[int, dict[str, Contribution]] = field(default_factory=dict)
    results: dict[int, Contribution] = field(default_factory=dict)
    asked: dict[Chunks, Asked] = field(default_factory=dict)
    held_back: bool = False
    settled: Mapping[int, int] = field(default_factory=dict)

    def ask(self, chunks: Chunks) -> asyncio.Future[list[Contribution]]:
        """The results of some chunks, once they are here."""
        part = self.asked.get(chunks)
        if part is None:
            missing = {chunk for chunk in chunks if chunk not in self.results}
            part = Asked(asyncio.get_running_loop().create_future(), missing)
            self.asked[chunks] = part
            self._give_out(chunks, part)
        return part.results

    def take(self, chunk: int, result: Contribution) -> None:
        """Takes a result, and gives out every part that is whole with it."""
        self.results[chunk] = result
        for chunks, part in self.asked.items():
            if chunk in part.missing:
                part.missing.discard(chunk)
                if not part.missing:
                    self._give_out(chunks, part)

    def drop(self, chunks: Iterable[int]) -> None:
        """Forgets results, which come once more."""
        for chunk in chunks:
            self.results.pop(chunk, None)
        for wanted, part in self.asked.items():
            part.missing |= {chunk for chunk in wanted if chunk not in self.results}

    def begin_again(self, settled: Mapping[int, int] | None = None) -> None:
        """Forgets what came from others, but the results of chunks that are ``settled``."""
        self.arrived.clear()
        self.settled = settled or {}
        self.results = {chunk: r for chunk, r in self.results.items() if chunk in self.settled}
        for chunks, part in self.asked.items():
            part.missing = {chunk for chunk in chunks if chunk not in self.results}

    def hold_back(self) -> None:
        """Gives out no results until :meth:`release`."""
        self.held_back = True

    def release(self) -> None:
        """Gives out what is whole by now."""
        self.held_back = False
        for chunks, part in self.asked.items():
            self._give_out(chunks, part)

    @property
    def given(self) -> int:
        """Number of chunks whose results have been given out."""
        return sum([len(chunks) for chunks, part in self.asked.items() if part.results.done()])

    def _give_out(self, chunks: Chunks, part: Asked) -> None:
        """Gives out a part if all of it is there."""
        if not part.missing and not self.held_back and not part.results.done():
            part.results.set_result([self.results[chunk] for chunk in chunks])


class Fetch(NamedTuple):
    """The last held round when an epoch began, its sender, and the members to send it on to.

    A member may hold it by then, as what it reported may have been the round that it stands for.
    """

    round: int
    source: str | None
    lacking: Sequence[str]
    came: set[int]  # its chunks that the sender has sent


class RoundBook:
    """What a member knows of rounds.

    Attributes:
      held: the last round that this member holds whole.
    """

    def __init__(self) -> None:
        self.held = -1
        self._known: dict[int, Round] = {}
        self._held_after: float = math.inf  # results of later rounds are held back

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[int]:
        """The rounds of which something is known, in order."""
        return iter(sorted(self._known))

    def __contains__(self, number: int) -> bool:
        return number in self._known

    def __getitem__(self, number: int) -> Round:
        """A round; a new one, if nothing is known of it yet."""
        entry = self._known.get(number)
        if entry is None:
            entry = self._known[number] = Round(held_back=number > self._held_after)
        return entry

    @property
    def begun(self) -> int:
        """The last round of which some results have been given out."""
        return max(self.held, *(n for n, entry in self._known.items() if entry.given), -1)

    def hold_back(self, after: int) -> None:
        """Gives out no results of rounds after this one until :meth:`release`."""
        self._held_after = after
        for number, entry in self._known.items():
            entry.held_back = number > after

    def release(self) -> list[int]:
        """Gives out what is whole by now; returns the rounds that were held back, in order."""
        self._held_after = math.inf
        held = sorted(number for number, entry in self._known.items() if entry.held_back)
        for number in held:
            self._known[number].release()
        return held

    def has_result(self, number: int, chunk: int) -> bool:
        """Whether the result of a chunk is here."""
        entry = self._known.get(number)
        return entry is not None and chunk in entry.results

    def has_offer(self, number: int, chunk: int) -> bool:
        """Whether this member has made its own offer of a chunk."""
        entry = self._known.get(number)
        return entry is not None and chunk in entry.own

    def offer(self, number: int, chunk: int, contribution: Contribution) -> bool:
        """Keeps an own offer; false: the round is over, or it is a repetition."""
        if number <= self.held or self.has_offer(number, chunk):
            return False
        self[number].own[chunk] = contribution
        return True

    def ask(self, number: int, chunks: Chunks) -> tuple[asyncio.Future[list[Contribution]], bool]:
        """The results of some chunks, once they are here, and whether nobody asked for them yet."""
        new = chunks not in self[number].asked
        return self[number].ask(chunks), new

    def forget_before(self, number: int) -> None:
        """Forgets earlier rounds."""
        for old in [known for known in self._known if known < number]:
            del self._known[old]


class Rounds(RoundBook):
    """The rounds of a member of an exchange along trees.

    Args:
      turns: the chunks that rounds exchange in turn; empty: every round exchanges all.

    Attributes:
      chunks_in_all: number of chunks of the vector.
      fetch: the round that those who lack it are sent in this epoch.
    """

    def __init__(self, turns: Sequence[Chunks] = ()):
        super().__init__()
        self._turns = tuple(turns)
        self.chunks_in_all = 0
        self.fetch = Fetch(-1, None, (), set())
        self._stands_for: dict[int, int] = {}
        self._stayed: dict[int, Mapping[int, int]] = {}  # of the last rounds, what was settled
        self._behind: set[tuple[int, str, int]] = set()  # (round held in this epoch, whose, chunk)

    @property
    def period(self) -> int:
        """So many rounds later the same chunks are exchanged again."""
        return len(self._turns) or 1

    @property
    def done(self) -> int:
        """The last round of which nothing but what it lacks of :attr:`fetch` is to come."""
        return max(self.held, self.fetch.round)

    def chunks(self, number: int) -> Chunks:
        """What a round exchanges."""
        if not self._turns or number < 0:
            return range(self.chunks_in_all)
        return self._turns[number % len(self._turns)]

    def arrived(self, number: int, chunk: int) -> Mapping[str, Contribution]:
        """What has come of a chunk, by contributor."""
        entry = self._known.get(number)
        return _NOTHING if entry is None else entry.arrived.get(chunk, _NOTHING)

    def settled(self, number: int, chunk: int) -> int | None:
        """The version that a chunk goes by which stayed when another policy took over its round.

        Of a round that is over it is known for as long as late parts of it may count.
        """
        entry = self._known.get(number)
        return (self._stayed.get(number, {}) if entry is None else entry.settled).get(chunk)

    def forget(self, number: int) -> None:
        """Forgets a round."""
        del self._known[number]

    def clear(self) -> None:
        """Forgets all rounds."""
        self._known.clear()

    # ---- who is behind, and what is skipped

    def begin(self, held: int, source: str | None, lacking: Sequence[str]) -> None:
        """An epoch begins; see :meth:`geojax.hips.exchange.base.Exchange.resume`."""
        self._behind.clear()
        self.fetch = Fetch(held, source, () if self.held == held else lacking, set())

    def skip(self, number: int, later: int) -> None:
        """When ``number`` is held, so is ``later``."""
        self._stands_for[number] = later

    def close(self, number: int, local: LocalPolicy) -> int | None:
        """A round is held: forgets those before, and notes whose offers to it are still to come.

        Returns:
          The later round that it stands for, if it does.
        """
        entry = self[number]
        for chunk in self.chunks(number):
            expected, arrived = local.expected_of(chunk), entry.arrived.get(chunk, _NOTHING)
            if len(arrived) < len(expected) and chunk not in entry.settled:
                self._behind |= {(number, name, chunk) for name in expected if name not in arrived}
        entry.arrived.clear()
        self.forget_before(number)
        if entry.settled:
            self._stayed[number] = entry.settled
        while self._stayed and min(self._stayed) <= number - RELIABLE_ROUNDS:
            del self._stayed[min(self._stayed)]
        return self._stands_for.pop(number, None)

    def is_behind(self, number: int, name: str, chunk: int) -> bool:
        """Whether a member's offer to a round that is held here is still to come."""
        return bool(self._behind) and (number, name, chunk) in self._behind

    def catches_up(self, number: int, name: str, chunk: int) -> None:
        """It has come."""
        self._behind.discard((number, name, chunk))


class TreeRules:
    """Which messages a member takes: of whom, of which round, and how heavy. It changes nothing.

    Args:
      me: the member.
      group: index of the group.
      rounds: what is known of its rounds.
      policies: which policy a round goes by.
      codec: reads payloads.
      allowances: what the own offer of each member may carry.
    """

    def __init__(
        self,
        me: str,
        group: int,
        *,
        rounds: Rounds,
        policies: ByRound,
        codec: Codec,
        allowances: Allowances,
    ):
        self._me, self._in_center = me, group != WAN_GROUP
        self._rounds, self._policies = rounds, policies
        self._codec, self._allowances = codec, allowances

    def read(self, peer: str, message: Message, sizes: Sequence[int]) -> Contribution:
        """What a message from a peer brings.

        Args:
          peer: who made it.
          message: of this epoch and of a known policy.
          sizes: elements of each chunk.

        Raises:
          FrameError: it breaks the protocol; says how.
        """
        brought = received(message, self._codec, sizes[message.chunk])
        if brought.abstains and message.kind is not Kind.OFFER and self._in_center:
            raise FrameError("parameters without values")
        local = self._policies.of(message.round)
        if message.kind is Kind.LATE:
            why = self._not_late(peer, message, sizes[message.chunk])
        elif message.kind is Kind.AGGREGATE:
            why = self._not_fetched(peer, message)
        else:
            why = self._out_of_turn(peer, message, local)
        why = why or self._too_heavy(peer, message, local)
        if why:
            raise FrameError(why)
        return brought

    def owed(self, peer: str, message: Message) -> Owed:
        """Whether a peer has to send this message (once more) in this epoch.

        A member that has nobody below it has kept its offers, and who was told to send a round
        holds it. All others may be waiting for somebody.
        """
        number, chunk, kind, rounds = message.round, message.chunk, message.kind, self._rounds
        if kind is Kind.AGGREGATE:
            promised = peer == rounds.fetch.source and number == rounds.fetch.round > rounds.held
            return Owed.NOW if promised else Owed.NOT
        if number <= rounds.done or kind not in ROUTED or not 0 <= chunk < rounds.chunks_in_all:
            return Owed.NOT
        local = self._policies.of(number)
        if kind is Kind.RESULT:
            lacks = peer == local.source_of(chunk) and not rounds.has_result(number, chunk)
            return Owed.LATER if lacks else Owed.NOT
        if rounds.has_result(number, chunk) or peer in rounds.arrived(number, chunk):
            return Owed.NOT
        if peer not in local.expected_of(chunk):
            return Owed.NOT
        return Owed.NOW if local.is_leaf(peer, chunk) else Owed.LATER

    # ---- why a message breaks the protocol now; "": it does not

    def _not_late(self, peer: str, message: Message, size: int) -> str:
        latest = self._rounds.held + 2 * self._rounds.period
        sent_by = self._policies.by_version(message.policy)
        return cannot_be_late(peer, message, self._codec, size, latest, sent_by)

    def _not_fetched(self, peer: str, message: Message) -> str:
        fetch = self._rounds.fetch
        if peer != fetch.source or message.round != fetch.round:
            return "nobody told it to send this"
        return "it is here already" if message.chunk in fetch.came else ""

    def _out_of_turn(self, peer: str, message: Message, local: LocalPolicy) -> str:
        """Of an offer or a result.

        A peer's offer of a round comes after its offer of the round before, since it depends on
        that round's result; a result comes after this member's own offer. One exception: after a
        change of the membership, a center's server may have a result before its workers offered.
        """
        number, chunk, kind, rounds = message.round, message.chunk, message.kind, self._rounds
        if kind not in ROUTED:
            return "no message of an exchange along trees"
        done = rounds.done
        if number > done and message.policy != local.policy.version:
            return f"sent by policy {message.policy}, its round has {local.policy.version}"
        tree = local.placement[chunk]
        expected, arrived = local.expected[tree], rounds.arrived(number, chunk)
        if kind is Kind.RESULT:
            if peer != local.sources[tree]:
                return "not its parent"
            if number <= done or rounds.has_result(number, chunk):
                return "it is here already"
            may = self._in_center and number == done + 1
            early = len(arrived) < len(expected) and not may
            return "this member has not made its own offer" if early else ""
        if peer == self._me or peer not in expected:
            return "not its child"
        if rounds.is_behind(number, peer, chunk):
            return ""
        if number <= done or peer in arrived:
            return "counted already"
        before = number - rounds.period
        due = before > done and not rounds.has_result(before, chunk)
        due = due and peer in self._policies.of(before).expected_of(chunk)
        behind = due and peer not in rounds.arrived(before, chunk)
        return f"its offer of round {before} has not come" if behind else ""

    def _too_heavy(self, peer: str, message: Message, local: LocalPolicy) -> str:
        """Of a message in turn: it is of too many contributions, or weighs too much."""
        kind = message.kind
        over = kind is Kind.OFFER and message.round <= self._rounds.held
        if over or kind is Kind.LATE or (message.body and message.body.get("abstains") is True):
            return ""
        if kind is Kind.OFFER:
            allowed = local.allowed[local.placement[message.chunk]][peer]
        elif self._in_center:
            allowed = PARAMETERS
        elif kind is Kind.RESULT:
            allowed = local.allowed_result
        else:  # of a round whose members may have died since
            allowed = self._allowances.of_some(self._allowances)
        return allowed.refuses(message)
