"""What a global server does: it applies pushes to its shards in order, and answers them.

No messages here: :class:`geojax.hips.exchange.push_pull.PushPullExchange` moves them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from geojax.center.spec import VectorSpec
from geojax.compression.codec import Codec
from geojax.hips.exchange.contribution import Contribution
from geojax.hips.exchange.served_shard import Push, ServedShard
from geojax.hips.exchange.shard import ShardMaker
from geojax.machine.machine import Machine
from geojax.sync.algorithm import AdmissionRule
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import Payload


class ShardWatcher(Protocol):
    """Is told about the shards that a node hosts."""

    def hosts(self, shard: ServedShard) -> None:
        """From now on the node hosts ``shard``."""
        ...

    def changes(self, shard: ServedShard) -> None:
        """Pushes will be applied to ``shard``: its present values were the last ones until now."""
        ...


class Pulled(NamedTuple):
    """Parameters of one chunk, as a center pulls them.

    Attributes:
      payload: encoded by the exchange's codec of answers; None: the run's initial parameters.
      version: how many merges they contain.
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

    def merged(self, hosted: ServedShard) -> None:
        """A shard has a new version, and whoever may be answered is."""
        ...


class ShardServer:
    """The shards of one node; see the module's docstring.

    Args:
      codec: decodes pushes.
      answers: encodes parameters.
      make_shard: makes shards.
      machine: charges the outer steps.
      recorder: takes the events.
      admission: which pushes are merged together, when, and who is answered.
      event: name of the event that a push has been merged.
      counts: whether it tells how many local steps the push stands for.

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
        admission: AdmissionRule,
        event: str = "applied",
        counts: bool = False,
    ):
        self._event, self._counts = event, counts
        self._codec, self.answers, self._make_shard = codec, answers, make_shard
        self._machine, self._recorder, self._admission = machine, recorder, admission
        self.answers_by: AnswerSender
        self.highest = -1
        self.watcher: ShardWatcher | None = None
        self._members: tuple[str, ...] = ()
        self._turn = 0  # grows when pushes that are being applied are to be dropped
        self._hosted: dict[int, ServedShard] = {}  # by chunk
        self._line: deque[tuple[ServedShard, tuple[Push, ...]]] = deque()
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
        """Applies nothing until :meth:`resume`."""
        self._turn += 1
        self._line.clear()
        self._busy = False

    def resume(self, members: Sequence[str]) -> None:
        """Goes on with these centers, which repeat all pushes that were not answered."""
        for shard in () if self._members else self.shards:
            self.tell(shard)  # of a cut
        self._members = tuple(members)
        self._retired = {name: None for name in self._retired if name in members}
        for shard in self.shards:
            shard.resume(members)
            self._admit(shard)

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
          version: how many merges these contain.
          applied: for each center the last of its rounds that they contain.
          everyone: the run starts, and all centers start from these values.
        """
        known = {name: n for name, n in applied.items() if name in self._members}
        shard = ServedShard(self._make_shard(chunks, values, version), known, self._admission)
        shard.goes_on = not everyone
        self._hosted.update(dict.fromkeys(chunks, shard))
        for name in self._members if everyone else ():
            shard.shard.answered(name)
        self.tell(shard)

    def tell(self, shard: ServedShard) -> None:
        """Tells the watcher that ``shard`` is hosted here."""
        if self.watcher is not None:
            self.watcher.hosts(shard)

    def forget(self) -> None:
        """Hosts nothing: this member comes back."""
        self._hosted.clear()

    # ---- cuts

    def state(self) -> list[dict[str, Any]]:
        """All shards as they are now."""
        return [shard.state() for shard in self.shards]

    def load(self, kept: Sequence[Mapping[str, Any]]) -> None:
        """The inverse of :meth:`state`, before the first :meth:`resume`."""
        for each in kept:
            made = self._make_shard(each["chunks"], each["values"], each["version"])
            shard = ServedShard(made, each["progress"], self._admission)
            shard.load(each, self._now)
            self._hosted.update(dict.fromkeys(each["chunks"], shard))
            self.highest = max(self.highest, shard.highest)

    # ---- what centers want

    def push(
        self, center: str, number: int, chunk: int, contribution: Contribution, base: int
    ) -> None:
        """Takes one chunk of a center's push, which may be admitted when all chunks are in."""
        shard = self._hosted[chunk]
        if shard.collect(center, number, chunk, contribution, base, self._now):
            self._admit(shard)
        self._answer_ready(shard)

    def out_of_turn(self, center: str, number: int, chunk: int) -> str:
        """Why this push breaks the protocol now; "": it does not."""
        return self._hosted[chunk].out_of_turn(center, number, chunk)

    def lacks(self, center: str, number: int, chunk: int) -> bool:
        """Whether a center's push of this chunk has not come, and would be taken now."""
        return center in self._members and self._hosted[chunk].lacks(center, number, chunk)

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
            self._admit(shard)
            self._answer_ready(shard)

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _admit(self, shard: ServedShard) -> None:
        """Puts in line what the admission rule lets in, and asks again when it wants that."""
        while batch := shard.admit(self._retired, self._now):
            self._line.append((shard, batch))
        self._work()
        again, turn = self._admission.again(shard.desk(self._retired, self._now)), self._turn

        def ask() -> None:
            if turn == self._turn:
                self._admit(shard)

        if again is not None:
            asyncio.get_running_loop().call_at(again, ask)

    def _work(self) -> None:
        """Merges what is in line, one admission after the other, in their order."""
        if self._busy or not self._line:
            return
        self._busy, turn = True, self._turn
        shard, batch = self._line.popleft()

        def apply() -> None:
            if turn == self._turn:
                self._apply(shard, batch)
                self._busy = False
                self._work()

        self._machine.after("outer", shard.shard.vector.nbytes, apply)

    def _apply(self, hosted: ServedShard, batch: Sequence[Push]) -> None:
        if self.watcher is not None:
            self.watcher.changes(hosted)
        staleness = hosted.apply(batch, self._codec, len(self._members))
        self.highest = max(self.highest, hosted.highest)
        for push, behind in zip(batch, staleness, strict=True):
            steps = {"steps": push.steps} if self._counts else {}
            self._recorder.event(
                self._event, round=push.number, center=push.center, version=hosted.shard.version,
                staleness=behind, chunk=hosted.shard.chunks[0], **steps,
            )  # fmt: skip
        self._answer_ready(hosted)
        self.answers_by.merged(hosted)

    def _answer_ready(self, hosted: ServedShard) -> None:
        for center, number, seconds in hosted.answerable(self._retired, self._now):
            if seconds > 0:
                self._recorder.event(
                    "held_back", round=number, center=center, seconds=round(seconds, 9),
                    chunk=hosted.shard.chunks[0],
                )  # fmt: skip
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
