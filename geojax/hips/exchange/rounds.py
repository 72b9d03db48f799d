"""What a member knows of one round of an exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from geojax.hips.exchange.buckets import Chunks
from geojax.hips.exchange.contribution import Contribution


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


@dataclass
class PushedRound:
    """One round of a center that pushes its offers to global servers.

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


class Fetch(NamedTuple):
    """The last held round when an epoch began, its sender, and the members to send it on to.

    A member may hold it by then, as what it reported may have been the round that it stands for.
    """

    round: int
    source: str | None
    lacking: Sequence[str]
    came: set[int]  # its chunks that the sender has sent
