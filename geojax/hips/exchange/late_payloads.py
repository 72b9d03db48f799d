"""The late parts of offered chunks, which no merge waits for.

A late part is added to the first merge of its chunk after it has arrived: that of its own round, or
a later one. It is counted once, even if the membership changes. Parts of a round that runs again
are offered again, so those that are here are forgotten; parts of earlier rounds that were counted
in it are counted again. Parts of dead members are dropped. Parts that a parent had not counted when
it died are lost, and so are those that their links had no room for (:mod:`geojax.wire.priority`).
The totals ``late_offered`` and ``late_counted`` tell how many there were, and how many of them a
merge counted; the others were dropped.

Where the codec fills in missing parts (:attr:`geojax.compression.codec.Codec.fill`), a part that
arrives after the merge of its round is not counted any more, but the codec learns its values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geojax.compression.codec import Codec
from geojax.hips.exchange.contribution import Contribution
from geojax.hips.exchange.local_policy import LocalPolicy
from geojax.wire.datagrams import MAX_DATAGRAM_BYTES
from geojax.wire.message import Kind, Message, Payload

RELIABLE = -1  # index of a part that did not come as a datagram
MEMORY_ROUNDS = 2  # how many rounds back the counted datagrams are known
RELIABLE_ROUNDS = 32  # the same of other parts, which come once and in order

Fill = Callable[[Any, Sequence[Any], Sequence[Any]], tuple[Any, Any]]
Part = tuple[int, Any]  # index, payload
_Key = tuple[str, int, int]  # member, round, index


@dataclass
class _Part:
    payload: Any
    counted: int | None = None  # the round in which it counts
    learned: bool = False  # it came too late to be counted; the codec knows its values


@dataclass
class _History:
    """What the codec knows of one member's chunk."""

    number: int  # the round of the last merge
    before: Any
    after: Any


