"""What a global server does: it applies pushes to its shards in order, and answers them.

No messages here: :class:`geojax.hips.exchange.push_pull.PushPullExchange` moves them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from geojax.center.spec import VectorSpec
from geojax.compression.codec import Codec
from geojax.hips.exchange.contribution import Contribution
from geojax.hips.exchange.shard import Shard, ShardMaker
from geojax.machine.machine import Machine
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import Payload


class ShardWatcher(Protocol):
    """Is told about the shards that a node hosts."""

    def hosts(self, shard: ServedShard) -> None:
        """From now on the node hosts ``shard``."""
        ...

    def changes(self, shard: ServedShard) -> None:
        """A push will be applied to ``shard``: its present values were the last ones until now."""
        ...


class Pulled(NamedTuple):
    """Parameters of one chunk, as a center pulls them.

    Attributes:
      payload: encoded by the exchange's codec of answers; None: the run's initial parameters.
      version: how many pushes they contain.
      applied: for each center the last of its rounds that they contain.
    """

    payload: Payload
    version: int
    applied: Mapping[str, int]


class AnswerSender(Protocol):
    """Moves answers to centers; see :meth:`PushPullExchange.send_answer`."""

    def send_answer(self, center: str, number: int, chunk: int, pulled: Pulled) -> None:
        """Answers one chunk of round ``number`` of a center."""
        ...


class ShardServer:
    """The shards of one node; see the module's docstring.

    Args:
      codec: decodes pushes.
      answers: encodes parameters.
      make_shard: makes shards.
      machine: charges the outer steps.
      recorder: takes the events.
      bound: the staleness bound in rounds; None: none.

    Attributes:
      answers: as above.
      answers_by: moves the answers; the exchange of this node, which sets it.
      highest: highest round of any center that was applied here; −1: none.
      watcher: is told about the shards.
    """

    def __init__(
        self,
        *,
        codec: Codec,
        answers: Codec,
        make_shard: ShardMaker,
        machine: Machine,
        recorder: Recorder,
        bound: int | None = None,
    ):
        self._codec, self.answers, self._make_shard = codec, answers, make_shard
        self._machine, self._recorder, self._bound = machine, recorder, bound
        self.answers_by: AnswerSender
        self.highest = -1
        self.watcher: ShardWatcher | None = None
        self._members: tuple[str, ...] = ()
        self._turn = 0  # grows when pushes that are being applied are to be dropped
        self._hosted: dict[int, ServedShard] = {}  # by chunk
        self._line: deque[tuple[ServedShard, Push]] = deque()
        self._busy = False
        self._retired: dict[str, None] = {}

    @property
    def shards(self) -> tuple[ServedShard, ...]:
        """The shards, in order of their first chunks."""
        return tuple(dict.fromkeys(self._hosted[chunk] for chunk in sorted(self._hosted)))

    def __contains__(self, chunk: int) -> bool:
        return chunk in self._hosted

    def behind(self, chunk: int) -> list[str]:
        """The centers for which this chunk's shard holds answers back."""
        return self._hosted[chunk].behind(self._retired)

    # ---- membership

    def stop(self) -> None:
        """Forgets all pushes that are not applied yet; their centers repeat them."""
        self._turn += 1
        self._line.clear()
        self._busy = False

    def resume(self, members: Sequence[str]) -> None:
        """Goes on with these centers."""
        self._members = tuple(members)
        self._retired = {name: None for name in self._retired if name in members}
        for shard in self.shards:
            shard.resume(members)

    def add(
        self,
        chunks: Sequence[int],
        values: Sequence[np.ndarray],
        version: int,
        applied: Mapping[str, int],
        *,
        everyone: bool = False,
    ) -> None:
        """Hosts some more chunks, as a shard of their own.

        Args:
          chunks: their indices.
          values: their elements.
          version: how many pushes these contain.
          applied: for each center the last of its rounds that they contain.
          everyone: the run starts, and all centers start from these values.
        """
        known = {name: n for name, n in applied.items() if name in self._members}
        shard = ServedShard(self._make_shard(chunks, values, version), known, self._bound)
        shard.goes_on = not everyone
        self._hosted.update(dict.fromkeys(chunks, shard))
        for name in self._members if everyone else ():
            shard.shard.answered(name)
        self.tell(shard)

    def tell(self, shard: ServedShard) -> None:
        """Tells the watcher that ``shard`` is hosted here."""
        if self.watcher is not None:
            self.watcher.hosts(shard)

    # ---- what centers want

    def push(
        self, center: str, number: int, chunk: int, contribution: Contribution, base: int
    ) -> None:
        """Takes one chunk of a center's push; it is applied, in line, when all chunks are in."""
        shard = self._hosted[chunk]
        push = shard.collect(center, number, chunk, contribution, base)
        if push is None:
            self._answer_ready(shard)
            return
        self._line.append((shard, push))
        self._work()

    def out_of_turn(self, center: str, number: int, chunk: int) -> str:
        """Why this push breaks the protocol now; "": it does not."""
        return self._hosted[chunk].out_of_turn(center, number, chunk)

    def begin(self, center: str, number: int) -> None:
        """Answers a center that comes back with the present parameters, without a push."""
        self._retired.pop(center, None)
        for shard in self.shards:
            shard.begin(center, number)
            self._answer(shard, center, number)
            self._answer_ready(shard)

    def retire(self, center: str) -> None:
        """A center makes no more pushes: no answer waits for it."""
        self._retired[center] = None
        for shard in self.shards:
            self._answer_ready(shard)

    def _work(self) -> None:
        """Applies the pushes in line one after the other, in the order of their arrival."""
        if self._busy or not self._line:
            return
        self._busy, turn = True, self._turn
        shard, push = self._line.popleft()

        def apply() -> None:
            if turn == self._turn:
                self._apply(shard, push)
                self._busy = False
                self._work()

        self._machine.after("outer", shard.shard.vector.nbytes, apply)

    def _apply(self, hosted: ServedShard, push: Push) -> None:
        if self.watcher is not None:
            self.watcher.changes(hosted)
        staleness = hosted.apply(push, self._codec, len(self._members))
        self.highest = max(self.highest, push.number)
        self._recorder.event(
            "applied", round=push.number, center=push.center, version=hosted.shard.version,
            staleness=staleness, chunk=hosted.shard.chunks[0],
        )  # fmt: skip
        self._answer_ready(hosted)

    def _answer_ready(self, hosted: ServedShard) -> None:
        for center, number in hosted.answerable(self._retired):
            self._answer(hosted, center, number)

    def _answer(self, hosted: ServedShard, center: str, number: int) -> None:
        shard = hosted.shard
        shard.answered(center)
        applied = dict(hosted.progress)
        for chunk, piece in zip(shard.chunks, shard.pieces(), strict=True):
            payload = self._encoded(piece)
            self.answers_by.send_answer(
                center, number, chunk, Pulled(payload, shard.version, applied)
            )

    def _encoded(self, piece: np.ndarray) -> Payload:
        layers = VectorSpec.of([("parameters", piece.shape)]).layers
        state = self.answers.init(layers, [(0, piece.size)])
        (payload,), _ = self.answers.encode(piece, state)
        return payload


