"""What a codec is: pure functions between the dense vector and the payloads of its chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from geojax.compression.sparsify import Kernel
from geojax.config import CompressionConfig
from geojax.registry import Registry

Ranges = Sequence[tuple[int, int]]


class SplitPayload(NamedTuple):
    """Two payloads of one chunk. Each decodes to a whole chunk; the chunk is their sum.

    Attributes:
      now: travels first and reliably; a merge waits for it.
      late: follows when nothing important waits; a merge takes it if it is there, else a later one.
        An empty array: nothing follows, or all of it as ``datagrams``.
      datagrams: what follows, cut into payloads that fit a datagram each and may get lost.
    """

    now: np.ndarray
    late: np.ndarray
    datagrams: tuple[np.ndarray, ...] = ()


class Codec(NamedTuple):
    """A codec as a record of pure functions; its state is a pytree of arrays that checkpoints.

    Attributes:
      name: configured name.
      wire: number in the frame header.
      exact_combine: ``combine`` loses nothing but the rounding of a float32 sum, or re-encodes into
        the format that it came in: the codec may be used on trees of any depth.
      init: ``(layers, ranges) -> state``. ``layers`` are the vector's layers in order, ``ranges``
        the ``(start, stop)`` of each chunk.
      encode: ``(vector, state) -> (payloads, state)``, one self-contained payload per chunk; a
        codec with ``splits`` gives a :class:`SplitPayload` instead of an array.
      decode: ``(payload) -> float32 array`` of the chunk's elements.
      combine: ``(payloads of one chunk, in member order) -> payload`` of their sum, accumulated in
        float32.
      elements: ``(payload) -> int``, of its chunk. Payloads come from the network: a FrameError
        says why one cannot be decoded; all that pass can, and can be summed with others of as many
        elements. It takes microseconds.
      splits: whether ``encode`` gives :class:`SplitPayload`.
      datagrams: how many of these a chunk of so many elements has at most.
      lan: what travels over the LAN instead; None: the codec itself, and then a center's sums go
        on to the WAN chunk by chunk as they are.
      observe: ``(state, loss) -> state``: tells the codec the training loss before it encodes;
        None: it does not care.
      fill: ``(history, older, payloads) -> (payload or None, history)``: a payload that stands for
        what a merge lacks of a member's chunk. ``history``: what it knows of that member's chunk,
        None at first; ``older``: payloads of earlier rounds that came after their merge;
        ``payloads``: those of this round that are there, ``now`` first. Without ``fill`` nothing
        stands for it, and a payload that comes after its merge is added to a later one.
    """

    name: str
    wire: int
    exact_combine: bool
    init: Callable[[Sequence[Any], Ranges], Any]
    encode: Callable[[np.ndarray, Any], tuple[list[np.ndarray], Any]]
    decode: Callable[[np.ndarray], np.ndarray]
    combine: Callable[[Sequence[np.ndarray]], np.ndarray]
    elements: Callable[[np.ndarray], int]
    splits: bool = False
    datagrams: Callable[[int], int] = lambda elements: elements
    lan: Codec | None = None
    observe: Callable[[Any, float], Any] | None = None
    fill: (
        Callable[[Any, Sequence[np.ndarray], Sequence[np.ndarray]], tuple[np.ndarray | None, Any]]
        | None
    ) = None


def restore_state(fresh: Any, kept: Any) -> Any:
    """A codec's state out of a checkpoint, which keeps arrays and plain values but no types.

    Args:
      fresh: the state that ``init`` gives for the same layers and chunks.
      kept: what a checkpoint returned for a state.

    Raises:
      ValueError: the two have different structures, shapes, types or layouts.

    Example:
      >>> class Sum(NamedTuple):
      ...     layers: tuple[str, ...]
      ...     total: np.ndarray
      >>> restore_state(Sum(("w",), np.zeros(2)), [["w"], np.ones(2)])
      Sum(layers=('w',), total=array([1., 1.]))
    """
    if isinstance(fresh, np.ndarray):
        if not isinstance(kept, np.ndarray) or (kept.shape, kept.dtype) != (
            fresh.shape,
            fresh.dtype,
        ):
            raise ValueError(f"codec state: expected {fresh.dtype} of shape {fresh.shape}")
        return kept
    if isinstance(fresh, tuple):
        if not isinstance(kept, list | tuple) or len(kept) != len(fresh):
            raise ValueError(f"codec state: expected {len(fresh)} values of {type(fresh).__name__}")
        values = [restore_state(one, other) for one, other in zip(fresh, kept, strict=True)]
        return type(fresh)(*values) if hasattr(fresh, "_fields") else tuple(values)
    if fresh != kept:
        raise ValueError(f"codec state: kept for {kept!r}, expected {fresh!r}")
    return fresh


class Setting(NamedTuple):
    """What a codec is built from, beside its configuration.

    Attributes:
      gradients: whether the offers are gradients, rather than deltas or parameters.
      kernel: accumulates and picks on an accelerator, where a codec is sparse; None: the host does.
      seed: of what a codec draws.
      compiled: whether codecs take the loops of :mod:`geojax.compression.compiled`.
    """

    gradients: bool = True
    kernel: Kernel | None = None
    seed: int = 0
    compiled: bool = False


CODECS: Registry[Callable[[Any, Setting], Codec]] = Registry("compression.name", CompressionConfig)
