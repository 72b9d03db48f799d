"""One shard at its server: which pushes it has taken, merged and answered. No messages here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from geojax.compression.codec import Codec
from geojax.hips.exchange.contribution import Contribution
from geojax.hips.exchange.shard import Decoded, Shard
from geojax.sync.algorithm import AdmissionRule, Arrival, Desk


class Push(NamedTuple):
    """One center's offer to one round, for all chunks of a shard.

    Attributes:
      center: whose it is.
      number: the center's round.
      base: version of the parameters that it was computed at; −1: of a server that died since.
      contributions: one per chunk of the shard.
      at: loop time at which the last of them came, s.
      took: since its center was answered last, s; None: this server has not answered it yet.
    """

    center: str
    number: int
    base: int
    contributions: tuple[Contribution, ...]
    at: float
    took: float | None = None

    @property
    def steps(self) -> int:
        """Local steps that it stands for."""
        return self.contributions[0].steps


class Answer(NamedTuple):
    """What a center may be answered.

    Attributes:
      center: whom.
      number: to which round of its own.
      held_back: how long its push has waited here for other centers: until it was admitted to a
        merge, and from that merge until now, s.
    """

    center: str
    number: int
    held_back: float


@dataclass
class _Collected:
    number: int
    chunks: dict[int, Contribution] = field(default_factory=dict)


class ServedShard:
    """Collects pushes, merges each once, and says who may be answered.

    Args:
      shard: the parameters.
      progress: for each center the last of its rounds that ``shard`` contains.
      admission: which pushes are merged together, when, and who is answered.

    Attributes:
      progress: as above, up to now.
      highest: highest round of any center that the shard contains.
      goes_on: it replaces the shard of a dead server, whose last rounds are not known.
      steps: local steps that all pushes stand for that were merged here.
    """

    def __init__(self, shard: Shard, progress: Mapping[str, int], admission: AdmissionRule):
        self.shard, self.progress = shard, dict(progress)
        self.highest = max(self.progress.values(), default=-1)
        self._admission = admission
        self._first = shard.version
        self.goes_on, self.steps = False, 0
        self._collected: dict[str, _Collected] = {}
        self._arrived: list[Push] = []  # whole, in order of arrival, and in no merge yet
        self._admitted: list[Push] = []  # the next merges take them
        self._waiting: dict[str, int] = {}  # center: round, in order of arrival
        self._pushed: dict[str, int] = {}  # center: its last whole push of this epoch
        self._answered_at: dict[str, float] = {}  # center: loop time of its last answer, s
        self._idle_since: dict[str, float] = {}  # center that waits for others: loop time, s
        self._idle_s: dict[str, float] = {}  # center: what it has waited for others before, s

    def desk(self, retired: Collection[str], now: float) -> Desk:
        """What the admission rule decides upon."""
        arrived = tuple(Arrival(p.center, p.number, p.at, p.took) for p in self._arrived)
        return Desk(arrived, self.progress, retired, self.highest, now)

    def out_of_turn(self, center: str, number: int, chunk: int) -> str:
        """Why a push of this chunk breaks the protocol now; "": it does not.

        A center pushes a round once in an epoch, after the answer to the one before. The first
        push to a shard that replaces a dead server's may be of any round.
        """
        last = self._pushed.get(center)
        collected = self._collected.get(center)
        if last is not None and number != last + 1:
            return f"its last push was of round {last}"
        if collected is not None and collected.number != number:
            return f"its push of round {collected.number} is not whole"
        if collected is not None and chunk in collected.chunks:
            return "it is here already"
        known = self._taken(center)
        if last is None and known is not None and not self.goes_on and number > known + 1:
            return f"its last push was of round {known}"
        old = last is None and known is not None and number < known
        return f"round {known} is applied already" if old else ""

    def lacks(self, center: str, number: int, chunk: int) -> bool:
        """Whether a push of this chunk has not come, and would be taken now."""
        known = self._taken(center)
        new = known is not None and number > known
        return new and not self.out_of_turn(center, number, chunk)

    def _taken(self, center: str) -> int | None:
        """The last round of a center that is merged, or will be; None: none is known."""
        held = (*self._arrived, *self._admitted)
        rounds = [push.number for push in held if push.center == center]
        if center in self.progress:
            rounds.append(self.progress[center])
        return max(rounds, default=None)

    def collect(
        self, center: str, number: int, chunk: int, contribution: Contribution, base: int,
        now: float,
    ) -> bool:  # fmt: skip
        """Takes one chunk of a push; returns whether that makes it whole, and it is a new one.

        One that was taken before waits for its answer only.
        """
        collected = self._collected.get(center)
        if collected is None or collected.number < number:
            collected = self._collected[center] = _Collected(number)
        elif collected.number > number:
            return False
        collected.chunks[chunk] = contribution
        if len(collected.chunks) < len(self.shard.chunks):
            return False
        del self._collected[center]
        taken = self._taken(center)
        self._pushed[center] = self._waiting[center] = number
        self._idle_since[center], self._idle_s[center] = now, 0.0
        if taken is not None and number <= taken:
            return False
        chunks = tuple(collected.chunks[c] for c in self.shard.chunks)
        since = self._answered_at.get(center)
        took = None if since is None else now - since
        self._arrived.append(Push(center, number, base, chunks, now, took))
        return True

    def admit(self, retired: Collection[str], now: float) -> tuple[Push, ...]:
        """Takes out the pushes that the next merge takes, if there is one."""
        batch: list[Push] = []
        for center in self._admission.admit(self.desk(retired, now)):
            at = next(at for at, push in enumerate(self._arrived) if push.center == center)
            batch.append(self._arrived.pop(at))
            if center in self._idle_since:  # else it is answered already
                self._idle_s[center] += now - self._idle_since.pop(center)
        self._admitted += batch
        return tuple(batch)

    def apply(self, batch: Sequence[Push], codec: Codec, living: int) -> list[int]:
        """Merges pushes; returns the staleness of each: merges since its parameters were pulled.

        After the death of a server, only merges that its successor made are counted.
        """
        staleness = [self.shard.version - max(push.base, self._first) for push in batch]
        pairs = zip(batch, staleness, strict=True)
        self.shard.apply([_decoded(push, codec, behind) for push, behind in pairs], living)
        for push in batch:
            self.steps += push.steps
            self.highest = max(self.highest, push.number)
            if any(push is one for one in self._admitted):  # else its center has begun anew
                self.progress[push.center] = push.number
        self._admitted = [one for one in self._admitted if all(one is not p for p in batch)]
        return staleness

    def begin(self, center: str, number: int) -> None:
        """A center that comes back, and will go on with round ``number + 1``."""
        self.progress[center] = self._pushed[center] = number
        self._collected.pop(center, None)
        for times in (self._waiting, self._answered_at, self._idle_since, self._idle_s):
            times.pop(center, None)
        self._arrived = [push for push in self._arrived if push.center != center]
        self._admitted = [push for push in self._admitted if push.center != center]

    def answerable(self, retired: Collection[str], now: float) -> list[Answer]:
        """Takes out everyone who waits and may be answered, first come first.

        Who is in the merge that comes next waits for that.
        """
        desk, soon = self.desk(retired, now), {push.center for push in self._admitted}
        ready: list[Answer] = []
        for center, number in self._waiting.items():
            if center in soon:
                continue
            since = self._idle_since.setdefault(center, now)  # it was merged just now
            if self._admission.answers(center, number, desk):
                ready.append(Answer(center, number, self._idle_s.pop(center) + now - since))
        for center, *_ in ready:
            del self._waiting[center], self._idle_since[center]
            self._answered_at[center] = now
        return ready

    def resume(self, members: Sequence[str]) -> None:
        """A new epoch: members repeat pushes without an answer; dead ones are forgotten.

        Pushes of members that were answered before they are merged stay.
        """
        self._arrived = [push for push in self._answered() if push.center in members]
        self._admitted.clear()
        self.progress = {name: n for name, n in self.progress.items() if name in members}
        self._collected.clear()
        self._pushed.clear()
        for times in (self._waiting, self._answered_at, self._idle_since, self._idle_s):
            times.clear()
        self.shard.keep_only(members)

    def _answered(self) -> list[Push]:
        """Pushes that were answered and are not merged yet: their centers do not repeat them."""
        held = (*self._admitted, *self._arrived)
        return [push for push in held if self._waiting.get(push.center) != push.number]

    def state(self) -> dict[str, Any]:
        """All that a continued run needs of the shard; centers repeat pushes without an answer."""
        return {
            **self.shard.state(), "progress": dict(self.progress), "highest": self.highest,
            "first": self._first, "steps": self.steps,
            "pushes": [
                {
                    **push._asdict(),
                    "contributions": [
                        [one.payload, one.weight, one.contributors, one.steps]
                        for one in push.contributions
                    ],
                }
                for push in self._answered()
            ],
        }  # fmt: skip

    def load(self, kept: Mapping[str, Any], now: float) -> None:
        """The inverse of :meth:`state`, for a shard of the same chunks.

        Args:
          kept: the state.
          now: loop time, at which pushes that wait count as having come, s.
        """
        self.shard.load(kept)
        self.highest, self._first, self.steps = kept["highest"], kept["first"], kept["steps"]
        self._arrived = [
            Push(
                push["center"], push["number"], push["base"],
                tuple(
                    Contribution(payload, weight, count, steps=steps)
                    for payload, weight, count, steps in push["contributions"]
                ), now,
            )
            for push in kept["pushes"]
        ]  # fmt: skip

    def behind(self, retired: Collection[str]) -> list[str]:
        """The centers that are furthest behind, which held-back answers wait for."""
        counted = {name: n for name, n in self.progress.items() if name not in retired}
        return [name for name, n in counted.items() if n == min(counted.values())]


def _decoded(push: Push, codec: Codec, staleness: int) -> Decoded:
    chunks = [(codec.decode(one.payload), one.weight) for one in push.contributions]  # type: ignore[arg-type]
    return Decoded(push.center, chunks, staleness, push.steps)
