"""DGT: the blocks that matter travel first and reliably, the others when there is room.

Zhou et al., *DGT: A Contribution-Aware Differential Gradient Transmission Mechanism for Distributed
Machine Learning*, Future Generation Computer Systems 121, 2021; constants and modes as in GeoMX,
where it is one of the WAN techniques.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from geojax.compression import blocks as form
from geojax.compression.codec import CODECS, Codec, Ranges, Setting, SplitPayload
from geojax.compression.dense import dense
from geojax.compression.layout import Layout, layout_of, within
from geojax.config import CompressionConfig
from geojax.errors import ConfigError, FrameError
from geojax.settings import key

LEAST_BLOCK_BYTES = 64
MOST_BLOCK_BYTES = 32 * 1024  # with its headers it fits a UDP datagram
_NOTHING = np.zeros(0, np.uint8)


@dataclass
class DgtConfig(CompressionConfig):
    """Keys of ``compression=dgt``."""

    name: str = "dgt"
    k: float = key(0.8, "share of blocks that are important", above=0, most=1)
    adaptive: bool = key(False, "k falls with the loss, not below k_min")
    k_min: float = key(0.2, "adaptive: least value of k; at most k", above=0)
    alpha: float = key(0.3, "weight of the past in a block's contribution", least=0, below=1)
    block_bytes: int = key(
        4096, "of a block; a multiple of 4", unit="B",
        least=LEAST_BLOCK_BYTES, most=MOST_BLOCK_BYTES,
    )  # fmt: skip
    channel: str = key("tcp", "how the unimportant blocks travel", choices=("tcp", "udp"))
    lost: str = key("zero", "udp: what a lost block counts as", choices=("zero", "last"))
    tail: str = key("float32", "form of the unimportant blocks", choices=("float32", "4bit"))

    def check(self) -> None:
        """See :meth:`geojax.settings.Settings.check`."""
        if self.k_min > self.k:
            fix = f"give a share in (0, compression.k = {self.k}]"
            raise ConfigError("compression.k_min", self.k_min, fix)
        if self.block_bytes % 4:
            fix = f"give a multiple of 4 from {LEAST_BLOCK_BYTES} to {MOST_BLOCK_BYTES}"
            raise ConfigError("compression.block_bytes", self.block_bytes, fix)
        if self.lost == "last" and self.channel != "udp":
            fix = (
                "over TCP nothing is lost and late blocks count in a later round; use "
                "compression.channel=udp or compression.lost=zero"
            )
            raise ConfigError("compression.lost", self.lost, fix)


class DgtState(NamedTuple):
    """State of :func:`dgt`.

    Attributes:
      layout: where layers and chunks lie.
      contribution: float64 (blocks,), C of each block.
      residual: float32, what the coarse tail has not sent yet; empty where the tail is exact.
      loss_first: float64 scalar, the first loss that was observed; NaN: none yet.
      loss_now: float64 scalar, the last one.
    """

    layout: Layout
    contribution: np.ndarray
    residual: np.ndarray
    loss_first: np.ndarray
    loss_now: np.ndarray


class _History(NamedTuple):
    """The last values of a chunk's blocks that came from one center."""

    values: np.ndarray  # float32 (elements,)
    known: np.ndarray  # bool (blocks,)


