"""Payloads that hold some blocks of a chunk: what :mod:`geojax.compression.dgt` sends and sums.

A payload starts with four uint32, in the machine's byte order: elements of the chunk, elements of a
block, number of blocks that are there, and the form of what follows:

====== ============================================================================================
form   content
====== ============================================================================================
DENSE  float32 of every element; no block list
EXACT  uint32 indices of the blocks, in order; then their elements as float32
COARSE the indices; for each block two float32, the lower edge and the width of its bins; then four
       bits an element, two in a byte, the first in the low half
====== ============================================================================================

Blocks that are not there count as zeros. The last block of a chunk may be short.

A coarse block has 16 equal bins over the range of its elements and 0; an element is decoded as the
middle of its bin, ``low + (bin + 1/2) · width``. GeoMX sends the 16 middles instead of two numbers.
An element at the upper edge belongs to the last bin: its formula alone would give a 17th, for which
four bits have no place (GeoMX's code gets that wrong).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from geojax.compression.payload import Reader, add_up, as_bytes
from geojax.errors import FrameError

DENSE, EXACT, COARSE = 0, 1, 2
HEADER_BYTES = 16
BINS = 16


class Blocks(NamedTuple):
    """Some blocks of a chunk.

    Attributes:
      elements: of the chunk.
      block: elements of a block.
      indices: int64, of the blocks that are there, in order.
      values: float32, their elements one block after the other.
    """

    elements: int
    block: int
    indices: np.ndarray
    values: np.ndarray


def count(elements: int, block: int) -> int:
    """Number of blocks of a chunk."""
    return -(-elements // block)


def lengths(elements: int, block: int, indices: np.ndarray) -> np.ndarray:
    """Elements of each of some blocks.

    >>> lengths(10, 4, np.array([0, 2]))
    array([4, 2])
    """
    return np.minimum(block, elements - indices * block)


def gather(chunk: np.ndarray, block: int, indices: np.ndarray) -> Blocks:
    """Some blocks of a chunk: copies, but a view of all.

    >>> gather(np.arange(5, dtype=np.float32), 2, np.array([0, 2])).values
    array([0., 1., 4.], dtype=float32)
    """
    if indices.size == count(chunk.size, block):
        return Blocks(chunk.size, block, indices, chunk)
    full = chunk.size // block
    short = indices.size > 0 and indices[-1] == full
    whole = indices[:-1] if short else indices
    values = chunk[: full * block].reshape(full, block)[whole].reshape(-1)
    if short:
        values = np.concatenate([values, chunk[full * block :]])
    return Blocks(chunk.size, block, indices, values)


def scatter(blocks: Blocks, chunk: np.ndarray) -> None:
    """Writes blocks to their places in a chunk."""
    full, indices, values = blocks.elements // blocks.block, blocks.indices, blocks.values
    short = indices.size > 0 and indices[-1] == full
    whole = indices[:-1] if short else indices
    split = whole.size * blocks.block
    body, tail = chunk[: full * blocks.block], chunk[full * blocks.block :]
    body.reshape(full, blocks.block)[whole] = values[:split].reshape(-1, blocks.block)
    tail[: values.size - split] = values[split:]


def dense(blocks: Blocks) -> np.ndarray:
    """All elements of the chunk; the values themselves where all blocks are there."""
    if blocks.values.size == blocks.elements:
        return blocks.values
    chunk = np.zeros(blocks.elements, np.float32)
    scatter(blocks, chunk)
    return chunk


def pack(blocks: Blocks) -> np.ndarray:
    """The payload of some blocks: exact, and dense where all are there."""
    if blocks.indices.size == count(blocks.elements, blocks.block):
        return _payload(blocks, DENSE, blocks.values)
    return _payload(blocks, EXACT, blocks.indices.astype(np.uint32), blocks.values)


def pack_coarse(blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """The coarse payload of at least one block, and what its elements will be decoded as."""
    sizes = lengths(blocks.elements, blocks.block, blocks.indices)
    starts = np.cumsum(sizes) - sizes
    values = blocks.values
    low = np.minimum(np.minimum.reduceat(values, starts), np.float32(0))
    high = np.maximum(np.maximum.reduceat(values, starts), np.float32(0))
    width = ((high.astype(np.float64) - low) / BINS).astype(np.float32)
    scale = np.divide(1, width.astype(np.float64), out=np.zeros(width.size), where=width > 0)
    position = (values - np.repeat(low.astype(np.float64), sizes)) * np.repeat(scale, sizes)
    bins = np.minimum(position, BINS - 1).astype(np.uint8)
    packed = np.zeros((values.size + 1) // 2, np.uint8)
    packed |= bins[::2]
    packed[: values.size // 2] |= bins[1::2] << 4
    edges = np.stack([low, width], axis=1)
    payload = _payload(blocks, COARSE, blocks.indices.astype(np.uint32), edges, packed)
    return payload, _middles(bins, edges, sizes)


def unpack(payload: np.ndarray) -> Blocks:
    """The blocks of a payload; views into it where they are exact.

    Raises:
      FrameError: the bytes are no such payload.
    """
    reader = Reader(payload, "dgt")
    elements, block, number, form = reader.header(4)
    most = count(elements, block) if block else 0
    if not block or number > most or form > COARSE or (form == DENSE and number < most):
        raise reader.error(f"{number} blocks of {block} in {elements} elements, form {form}")
    if form == DENSE:
        values = reader.take(np.float32, elements)
        reader.end()
        return Blocks(elements, block, np.arange(number), values)
    indices = reader.take(np.uint32, number).astype(np.int64)
    if number and (indices[-1] >= most or np.any(np.diff(indices) < 1)):
        raise reader.error(f"indices: expected them to ascend within {most} blocks")
    sizes = lengths(elements, block, indices)
    total = int(sizes.sum())
    if form == EXACT:
        values = reader.take(np.float32, total)
    else:
        edges = reader.take(np.float32, 2 * number).reshape(number, 2)
        packed = reader.take(np.uint8, -(-total // 2))
        bins = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:total]
        values = _middles(bins, edges, sizes)
    reader.end()
    return Blocks(elements, block, indices, values)


def decode(payload: np.ndarray) -> np.ndarray:
    """All elements of a payload's chunk; a view into it where it is dense."""
    return dense(unpack(payload))


def combine(payloads: Sequence[np.ndarray]) -> np.ndarray:
    """The payload of the sum: float32, in the given order; the blocks that any payload has.

    Raises:
      FrameError: the chunks or their blocks have different sizes.
    """
    if len(payloads) == 1:
        return payloads[0]
    members = [unpack(payload) for payload in payloads]
    total = add_up(members, dense, "dgt")
    block = members[0].block
    here = np.zeros(count(total.size, block), bool)
    for blocks in members:
        if blocks.block != block:
            raise FrameError(f"dgt payloads: blocks of {block} elements, and of {blocks.block}")
        here[blocks.indices] = True
    return pack(gather(total, block, np.flatnonzero(here)))


def _middles(bins: np.ndarray, edges: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    low, width = edges.astype(np.float64).T
    with np.errstate(over="ignore", invalid="ignore"):  # of edges that nobody should send
        middles = (low[:, None] + (np.arange(BINS) + 0.5) * width[:, None]).astype(np.float32)
    return middles.reshape(-1)[np.repeat(np.arange(0, middles.size, BINS), sizes) + bins]


def _payload(blocks: Blocks, form: int, *pieces: np.ndarray) -> np.ndarray:
    header = np.array([blocks.elements, blocks.block, blocks.indices.size, form], np.uint32)
    return np.concatenate([as_bytes(piece) for piece in (header, *pieces)])
