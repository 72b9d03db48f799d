"""What a member knows of the rounds of an exchange along trees."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from geojax.hips.exchange.buckets import Chunks
from geojax.hips.exchange.contribution import Contribution
from geojax.hips.exchange.local_policy import LocalPolicy

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
    """

    own: dict[int, Contribution] = field(default_factory=dict)
    arrived: dict[int, dict[str, Contribution]] = field(default_factory=dict)
    results: dict[int, Contribution] = field(default_factory=dict)
    asked: dict[Chunks, Asked] = field(default_factory=dict)

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

    def begin_again(self) -> None:
        """Forgets what came from others."""
        self.arrived.clear()
        self.results.clear()
        for chunks, part in self.asked.items():
            part.missing = set(chunks)

    @property
    def given(self) -> int:
        """Number of chunks whose results have been given out."""
        return sum([len(chunks) for chunks, part in self.asked.items() if part.results.done()])

    def _give_out(self, chunks: Chunks, part: Asked) -> None:
        """Gives out a part if all of it is there."""
        if not part.missing and not part.results.done():
            part.results.set_result([self.results[chunk] for chunk in chunks])


class Fetch(NamedTuple):
    """The last held round when an epoch began, its sender, and the members to send it on to.

    A member may hold it by then, as what it reported may have been the round that it stands for.
    """

    round: int
    source: str | None
    lacking: Sequence[str]
    came: set[int]  # its chunks that the sender has sent


class Rounds:
    """The rounds of a member of an exchange along trees.

    Args:
      turns: the chunks that rounds exchange in turn; empty: every round exchanges all.

    Attributes:
      chunks_in_all: number of chunks of the vector.
      held: the last round that this member holds whole.
      fetch: the round that those who lack it are sent in this epoch.
    """

    def __init__(self, turns: Sequence[Chunks] = ()):
        self._turns = tuple(turns)
        self.chunks_in_all, self.held = 0, -1
        self.fetch = Fetch(-1, None, (), set())
        self._known: dict[int, Round] = {}
        self._stands_for: dict[int, int] = {}
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

    # ---- what is known of each

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
            entry = self._known[number] = Round()
        return entry

    def has_result(self, number: int, chunk: int) -> bool:
        """Whether the result of a chunk is here."""
        entry = self._known.get(number)
        return entry is not None and chunk in entry.results

    def arrived(self, number: int, chunk: int) -> Mapping[str, Contribution]:
        """What has come of a chunk, by contributor."""
        entry = self._known.get(number)
        return _NOTHING if entry is None else entry.arrived.get(chunk, _NOTHING)

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
            if len(arrived) < len(expected):
                self._behind |= {(number, name, chunk) for name in expected if name not in arrived}
        entry.arrived.clear()
        for old in [n for n in self._known if n < number]:
            del self._known[old]
        return self._stands_for.pop(number, None)

    def is_behind(self, number: int, name: str, chunk: int) -> bool:
        """Whether a member's offer to a round that is held here is still to come."""
        return bool(self._behind) and (number, name, chunk) in self._behind

    def catches_up(self, number: int, name: str, chunk: int) -> None:
        """It has come."""
        self._behind.discard((number, name, chunk))