class Dgt:
    """The functions of :func:`dgt`, whose arguments it takes."""

    def __init__(
        self, k: float, k_min: float, alpha: float, block_bytes: int, adaptive: bool, tail: str,
        channel: str,
    ):  # fmt: skip
        self._k, self._k_min, self._alpha = k, k_min, alpha
        self._block = block_bytes // 4
        self._adaptive, self._coarse, self._datagrams = adaptive, tail == "4bit", channel == "udp"

    def init(self, layers: Sequence[Any], ranges: Ranges) -> DgtState:
        """The state before the first round."""
        layout = layout_of(layers, ranges)
        blocks = sum(form.count(stop - start, self._block) for start, stop in layout.ranges)
        unsent = np.zeros(layout.size if self._coarse else 0, np.float32)
        nobody = np.array(np.nan)
        return DgtState(layout, np.zeros(blocks), unsent, nobody, nobody)

    def observe(self, state: DgtState, loss: float) -> DgtState:
        """Takes note of a training loss; one that is not finite or not positive says nothing."""
        if not (math.isfinite(loss) and loss > 0):
            return state
        first = np.array(loss) if np.isnan(state.loss_first) else state.loss_first
        return state._replace(loss_first=first, loss_now=np.array(loss))

    def share(self, state: DgtState) -> float:
        """The share of blocks that are important now."""
        if not self._adaptive or np.isnan(state.loss_first):
            return self._k
        falling = self._k * float(state.loss_now) / float(state.loss_first)
        return min(self._k, max(self._k_min, falling))

    def encode(self, vector: np.ndarray, state: DgtState) -> tuple[list[Any], DgtState]:
        """Every chunk as two payloads."""
        state.layout.check(vector)
        if self._coarse:
            vector = vector + state.residual
        means = self._mean_magnitudes(vector, state)
        score = self._alpha * state.contribution + (1 - self._alpha) * means
        finite = np.isfinite(score)
        always = self._always(state.layout) | ~finite
        important, late = self._sorted_out(score, always, self.share(state))
        residual = np.zeros_like(state.residual)
        payloads, at = [], 0
        for start, stop in state.layout.ranges:
            chunk, end = vector[start:stop], at + form.count(stop - start, self._block)
            now, behind = (np.flatnonzero(which[at:end]) for which in (important, late))
            head = form.pack(form.gather(chunk, self._block, now))
            tail, pieces = self._tail(chunk, behind, residual[start:stop])
            payloads.append(SplitPayload(head, tail, pieces))
            at = end
        contribution = np.where(finite, score, state.contribution)
        return payloads, state._replace(contribution=contribution, residual=residual)

    def elements(self, payload: np.ndarray) -> int:
        """Of a payload's chunk; its blocks must be those of this codec."""
        blocks = form.unpack(payload)
        if blocks.block != self._block:
            raise FrameError(
                f"dgt payload: expected blocks of {self._block} elements, came {blocks.block}"
            )
        return blocks.elements

    def datagrams(self, elements: int) -> int:
        """A chunk of so many elements has at most: one a block."""
        return form.count(elements, self._block) if self._datagrams else 0

    def _always(self, layout: Layout) -> np.ndarray:
        """Which blocks hold model state, and are important whatever they hold."""
        marked = []
        for (start, stop), runs in zip(
            layout.ranges, within(layout.state, layout.ranges), strict=True
        ):
            blocks = np.zeros(form.count(stop - start, self._block), bool)
            for first, last in runs:
                blocks[first // self._block : form.count(last, self._block)] = True
            marked.append(blocks)
        return np.concatenate([np.zeros(0, bool), *marked])

    def _mean_magnitudes(self, vector: np.ndarray, state: DgtState) -> np.ndarray:
        means, at, block = np.empty(state.contribution.size), 0, self._block
        with np.errstate(over="ignore"):  # then it is infinite, and important
            for start, stop in state.layout.ranges:
                magnitudes = np.abs(vector[start:stop])
                full, short = divmod(stop - start, block)
                body = magnitudes[: full * block].reshape(full, block)
                means[at : at + full] = body.sum(axis=1)
                means[at : at + full] /= block
                at += full
                if short:
                    means[at] = magnitudes[full * block :].mean(dtype=np.float64)
                    at += 1
        return means

    def _sorted_out(
        self, score: np.ndarray, always: np.ndarray, share: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which blocks are important, and which are late; both leave out those of zeros."""
        there = score != 0
        important = there & always
        others = np.flatnonzero(there & ~always)
        order = others[np.argsort(-score[others], kind="stable")]
        important[order[: int(share * others.size + 0.5)]] = True
        return important, there & ~important

    def _tail(
        self, chunk: np.ndarray, behind: np.ndarray, residual: np.ndarray
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """The late blocks as one payload, or each as a datagram; sets the chunk's residual."""
        if not behind.size:
            return _NOTHING, ()
        if self._datagrams:
            return _NOTHING, tuple(
                self._late(chunk, behind[at : at + 1], residual) for at in range(behind.size)
            )
        return self._late(chunk, behind, residual), ()

    def _late(self, chunk: np.ndarray, indices: np.ndarray, residual: np.ndarray) -> np.ndarray:
        blocks = form.gather(chunk, self._block, indices)
        if not self._coarse:
            return form.pack(blocks)
        payload, decoded = form.pack_coarse(blocks)
        form.scatter(blocks._replace(values=blocks.values - decoded), residual)
        return payload


def dgt(
    *,
    k: float = 0.8,
    k_min: float = 0.2,
    alpha: float = 0.3,
    block_bytes: int = 4096,
    adaptive: bool = False,
    tail: str = "float32",
    channel: str = "tcp",
    lost: str = "zero",
) -> Codec:
    """Differential gradient transmission.

    A chunk is cut into blocks. The contribution of block j in round t is::

        C_j(t) = alpha · C_j(t-1) + (1 - alpha) · mean |x_j(t)|,   C_j(-1) = 0

    Blocks with C = 0 are left out. Of the n others the m = round(k · n) with the largest C over the
    whole vector (ties: the first) are important and travel at once; the rest follow when nothing
    important waits. A merge takes what is there of them; the exchange adds what comes later to a
    later round (``channel=tcp``), or it may be lost (``udp``).

    Where we differ from GeoMX: it ranks the blocks of each tensor by themselves, so that k of every
    tensor's are important; it cuts the tail into several channels, which no receiver tells
    apart; its last block is always important, because it marks the end there; adaptive k is parsed
    and ignored. Blocks that hold model state (BatchNorm's statistics) are always important, beside
    the m, since a mean of statistics with holes in it means nothing; so are blocks with values that
    are not finite, so that they are found.

    Args:
      k: share of the blocks that are important, in (0, 1]; 1 is the dense codec.
      k_min: what an adaptive k does not fall below, in (0, k].
      alpha: weight of the past in a contribution, in [0, 1).
      block_bytes: float32 bytes of a block: a multiple of 4 from 64 to 32,768.
      adaptive: ``k`` becomes max(k_min, k · loss now ÷ first loss), and never more than k; the rule
        of the DGT authors' code.
      tail: late blocks as ``float32``, or as ``4bit`` (GeoMX's mode 3, see
        :mod:`geojax.compression.blocks`): then what the rounding took off is added to the same
        block in the next round, whether that is late again or important.
      channel: ``tcp``, late blocks in one payload; or ``udp``, one datagram a block.
      lost: a late block that is not there when its round is merged counts as ``zero``, or as its
        ``last`` value from that center (``udp`` only).

    Example:
      >>> from geojax.center.spec import VectorSpec
      >>> spec = VectorSpec.of([("w", (64,))])
      >>> codec = dgt(k=0.4, block_bytes=64)
      >>> vector = np.repeat(np.array([1.0, 3.0, 2.0, 0.0], np.float32), 16)
      >>> [split], _ = codec.encode(vector, codec.init(spec.layers, spec.chunks(64)))
      >>> codec.decode(split.now)[::16], codec.decode(split.late)[::16]
      (array([0., 3., 0., 0.], dtype=float32), array([1., 0., 2., 0.], dtype=float32))
      >>> codec.decode(codec.combine([split.now, split.late]))[::16]
      array([1., 3., 2., 0.], dtype=float32)
    """
    functions = Dgt(k, k_min, alpha, block_bytes, adaptive, tail, channel)
    return Codec(
        "dgt", 6, True, functions.init, functions.encode, form.decode, form.combine,
        functions.elements,
        splits=True,
        datagrams=functions.datagrams,
        lan=dense(),
        observe=functions.observe if adaptive else None,
        fill=fill_with_last if lost == "last" else None,
    )  # fmt: skip


def fill_with_last(
    history: _History | None, older: Sequence[np.ndarray], payloads: Sequence[np.ndarray]
) -> tuple[np.ndarray | None, _History]:
    """What stands for the blocks that are missing; see :class:`geojax.compression.codec.Codec`.

    The last value is the one that came last: a block that was important since it was sent late, and
    overtook it, is known by the late value until it comes again.
    """
    here = [form.unpack(payload) for payload in payloads]
    elements, block = here[0].elements, here[0].block
    if history is None:
        number = form.count(elements, block)
        history = _History(np.zeros(elements, np.float32), np.zeros(number, bool))
    values, known = history.values.copy(), history.known.copy()
    for blocks in map(form.unpack, older):
        form.scatter(blocks, values)
        known[blocks.indices] = True
    missing = known.copy()
    for blocks in here:
        missing[blocks.indices] = False
    absent = np.flatnonzero(missing)
    filled = form.pack(form.gather(values, block, absent)) if absent.size else None
    for blocks in here:
        form.scatter(blocks, values)
        known[blocks.indices] = True
    return filled, _History(values, known)


@CODECS.register("dgt", DgtConfig)
def _configured(config: DgtConfig, _: Setting) -> Codec:
    own = {name: value for name, value in vars(config).items() if name not in ("name", "lan")}
    return dgt(**own)
