"""Which messages an exchange along trees takes: of whom, of which round, and how heavy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geojax.compression.codec import Codec
from geojax.errors import FrameError
from geojax.hips.cluster import WAN_GROUP
from geojax.hips.exchange.contribution import (
    PARAMETERS,
    Allowance,
    Contribution,
    received,
    together,
)
from geojax.hips.exchange.debts import Owed
from geojax.hips.exchange.late_payloads import cannot_be_late
from geojax.hips.exchange.local_policy import ByRound, LocalPolicy
from geojax.hips.exchange.rounds import Rounds
from geojax.wire.message import ROUTED, Kind, Message


class TreeRules:
    """The rules of one member; they change nothing.

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
        allowances: Mapping[str, Allowance],
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
        if peer not in local.expected_of(chunk) or peer in rounds.arrived(number, chunk):
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
        due = before > done and peer in self._policies.of(before).expected_of(chunk)
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
            allowed = together(self._allowances.values())
        return allowed.refuses(message)
