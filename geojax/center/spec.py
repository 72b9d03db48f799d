"""The layout of the flat vector through which a model leaves and enters its mesh."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

Kind = Literal["parameter", "state"]

_BLOCK = 65_536  # elements at a time: what is in work stays in the cache
_MAGNITUDE = np.uint32(0x7FFFFFFF)  # all bits of a float32 but its sign
_INFINITY = 0x7F800000  # bits of infinity; those of NaN are above


@dataclass(frozen=True)
class Layer:
    """One array of a model within the flat vector.

    Attributes:
      name: path of the array, e.g. ``Conv_0/kernel`` or ``batch_stats/BatchNorm_0/mean``.
      offset: first element in the vector.
      size: number of elements.
      shape: shape of the array.
      kind: ``parameter`` (trained) or ``state`` (float model state, averaged like parameters).
    """

    name: str
    offset: int
    size: int
    shape: tuple[int, ...]
    kind: Kind

    @property
    def stop(self) -> int:
        """One past the last element in the vector."""
        return self.offset + self.size


@dataclass(frozen=True)
class VectorSpec:
    """Which array of a model lies where in its flat float32 vector.

    Parameters come first, in the order in which the model executes its layers (weights before
    bias), then float model state in the same order. Integer leaves are not in the vector: they
    stay with the worker.

    Attributes:
      layers: all arrays, in vector order.
      parameters: number of leading elements that are parameters.
    """

    layers: tuple[Layer, ...]
    parameters: int

    @classmethod
    def of(
        cls,
        parameters: Iterable[tuple[str, Sequence[int]]],
        state: Iterable[tuple[str, Sequence[int]]] = (),
    ) -> VectorSpec:
        """Lays out arrays given as (name, shape) one after the other.

        >>> VectorSpec.of([("w", (2, 3)), ("b", (3,))], [("mean", (3,))]).size
        12
        """
        layers: list[Layer] = []
        offset, trained = 0, 0
        kinds: tuple[tuple[Kind, Iterable[tuple[str, Sequence[int]]]], ...] = (
            ("parameter", parameters),
            ("state", state),
        )
        for kind, arrays in kinds:
            for name, shape in arrays:
                size = math.prod(shape)
                layers.append(Layer(name, offset, size, tuple(shape), kind))
                offset += size
            if kind == "parameter":
                trained = offset
        return cls(tuple(layers), trained)

    @cached_property
    def size(self) -> int:
        """Number of elements of the vector."""
        return sum(layer.size for layer in self.layers)

    def chunks(self, elements: int, boundaries: Iterable[int] = ()) -> tuple[tuple[int, int], ...]:
        """Contiguous (start, stop) ranges of at most ``elements`` each.

        Args:
          elements: size of a chunk.
          boundaries: positions that no chunk crosses (the starts of a model's stages, say): the
            a chunk starts at each. Only the last chunk before a boundary, or before the end, is
            shorter than ``elements``.

        >>> spec = VectorSpec.of([("w", (10,))])
        >>> spec.chunks(4)
        ((0, 4), (4, 8), (8, 10))
        >>> spec.chunks(4, boundaries=(5,))
        ((0, 4), (4, 5), (5, 9), (9, 10))

        Raises:
          ValueError: a chunk would be empty, or a boundary lies outside the vector.
        """
        if elements < 1:
            raise ValueError(f"a chunk has at least one element, not {elements}")
        edges = sorted({0, *boundaries, self.size})
        if edges[0] < 0 or edges[-1] > self.size:
            raise ValueError(f"boundaries lie within 0 and {self.size}, not {edges}")
        return tuple(
            (start, min(start + elements, edge))
            for begin, edge in pairwise(edges)
            for start in range(begin, edge, elements)
        )

    def part(self, start: int, stop: int) -> VectorSpec:
        """The layout of the whole layers in [start, stop), as a vector of its own.

        >>> spec = VectorSpec.of([("w", (2, 3)), ("b", (3,))], [("mean", (3,))])
        >>> part = spec.part(6, 12)
        >>> [(layer.name, layer.offset) for layer in part.layers], part.parameters
        ([('b', 0), ('mean', 3)], 3)

        Raises:
          ValueError: the range is empty, leaves the vector or cuts a layer.
        """
        found = self.cut(start, stop)
        for layer in self.layers:
            if any(layer.offset < edge < layer.stop for edge in (start, stop)):
                where = f"{layer.name} at [{layer.offset}, {layer.stop})"
                raise ValueError(f"[{start}, {stop}) cuts the layer {where}")
        return found

    def cut(self, start: int, stop: int) -> VectorSpec:
        """As :meth:`part`, but layers may be cut: their pieces are flat, named by their range.

        >>> spec = VectorSpec.of([("w", (2, 3)), ("b", (3,))])
        >>> [(layer.name, layer.shape) for layer in spec.cut(4, 9).layers]
        [('w[4:6]', (2,)), ('b', (3,))]

        Raises:
          ValueError: the range is empty or leaves the vector.
        """
        if not 0 <= start < stop <= self.size:
            raise ValueError(f"[{start}, {stop}) is no part of a vector of {self.size} elements")
        inside = (layer for layer in self.layers if start < layer.stop and layer.offset < stop)
        return VectorSpec(
            tuple(_within(layer, start, stop) for layer in inside),
            max(0, min(stop, self.parameters) - start),
        )

    @classmethod
    def joined(cls, parts: Iterable[VectorSpec]) -> VectorSpec:
        """The layout of vectors one after the other.

        >>> one, two = VectorSpec.of([("a", (2,))]), VectorSpec.of([("b", (3,))], [("s", (1,))])
        >>> both = VectorSpec.joined([one, two])
        >>> [(layer.name, layer.offset) for layer in both.layers], both.parameters
        ([('a', 0), ('b', 2), ('s', 5)], 5)

        Raises:
          ValueError: parameters would come after float state.
        """
        layers: list[Layer] = []
        size = parameters = 0
        for part in parts:
            if part.parameters and parameters < size:
                raise ValueError("parameters come before state: join the parts in vector order")
            layers += [replace(layer, offset=layer.offset + size) for layer in part.layers]
            parameters += part.parameters
            size += part.size
        return cls(tuple(layers), parameters)

    def check(self, vector: np.ndarray, what: str = "vector") -> np.ndarray:
        """Returns ``vector`` if it is float32 of shape (size,).

        Raises:
          ValueError: it is anything else; names ``what`` and both shapes.
        """
        if vector.shape != (self.size,) or vector.dtype != np.float32:
            raise ValueError(
                f"{what}: expected float32 of shape ({self.size},), "
                f"got {vector.dtype} of shape {vector.shape}"
            )
        return vector

    def nonfinite(self, vector: np.ndarray) -> list[str]:
        """Names of the layers that hold NaN or infinity, in their order.

        Reads the vector once; only if it is not all finite, layers are looked at one by one.

        >>> spec = VectorSpec.of([("w", (2,)), ("b", (1,))])
        >>> spec.nonfinite(np.array([1.0, 2.0, np.nan], np.float32))
        ['b']
        """
        if _finite(vector):
            return []
        return [one.name for one in self.layers if not _finite(vector[one.offset : one.stop])]

    def split(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays of a vector by name, as views into it."""
        self.check(vector)
        return {
            layer.name: vector[layer.offset : layer.stop].reshape(layer.shape)
            for layer in self.layers
        }

    def join(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """A new vector from arrays by name; the inverse of :meth:`split`.

        Raises:
          ValueError: an array is missing, unknown or of another shape.
        """
        names = {layer.name for layer in self.layers}
        if names != set(arrays):
            raise ValueError(f"arrays missing or unknown: {sorted(names ^ set(arrays))}")
        vector = np.empty(self.size, np.float32)
        for layer in self.layers:
            array = np.asarray(arrays[layer.name])
            if array.shape != layer.shape:
                raise ValueError(f"{layer.name}: expected shape {layer.shape}, got {array.shape}")
            vector[layer.offset : layer.stop] = array.reshape(-1)
        return vector


def _finite(values: np.ndarray) -> bool:
    bits = values.view(np.uint32)
    blocks = (bits[start : start + _BLOCK] for start in range(0, bits.size, _BLOCK))
    return all(np.bitwise_and(block, _MAGNITUDE).max() < _INFINITY for block in blocks)


def _within(layer: Layer, start: int, stop: int) -> Layer:
    """What of a layer lies in [start, stop), counted from there."""
    first, last = max(layer.offset, start), min(layer.stop, stop)
    if last - first == layer.size:
        return replace(layer, offset=layer.offset - start)
    name = f"{layer.name}[{first - layer.offset}:{last - layer.offset}]"
    return replace(layer, name=name, offset=first - start, size=last - first, shape=(last - first,))
