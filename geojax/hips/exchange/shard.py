"""A shard: some chunks of the model at a global server, and the optimizer that moves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from geojax.center.outer import OuterOptimizer
from geojax.center.spec import VectorSpec
from geojax.config import OptimizerConfig
from geojax.errors import ConfigError
from geojax.hollow import is_hollow, join
from geojax.sync.algorithm import SyncAlgorithm

Ranges = Sequence[tuple[int, int]]


class Shard:
    """Parameters of some chunks, moved by one center's gradient at a time.

    Each push makes ``gradient = merge(offer, weight)``, compensates its delay by the sender's
    backup if the algorithm says so, and takes one step of the outer optimizer. Optimizers must work
    element by element, so that a model in several shards moves as it would in one.

    Float model state (BatchNorm statistics) has no gradient; a center offers its values, and they
    are mixed in: ``value ← value + (offered − value) / living centers``. RECONSTRUCTED: GeoMX never
    synchronizes model state; with all centers offering in turn this is a moving average over them.

    Vectors are never changed in place: an answer may be in flight while the next push is applied.

    Args:
      chunks: indices of the chunks, ascending.
      values: their elements, one float32 array per chunk; parameters first, then state.
      spec: layout of the joined elements, see :func:`shard_spec`.
      algorithm: how an offer becomes a gradient, and what compensates its delay.
      outer: an optimizer on vectors of ``spec``.
      version: number of the pushes that ``values`` contain.
    """

    def __init__(
        self,
        chunks: Sequence[int],
        values: Sequence[np.ndarray],
        spec: VectorSpec,
        *,
        algorithm: SyncAlgorithm,
        outer: OuterOptimizer,
        version: int = 0,
    ):
        self.chunks, self.spec, self.version = tuple(chunks), spec, version
        stops = np.cumsum([piece.size for piece in values]).tolist()
        self.ranges = tuple(zip([0, *stops[:-1]], stops, strict=True))
        joined = join(values)
        self.vector = joined if is_hollow(joined) else np.array(joined, np.float32)
        spec.check(self.vector, "shard")
        self._algorithm, self._outer = algorithm, outer
        self._compensation = algorithm.merge.compensation
        self._state = self._compensation.init(spec.parameters) if self._compensation else {}
        self._backups: dict[str, np.ndarray] = {}
        outer.init(self.vector)

    def pieces(self) -> list[np.ndarray]:
        """The present elements of each chunk, as views."""
        return [self.vector[start:stop] for start, stop in self.ranges]

    def apply(
        self, center: str, offers: Sequence[tuple[np.ndarray, float]], living: int
    ) -> np.ndarray:
        """Applies one push.

        Args:
          center: whose it is.
          offers: for every chunk the decoded sum of weight·offer and the sum of the weights. If
            that is 0 for a chunk, no offer was finite, and the push changes nothing.
          living: number of centers that take part.

        Returns:
          The new vector.
        """
        self.version += 1
        total = join([values for values, _ in offers])
        self.spec.check(total, f"push of {center}")
        if is_hollow(total) or not all(weight for _, weight in offers):
            return self.vector
        merge, split = self._algorithm.merge.merge, self.spec.parameters
        mean = np.concatenate([merge(values, weight) for values, weight in offers])
        gradient = self._algorithm.offer.pseudo_gradient(mean[:split])
        if self._compensation is not None:
            now = self.vector[:split]
            backup = self._backups.get(center, self.vector)[:split]
            gradient, self._state = self._compensation.apply(gradient, now, backup, self._state)
        mean[:split] = gradient
        mean[split:] = self.vector[split:] + (mean[split:] - self.vector[split:]) / np.float32(
            living
        )
        self.vector = self._outer.apply(self.vector, mean)
        return self.vector

    def answered(self, center: str) -> None:
        """Keeps the present parameters as the backup of ``center``, if one is needed.

        Without a backup (the center pulled from a server that died) its delay is not compensated.
        """
        if self._compensation is not None and self._compensation.needs_backup:
            self._backups[center] = self.vector

    def keep_only(self, centers: Sequence[str]) -> None:
        """Drops the backups of all others."""
        self._backups = {name: self._backups[name] for name in self._backups if name in centers}


ShardMaker = Callable[[Sequence[int], Sequence[np.ndarray], int], Shard]
"""``(chunks, their elements, version) -> Shard`` with fresh outer state."""


def shard_spec(ranges: Ranges, parameters: int) -> VectorSpec:
    """Layout of the joined elements of some chunks.

    Args:
      ranges: the chunks' (start, stop) in the model's vector, ascending.
      parameters: how many leading elements of the model's vector are parameters.

    >>> shard_spec([(0, 4), (8, 12)], 10).parameters
    6
    """
    trained = sum(min(stop, parameters) - min(start, parameters) for start, stop in ranges)
    rest = sum(stop - start for start, stop in ranges) - trained
    return VectorSpec.of([("parameters", (trained,))], [("state", (rest,))])


def shard_maker(
    algorithm: SyncAlgorithm,
    ranges: Ranges,
    parameters: int,
    build_outer: Callable[[VectorSpec], OuterOptimizer],
) -> ShardMaker:
    """Makes the shards of one model.

    Args:
      algorithm: see :class:`Shard`.
      ranges: (start, stop) of every chunk of the model.
      parameters: how many leading elements of the model's vector are parameters.
      build_outer: a new outer optimizer on vectors of a shard's layout.
    """

    def make(chunks: Sequence[int], values: Sequence[np.ndarray], version: int) -> Shard:
        spec = shard_spec([ranges[chunk] for chunk in chunks], parameters)
        outer = build_outer(spec)
        return Shard(chunks, values, spec, algorithm=algorithm, outer=outer, version=version)

    return make


def check_shards(outer: OptimizerConfig, shards: int, *, key: str = "outer_optimizer") -> None:
    """Refuses an optimizer that couples the elements of different shards.

    Raises:
      ConfigError: the gradient's norm is clipped and no server has the whole gradient.
    """
    if outer.clip_norm is not None and shards > 1:
        fix = "no global server has the whole gradient; leave it out, or take overlay=star"
        raise ConfigError(f"{key}.clip_norm", outer.clip_norm, fix)