class LatePayloads:
    """The late parts that came to one member, by chunk.

    Args:
      fill: the codec's, if it has one.
      me: this member.
      add: ``add(total, amount)`` adds to the totals above.
    """

    def __init__(
        self,
        fill: Fill | None = None,
        me: str = "",
        add: Callable[[str, float], None] = lambda *_: None,
    ):
        self._fill, self._me, self._add = fill, me, add
        self._offered: set[tuple[int, int]] = set()  # rounds and chunks whose own parts are counted
        self._agreed: dict[int, int] = {}  # epoch: the round after which it began
        self._chunks: dict[int, dict[_Key, _Part]] = {}
        self._over: set[tuple[int, _Key]] = set()  # counted for good, of the last rounds
        self._histories: dict[tuple[str, int], _History] = {}
        self._held = -1

    def add(self, member: str, number: int, chunk: int, index: int, payload: Any) -> bool:
        """Keeps a part of a member's offer for round ``number``.

        Returns:
          False if it is here already, or so old that this is not known any more.
        """
        parts, key = self._chunks.setdefault(chunk, {}), (member, number, index)
        old = number <= self._held - _memory(index)
        if old or key in parts or (chunk, key) in self._over:
            return False
        parts[key] = _Part(payload)
        return True

    def still_counts(self, message: Message, *, frozen: bool) -> bool:
        """Whether a message of an old epoch is a late part that will not be sent again.

        That is so if a member held its round at every change of the membership since.
        """
        if message.kind is not Kind.LATE:
            return False
        after = [held for epoch, held in self._agreed.items() if epoch > message.epoch]
        return frozen or message.round <= min(after)

    def of_sum(
        self, number: int, chunk: int, local: LocalPolicy, arrived: Mapping[str, Contribution]
    ) -> list[Payload]:
        """The late payloads that count in the sum of a chunk.

        Own parts are among them, unless they are sent to the parent.

        Args:
          number: the round that is summed.
          chunk: the chunk.
          local: the round's policy.
          arrived: what is summed, by contributor.
        """
        own = arrived.get(self._me)
        none = own is None or (own.late is None and not own.datagrams)
        if none and self._fill is None and not self._chunks:
            return []
        if own is not None and not local.first_hop(chunk):
            parts = own_parts(own.late, own.datagrams)
            self.offered(number, chunk, len(parts))
            for index, payload in parts:
                self.add(self._me, number, chunk, index, payload)
        offers: dict[str, Payload] = {}
        if self._fill is not None:
            # What comes from a child with children of its own is a sum: it never had late parts.
            others = {self._me, *local.tree(chunk).parent.values()}
            # An offer of weight 0 counts nothing, and nothing stands in for it.
            offers = {n: c.payload for n, c in arrived.items() if n not in others and c.weight}
        return self.take(number, chunk, local.policy.members, offers)

    def offered(self, number: int, chunk: int, count: int) -> None:
        """Notes how many late parts this member's offer of a chunk has."""
        if count and (number, chunk) not in self._offered:  # a round that runs again offers again
            self._offered.add((number, chunk))
            self._add("late_offered", count)

    def take(
        self, number: int, chunk: int, members: Sequence[str], important: Mapping[str, Any]
    ) -> list[Any]:
        """The payloads that count in this merge beside the important ones, in order.

        Args:
          number: the round that is merged.
          chunk: the chunk.
          members: all members, in their order; it is that of the payloads, then their rounds.
          important: the important payloads of the children that may have sent late parts.
        """
        parts = self._chunks.get(chunk, {})
        if not parts and self._fill is None:
            return []
        place = {name: at for at, name in enumerate(members)}
        due = sorted(
            (place[key[0]], *key[1:], key)
            for key, part in parts.items()
            if key[0] in place and key[1] <= number and part.counted is None
        )
        taken: dict[str, list[tuple[int, Any]]] = {}
        for *_, key in due:
            late = self._fill is not None and key[1] < number
            parts[key].counted, parts[key].learned = number, late
            if not late:
                self._add("late_counted", 1)
            taken.setdefault(key[0], []).append((key[1], parts[key].payload))
        if self._fill is None:
            return [payload for those in taken.values() for _, payload in those]
        found = []
        for name in members:
            those = taken.get(name, ())
            current = [payload for of, payload in those if of == number]
            found += current
            if name in important:
                older = [payload for of, payload in those if of < number]
                filled = self._filled(name, number, chunk, older, [important[name], *current])
                found += [] if filled is None else [filled]
        return found

    def _filled(
        self, name: str, number: int, chunk: int, older: Sequence[Any], parts: Sequence[Any]
    ) -> Any:
        assert self._fill is not None
        known = self._histories.get((name, chunk))
        before = None
        if known is not None:
            before = known.before if known.number == number else known.after
        filled, after = self._fill(before, older, parts)
        self._histories[name, chunk] = _History(number, before, after)
        return filled

    def hold(self, number: int) -> None:
        """Round ``number`` is whole: what was counted in it is counted for good."""
        self._held = number
        self._over = {e for e in self._over if e[1][1] > number - _memory(e[1][2])}
        self._offered = {entry for entry in self._offered if entry[0] > number}
        for chunk, parts in self._chunks.items():
            done = [k for k, p in parts.items() if p.counted is not None and p.counted <= number]
            for key in done:
                del parts[key]
                if key[1] > number - _memory(key[2]):
                    self._over.add((chunk, key))

    def run_again(self, chunk: int, first: int) -> None:
        """A chunk of the rounds from ``first`` on is offered again, with its late parts."""
        parts = self._chunks.get(chunk, {})
        for part in parts.values():
            if part.counted is not None and part.counted >= first:
                self._add("late_counted", -(not part.learned))
                part.counted, part.learned = None, False
        for key in [key for key in parts if key[1] >= first]:
            del parts[key]

    def begin(self, epoch: int, held: int, members: Sequence[str]) -> None:
        """An epoch begins: rounds after ``held`` run again, among ``members``."""
        self._agreed[epoch] = held
        for chunk, parts in self._chunks.items():
            self.run_again(chunk, held + 1)
            for key in [key for key in parts if key[0] not in members]:
                del parts[key]
        gone = [key for key in self._histories if key[0] not in members]
        for key in gone:
            del self._histories[key]


def cannot_be_late(
    peer: str, message: Message, codec: Codec, size: int, latest: int, sent_by: LocalPolicy | None
) -> str:
    """Why a message cannot be a late part; "": it can, though perhaps of a policy long over.

    Args:
      peer: who made it.
      message: the message; its payload is one of the codec's.
      codec: says how many parts there may be.
      size: elements of the chunk.
      latest: the latest round to which an offer may be under way.
      sent_by: the policy that it was sent by; None: it is not known any more.
    """
    payload, index = message.payload, (message.body or {}).get("part", RELIABLE)
    if not codec.splits:
        return "no offer has late parts"
    if index >= codec.datagrams(size):
        return f"no offer of chunk {message.chunk} has part {index}"
    if index != RELIABLE and payload.nbytes > MAX_DATAGRAM_BYTES:  # type: ignore[union-attr]
        return f"no datagram has {payload.nbytes} bytes"  # type: ignore[union-attr]
    if message.round > latest:
        return "no offer of that round can be under way"
    if sent_by is not None and not sent_by.is_leaf(peer, message.chunk):
        return "no child without children of its own"
    return ""


def _memory(index: int) -> int:
    return RELIABLE_ROUNDS if index == RELIABLE else MEMORY_ROUNDS


def own_parts(late: Any, datagrams: Sequence[Any]) -> list[Part]:
    """The late parts of an offer with their indices."""
    reliable = [] if late is None else [(RELIABLE, late)]
    return [*reliable, *enumerate(datagrams)]
