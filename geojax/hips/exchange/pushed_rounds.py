"""The rounds of a center that pushes its offers to global servers, and pulls parameters."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from geojax.hips.exchange.buckets import Chunks
from geojax.hips.exchange.contribution import Contribution


@dataclass
class PushedRound:
    """One round.

    Attributes:
      own: the center's offers, by chunk; kept until all are answered.
      results: the parameters that are here, by chunk.
      asked: who waits for which of them.
    """

    own: dict[int, Contribution] = field(default_factory=dict)
    results: dict[int, Contribution] = field(default_factory=dict)
    asked: dict[Chunks, asyncio.Future[list[Contribution]]] = field(default_factory=dict)

    def give_out(self) -> None:
        """Gives out everything that was asked for and is here."""
        for chunks, wanted in self.asked.items():
            if len(self.results) < len(chunks) or wanted.done():
                continue
            if all(chunk in self.results for chunk in chunks):
                wanted.set_result([self.results[chunk] for chunk in chunks])

    @property
    def given(self) -> int:
        """Number of chunks whose results have been given out."""
        return sum(len(chunks) for chunks, wanted in self.asked.items() if wanted.done())


class PushedRounds:
    """All rounds of a center that are not over.

    Args:
      chunks: number of chunks of the vector.

    Attributes:
      held: the last whole round.
      returning: this member comes back, and pulls the parameters of round ``held`` without a push.
      retired: it makes no more offers.
    """

    def __init__(self, chunks: int):
        self._chunks, self.held = chunks, -1
        self.returning = self.retired = False
        self._known: dict[int, PushedRound] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, number: int) -> bool:
        return number in self._known

    def __getitem__(self, number: int) -> PushedRound:
        """A round; a new one, if nothing is known of it yet."""
        entry = self._known.get(number)
        if entry is None:
            entry = self._known[number] = PushedRound()
        return entry

    def later(self) -> Iterator[int]:
        """The rounds after ``held`` of which something is known, in order."""
        return iter(sorted(number for number in self._known if number > self.held))

    def pulls(self, number: int) -> bool:
        """Whether parameters after this round come without a push."""
        return self.returning and number == self.held

    def offer(self, number: int, chunk: int, contribution: Contribution) -> bool:
        """Keeps an offer; returns whether it is to be pushed: it is no repetition."""
        if number <= self.held or chunk in self[number].own:
            return False
        self[number].own[chunk] = contribution
        return True

    def awaits(self, number: int, chunk: int) -> bool:
        """Whether a push of this chunk is not answered yet."""
        entry = self._known.get(number)
        return entry is not None and chunk in entry.own and chunk not in entry.results

    def unasked(self, number: int, chunk: int) -> str:
        """Why an answer breaks the protocol; "": it does not."""
        entry = self._known.get(number)
        if not self.pulls(number) and (entry is None or chunk not in entry.own):
            return "no answer to a push of this member"
        here = entry is not None and chunk in entry.results
        return "it is here already" if here else ""

    def hold(self, number: int) -> bool:
        """Gives out what is here of a round; returns whether it is held from now on."""
        entry = self[number]
        entry.give_out()
        if entry.given < self._chunks:
            return False
        self.held, self.returning = number, False
        return True

    def forget_held(self) -> None:
        """Forgets rounds that are over."""
        for old in [number for number in self._known if number <= self.held]:
            del self._known[old]
