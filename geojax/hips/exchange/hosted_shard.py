"""A shard as its global server keeps it: whose pushes it has applied, and who waits for an answer.

No network here: :class:`geojax.hips.exchange.push_pull.ServerExchange` moves the messages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from geojax.compression.codec import Codec
from geojax.hips.exchange.contribution import Contribution
from geojax.hips.exchange.shard import Shard


class Push(NamedTuple):
    """One center's offer to one round, for all chunks of a shard.

    Attributes:
      center: whose it is.
      number: the center's round.
      base: version of the parameters that it was computed at; −1: of a server that died since.
      parts: one contribution per chunk of the shard.
    """

    center: str
    number: int
    base: int
    parts: tuple[Contribution, ...]


@dataclass
class _Collected:
    number: int
    parts: dict[int, Contribution] = field(default_factory=dict)


class HostedShard:
    """Collects pushes, applies each once, and says who may be answered.

    A center that has pushed round n may be answered (and so begin round n + 1) when no center that
    is counted is more than ``bound`` rounds behind: ``n − min(progress) ≤ bound``. Counted are the
    members whose progress is known, but for those that have retired.

    Args:
      shard: the parameters.
      progress: for each center the last of its rounds that ``shard`` contains.
      bound: see above; None: everyone is answered at once.

    Attributes:
      highest: highest round of any center that the shard contains.
    """

    def __init__(self, shard: Shard, progress: Mapping[str, int], bound: int | None):
        self.shard, self.progress = shard, dict(progress)
        self.highest = max(self.progress.values(), default=-1)
        self._bound = bound
        self._first = shard.version
        self._collected: dict[str, _Collected] = {}
        self._waiting: dict[str, int] = {}  # center: round, in order of arrival

    def collect(
        self, center: str, number: int, chunk: int, contribution: Contribution, base: int
    ) -> Push | None:
        """Takes one chunk of a push; returns the push when it is whole and was not applied before.

        One that was applied before waits for its answer only.
        """
        collected = self._collected.get(center)
        if collected is None or collected.number < number:
            collected = self._collected[center] = _Collected(number)
        elif collected.number > number:
            return None
        collected.parts[chunk] = contribution
        if len(collected.parts) < len(self.shard.chunks):
            return None
        del self._collected[center]
        if number <= self.progress.get(center, -1):
            self._waiting[center] = number
            return None
        return Push(center, number, base, tuple(collected.parts[c] for c in self.shard.chunks))

    def apply(self, push: Push, codec: Codec, living: int) -> int:
        """Applies a push; returns its staleness: pushes applied since its parameters were pulled.

        After the death of a server what its successor has applied counts, no more is known.
        """
        staleness = self.shard.version - max(push.base, self._first)
        offers = [(codec.decode(part.payload), part.weight) for part in push.parts]  # type: ignore[arg-type]
        self.shard.apply(push.center, offers, living)
        self.progress[push.center] = push.number
        self.highest = max(self.highest, push.number)
        self._waiting[push.center] = push.number
        return staleness

    def begin(self, center: str, number: int) -> None:
        """A center that comes back, and will go on with round ``number + 1``."""
        self.progress[center] = number
        self._collected.pop(center, None)
        self._waiting.pop(center, None)

    def answerable(self, retired: Collection[str]) -> list[tuple[str, int]]:
        """Takes out (center, round) of everyone who waits and may be answered, first come first."""
        counted = [number for name, number in self.progress.items() if name not in retired]
        slowest = min(counted, default=self.highest)
        ready = [
            (center, number)
            for center, number in self._waiting.items()
            if self._bound is None or number - slowest <= self._bound
        ]
        for center, _ in ready:
            del self._waiting[center]
        return ready

    def resume(self, members: Sequence[str]) -> None:
        """A new epoch: members will send again what was not answered; the dead are forgotten."""
        self.progress = {name: n for name, n in self.progress.items() if name in members}
        self._collected.clear()
        self._waiting.clear()
        self.shard.keep_only(members)

    def behind(self, retired: Collection[str]) -> list[str]:
        """The centers that are furthest behind: whom the answers that are held back wait for."""
        counted = {name: n for name, n in self.progress.items() if name not in retired}
        return [name for name, n in counted.items() if n == min(counted.values())]
