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

DENSE, EXACT, COARSE = 0, 1, 2
HEADER_BYTES = 16
BINS = 16


class Blocks(NamedTuple):
    """Some blocks of a chunk.

    Attributes:
      elements: of the chunk.
      block: elements of a block.
      indices: of the blocks that are there, in order.
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
    return np.minimum(block, elements - indices.astype(np.int64) * block)


def gather(chunk: np.ndarray, block: int, indices: np.ndarray) -> Blocks:
    """Copies some blocks out of a chunk.

    >>> gather(np.arange(5, dtype=np.float32), 2, np.array([0, 2])).values
    array([0., 1., 4.], dtype=float32)
    """
    full = chunk.size // block
    short = indices.size > 0 and indices[-1] == full
    whole = indices[:-1] if short else indices
    values = chunk[: full * block].reshape(full, block)[whole].reshape(-1)
    if short:
        values = np.concatenate([values, chunk[full * block :]])
    return Blocks(chunk.size, block, indices, values)


def scatter(blocks: Blocks, chunk: np.ndarray, *, add: bool) -> None:
    """Writes blocks to their places in a chunk, or adds them to what is there."""
    full, indices, values = blocks.elements // blocks.block, blocks.indices, blocks.values
    short = indices.size > 0 and indices[-1] == full
    whole = indices[:-1] if short else indices
    body = chunk[: full * blocks.block].reshape(full, blocks.block)
    split = whole.size * blocks.block
    rows, rest = values[:split].reshape(-1, blocks.block), values[split:]
    tail = chunk[full * blocks.block :]
    if add:
        body[whole] += rows
        tail[: rest.size] += rest
    else:
        body[whole] = rows
        tail[: rest.size] = rest


def pack(blocks: Blocks) -> np.ndarray:
    """The payload of some blocks: exact, and dense where that is smaller."""
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
      ValueError: it is no payload of this format, or cut short.
    """
    if payload.nbytes < HEADER_BYTES:
        raise ValueError(f"a payload of blocks: expected a header, came {payload.nbytes} bytes")
    elements, block, number, form = (int(x) for x in payload[:HEADER_BYTES].view(np.uint32))
    if block == 0 or number > count(elements, block) or form > COARSE:
        raise ValueError(f"no payload of blocks: header {elements}, {block}, {number}, {form}")
    content = payload[HEADER_BYTES:]
    if form == DENSE:
        _expect(content, 4 * elements)
        return Blocks(elements, block, np.arange(number), content.view(np.float32))
    if content.nbytes < 4 * number:
        raise ValueError(f"a payload of blocks: expected {number} indices, came less")
    indices = content[: 4 * number].view(np.uint32)
    sizes = lengths(elements, block, indices)
    content, total = content[4 * number :], int(sizes.sum())
    if form == EXACT:
        _expect(content, 4 * total)
        return Blocks(elements, block, indices, content.view(np.float32))
    _expect(content, 8 * number + (total + 1) // 2)
    edges = content[: 8 * number].view(np.float32).reshape(number, 2)
    packed = content[8 * number :]
    bins = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[:total]
    return Blocks(elements, block, indices, _middles(bins, edges, sizes))


def decode(payload: np.ndarray) -> np.ndarray:
    """All elements of a payload's chunk; a view into it where it is dense."""
    blocks = unpack(payload)
    if blocks.values.size == blocks.elements:
        return blocks.values
    chunk = np.zeros(blocks.elements, np.float32)
    scatter(blocks, chunk, add=False)
    return chunk


def combine(payloads: Sequence[np.ndarray]) -> np.ndarray:
    """The payload of the sum: float32, in the given order; the blocks that any payload has."""
    if len(payloads) == 1:
        return payloads[0]
    first = unpack(payloads[0])
    number = count(first.elements, first.block)
    here = np.zeros(number, bool)
    # The sum grows where the payload has its values, if that turns out to be dense.
    buffer = _header(first, number, DENSE, 4 * first.elements)
    total = buffer[HEADER_BYTES:].view(np.float32)
    total[:] = decode(payloads[0])
    here[first.indices] = True
    for payload in payloads[1:]:
        blocks = unpack(payload)
        if blocks.values.size == blocks.elements:
            np.add(total, blocks.values, out=total)
        else:
            scatter(blocks, total, add=True)
        here[blocks.indices] = True
    if here.all():
        return buffer
    return pack(gather(total, first.block, np.flatnonzero(here)))


def _middles(bins: np.ndarray, edges: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    low, width = edges.astype(np.float64).T
    middles = (low[:, None] + (np.arange(BINS) + 0.5) * width[:, None]).astype(np.float32)
    return middles.reshape(-1)[np.repeat(np.arange(0, middles.size, BINS), sizes) + bins]


def _header(blocks: Blocks, number: int, form: int, content_bytes: int) -> np.ndarray:
    payload = np.empty(HEADER_BYTES + content_bytes, np.uint8)
    payload[:HEADER_BYTES].view(np.uint32)[:] = (blocks.elements, blocks.block, number, form)
    return payload


def _payload(blocks: Blocks, form: int, *parts: np.ndarray) -> np.ndarray:
    number = blocks.indices.size
    payload = _header(blocks, number, form, sum(part.nbytes for part in parts))
    at = HEADER_BYTES
    for part in parts:
        payload[at : at + part.nbytes] = part.reshape(-1).view(np.uint8)
        at += part.nbytes
    return payload


def _expect(content: np.ndarray, nbytes: int) -> None:
    if content.nbytes != nbytes:
        raise ValueError(
            f"a payload of blocks: expected {nbytes} bytes of values, came {content.nbytes}"
        )