class Push(NamedTuple):
    """One center's offer to one round, for all chunks of a shard.

    Attributes:
      center: whose it is.
      number: the center's round.
      base: version of the parameters that it was computed at; −1: of a server that died since.
      contributions: one per chunk of the shard.
    """

    center: str
    number: int
    base: int
    contributions: tuple[Contribution, ...]


@dataclass
class _Collected:
    number: int
    chunks: dict[int, Contribution] = field(default_factory=dict)


class ServedShard:
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
      goes_on: it replaces the shard of a dead server, whose last rounds are not known.
    """

    def __init__(self, shard: Shard, progress: Mapping[str, int], bound: int | None):
        self.shard, self.progress = shard, dict(progress)
        self.highest = max(self.progress.values(), default=-1)
        self._bound = bound
        self._first = shard.version
        self.goes_on = False
        self._collected: dict[str, _Collected] = {}
        self._waiting: dict[str, int] = {}  # center: round, in order of arrival
        self._pushed: dict[str, int] = {}  # center: its last whole push of this epoch

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
        known = self.progress.get(center)
        if last is None and known is not None and not self.goes_on and number > known + 1:
            return f"its last push was of round {known}"
        old = last is None and number < self.progress.get(center, -1)
        return f"round {self.progress[center]} is applied already" if old else ""

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
        collected.chunks[chunk] = contribution
        if len(collected.chunks) < len(self.shard.chunks):
            return None
        del self._collected[center]
        self._pushed[center] = number
        if number <= self.progress.get(center, -1):
            self._waiting[center] = number
            return None
        return Push(center, number, base, tuple(collected.chunks[c] for c in self.shard.chunks))

    def apply(self, push: Push, codec: Codec, living: int) -> int:
        """Applies a push; returns its staleness: pushes applied since its parameters were pulled.

        After the death of a server, only pushes that its successor applied are counted.
        """
        staleness = self.shard.version - max(push.base, self._first)
        offers = [(codec.decode(one.payload), one.weight) for one in push.contributions]  # type: ignore[arg-type]
        self.shard.apply(push.center, offers, living)
        self.progress[push.center] = push.number
        self.highest = max(self.highest, push.number)
        self._waiting[push.center] = push.number
        return staleness

    def begin(self, center: str, number: int) -> None:
        """A center that comes back, and will go on with round ``number + 1``."""
        self.progress[center] = self._pushed[center] = number
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
        """A new epoch: members repeat pushes without an answer; dead ones are forgotten."""
        self.progress = {name: n for name, n in self.progress.items() if name in members}
        self._collected.clear()
        self._pushed.clear()
        self._waiting.clear()
        self.shard.keep_only(members)

    def behind(self, retired: Collection[str]) -> list[str]:
        """The centers that are furthest behind, which held-back answers wait for."""
        counted = {name: n for name, n in self.progress.items() if name not in retired}
        return [name for name, n in counted.items() if n == min(counted.values())]
