"""A shard: some chunks of the model at a global server, and the optimizer that moves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from geojax.center.outer import OuterOptimizer
from geojax.center.spec import VectorSpec
from geojax.config import OptimizerConfig
from geojax.errors import ConfigError, Diverged
from geojax.hollow import is_hollow, join
from geojax.sync.algorithm import Offered, SyncAlgorithm

Ranges = Sequence[tuple[int, int]]


class Decoded(NamedTuple):
    """A center's push to a shard.

    Attributes:
      center: whose it is.
      chunks: for every chunk the decoded sum of weight·offer and the sum of the weights. If that is
        0 for a chunk, no offer was finite, and the push changes nothing.
      staleness: merges since its parameters were sent.
      steps: local steps that it stands for.
    """

    center: str
    chunks: Sequence[tuple[np.ndarray, float]]
    staleness: int = 0
    steps: int = 0


class Shard:
    """Parameters of some chunks, moved by the pushes of one admission at a time.

    How they move is the algorithm's :class:`geojax.sync.algorithm.MergeRule`, which may take one
    step of the outer optimizer. Rules and optimizers must work element by element, so that a model
    in several shards moves as it would in one.

    Float model state (BatchNorm statistics) has no gradient; a center offers its values, and they
    are mixed in: ``value ← value + (offered − value) / living centers``. RECONSTRUCTED: GeoMX never
    synchronizes model state; with all centers offering in turn this is a moving average over them.

    Vectors are never changed in place: an answer may be in flight while the next push is applied.

    Args:
      chunks: indices of the chunks, ascending.
      values: their elements, one float32 array per chunk; parameters first, then state.
      spec: layout of the joined elements, see :func:`shard_spec`.
      algorithm: what offers are, and how they are merged.
      outer: an optimizer on vectors of ``spec``.
      version: number of the merges that ``values`` contain.
      workers: sum of the weights of all workers of the run.
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
        workers: float = 1.0,
    ):
        self.chunks, self.spec, self.version = tuple(chunks), spec, version
        stops = np.cumsum([piece.size for piece in values]).tolist()
        self.ranges = tuple(zip([0, *stops[:-1]], stops, strict=True))
        joined = join(values)
        self.vector = joined if is_hollow(joined) else np.array(joined, np.float32)
        spec.check(self.vector, "shard")
        self._offer, self._merge, self._outer = algorithm.offer, algorithm.merge, outer
        self._workers = workers
        trained = self.vector[: spec.parameters]
        self._state = {} if is_hollow(self.vector) else self._merge.init(trained)
        self._backups: dict[str, np.ndarray] = {}
        outer.init(self.vector)

    def pieces(self) -> list[np.ndarray]:
        """The present elements of each chunk, as views."""
        return [self.vector[start:stop] for start, stop in self.ranges]

    def apply(self, pushes: Sequence[Decoded], living: int) -> np.ndarray:
        """Applies the pushes of one admission.

        Args:
          pushes: in the order of the admission.
          living: number of centers that take part.

        Returns:
          The new vector.

        Raises:
          Diverged: it is not finite.
        """
        self.version += 1
        totals = [join([values for values, _ in push.chunks]) for push in pushes]
        for push, total in zip(pushes, totals, strict=True):
            self.spec.check(total, f"push of {push.center}")
        finite = [push for push in pushes if all(weight for _, weight in push.chunks)]
        if any(is_hollow(total) for total in totals) or not finite:
            return self.vector
        assert self._merge.apply is not None
        split, before = self.spec.parameters, self.vector
        offers, rest = [], before[split:]
        for push in finite:
            offered, values = self._offered(push)
            offers.append(offered)
            rest = rest + (values - rest) / np.float32(living)

        def outer(gradient: np.ndarray) -> np.ndarray:
            moved = self._outer.apply(before, np.concatenate([gradient, rest]))
            return moved[:split]

        moved, self._state = self._merge.apply(offers, before[:split], outer, self._state)
        self.vector = np.concatenate([moved, rest])
        if not np.isfinite(self.vector).all():
            centers = ", ".join(push.center for push in pushes)
            raise Diverged(
                f"parameters are not finite after version {self.version}, which merges what "
                f"{centers} pushed; lower the outer optimizer's rate, or set clip_norm"
            )
        return self.vector

    def _offered(self, push: Decoded) -> tuple[Offered, np.ndarray]:
        """A push as the merge rule sees it, and the values of its model state."""
        split = self.spec.parameters
        mean = np.concatenate([self._merge.merge(*chunk) for chunk in push.chunks])
        value = self._offer.pseudo_gradient(mean[:split])
        backup = self._backups.get(push.center, self.vector)[:split]
        weight = push.chunks[0][1] / self._workers
        offered = Offered(push.center, value, backup, push.staleness, weight, push.steps)
        return offered, mean[split:]

    def answered(self, center: str) -> None:
        """Keeps the present parameters as the backup of ``center``, if one is needed.

        Without a backup (the center pulled from a server that died) its delay is not compensated.
        """
        if self._merge.needs_backup:
            self._backups[center] = self.vector

    def state(self) -> dict[str, Any]:
        """Chunks, values, and all that later merges depend on."""
        return {
            "chunks": list(self.chunks), "values": self.pieces(), "version": self.version,
            "outer": self._outer.state_dict(), "merge": dict(self._state),
            "backups": dict(self._backups),
        }  # fmt: skip

    def load(self, kept: Mapping[str, Any]) -> None:
        """What :meth:`state` has beside chunks, values and version, which the shard is made of."""
        self._outer.load_state(kept["outer"])
        self._state, self._backups = dict(kept["merge"]), dict(kept["backups"])

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
    *,
    workers: float = 1.0,
) -> ShardMaker:
    """Makes the shards of one model.

    Args:
      algorithm: see :class:`Shard`.
      ranges: (start, stop) of every chunk of the model.
      parameters: how many leading elements of the model's vector are parameters.
      build_outer: a new outer optimizer on vectors of a shard's layout.
      workers: see :class:`Shard`.
    """

    def make(chunks: Sequence[int], values: Sequence[np.ndarray], version: int) -> Shard:
        spec = shard_spec([ranges[chunk] for chunk in chunks], parameters)
        outer = build_outer(spec)
        return Shard(
            chunks, values, spec, algorithm=algorithm, outer=outer, version=version, workers=workers
        )

    return make


def check_shards(outer: OptimizerConfig, shards: int, *, key: str = "outer_optimizer") -> None:
    """Refuses an optimizer that couples the elements of different shards.

    Raises:
      ConfigError: the gradient's norm is clipped and no server has the whole gradient.
    """
    if outer.clip_norm is not None and shards > 1:
        fix = "no global server has the whole gradient; leave it out, or take overlay=star"
        raise ConfigError(f"{key}.clip_norm", outer.clip_norm, fix)
