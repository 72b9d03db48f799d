"""What a center offers over the WAN, and what it makes of the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from geojax.center.outer import OuterOptimizer
from geojax.compression.codec import Codec, restore_state
from geojax.hips.exchange.buckets import Bucket
from geojax.hips.exchange.contribution import ABSTAINED, Contribution, contribution_of
from geojax.hips.exchange.lan import Total
from geojax.hollow import SizeOnly, hollow, is_hollow, join
from geojax.machine.machine import Machine
from geojax.sync.algorithm import SyncAlgorithm


class CenterOffers:
    """Turns the sums of a center's workers into what the center offers.

    Args:
      algorithm: says what offers and weights are.
      buckets: of the vector.
      codec: what travels over the WAN; its state is kept here, bucket by bucket.
      machine: charges the encoding.
    """

    def __init__(
        self, algorithm: SyncAlgorithm, buckets: Sequence[Bucket], codec: Codec, machine: Machine
    ):
        self._algorithm, self._buckets, self._codec = algorithm, tuple(buckets), codec
        self._machine = machine
        self._states = [self._fresh(bucket) for bucket in buckets]

    async def encoded(
        self, bucket: Bucket, total: Total, center: np.ndarray, agreed: np.ndarray
    ) -> list[Contribution]:
        """What is offered of a bucket, chunk by chunk.

        Args:
          bucket: the bucket.
          total: what its workers have offered.
          center: the parameters that they went on from last.
          agreed: the parameters after the last round of the WAN.
        """
        if total.abstains:
            return [ABSTAINED] * len(bucket.chunks)
        total = self._counted(total, center, agreed)
        kept = state = self._states[bucket.index]
        empty = not any(total.weights)
        if empty:  # it counts nothing, so what has accumulated stays here for the next offer
            state = self._fresh(bucket)
        if self._codec.observe is not None and total.loss is not None:
            state = self._codec.observe(state, total.loss)
        payloads, state = await self._machine.host(
            "encode", total.vector.nbytes, lambda: self._codec.encode(total.vector, state)
        )
        self._states[bucket.index] = kept if empty else state
        return [
            contribution_of(
                payload, total.weights[at], contributors=total.contributors[at],
                loss=None if at else total.loss, steps=total.steps[at],
            )
            for at, payload in enumerate(payloads)
        ]  # fmt: skip

    def moved(self, total: Total, center: np.ndarray) -> np.ndarray:
        """The center's parameters after its workers' mean delta; model state is their mean."""
        inverse = tuple(1.0 / weight if weight else 0.0 for weight in total.weights)
        moved, split = self._scaled(total.vector, inverse), self._buckets[0].spec.parameters
        moved[:split] += center[:split]
        return moved

    def state(self) -> list[Any]:
        """The codec's state of every bucket."""
        return list(self._states)

    def load(self, kept: Sequence[Any]) -> None:
        """The inverse of :meth:`state`, from a checkpoint."""
        pairs = zip(self._states, kept, strict=True)
        self._states = [restore_state(fresh, state) for fresh, state in pairs]

    def _fresh(self, bucket: Bucket) -> Any:
        return self._codec.init(bucket.spec.layers, bucket.ranges)

    def _counted(self, total: Total, center: np.ndarray, agreed: np.ndarray) -> Total:
        """A center's sum as it counts in the merge over the WAN."""
        if self._algorithm.lan_rounds > 1:  # from the last global parameters, not the center's own
            vector, split = self.moved(total, center), self._buckets[0].spec.parameters
            vector[:split] -= agreed[:split]
            total = total._replace(vector=self._scaled(vector, total.weights))
        if self._algorithm.weights == "centers":
            inverse = tuple(1.0 / weight if weight else 0.0 for weight in total.weights)
            vector = self._scaled(total.vector, inverse)
            weights = tuple(float(weight > 0) for weight in total.weights)
            total = total._replace(vector=vector, weights=weights)
        return total

    def _scaled(self, vector: np.ndarray, factors: Sequence[float]) -> np.ndarray:
        """A fresh vector, every chunk times its factor."""
        if is_hollow(vector):
            return vector
        pieces = zip(self._buckets[0].ranges, factors, strict=True)
        return join([vector[start:stop] * np.float32(factor) for (start, stop), factor in pieces])


class Update(Protocol):
    """Makes new parameters of the results of a round."""

    def apply(
        self, bucket: Bucket, results: Sequence[Contribution], before: np.ndarray
    ) -> np.ndarray:
        """The new values of a bucket.

        Args:
          bucket: the bucket.
          results: of its chunks.
          before: its values before the round.
        """
        ...

    def state(self) -> list[Any]:
        """What the next step depends on."""
        ...

    def load(self, kept: Sequence[Any]) -> None:
        """The inverse of :meth:`state`."""
        ...


class OuterStep:
    """Results are merged offers: every center alike takes an outer step.

    Args:
      algorithm: how offers become a gradient.
      codec: decodes the results.
      outers: the outer optimizer of each bucket.
    """

    def __init__(self, algorithm: SyncAlgorithm, codec: Codec, outers: Sequence[OuterOptimizer]):
        self._algorithm, self._codec, self._outers = algorithm, codec, tuple(outers)

    def apply(
        self, bucket: Bucket, results: Sequence[Contribution], before: np.ndarray
    ) -> np.ndarray:
        """See :class:`Update`."""
        if type(results[0].payload) is SizeOnly:
            return hollow(bucket.size)
        if not all(chunk.weight for chunk in results):  # nobody had anything finite to offer
            return before
        decoded = [self._codec.decode(chunk.payload) for chunk in results]  # type: ignore[arg-type]
        pairs = zip(decoded, results, strict=True)
        mean = join([self._algorithm.merge.merge(sums, chunk.weight) for sums, chunk in pairs])
        split = bucket.spec.parameters
        mean[:split] = self._algorithm.offer.pseudo_gradient(mean[:split])
        return self._outers[bucket.index].apply(before, mean)

    def state(self) -> list[Any]:
        """See :class:`Update`."""
        return [outer.state_dict() for outer in self._outers]

    def load(self, kept: Sequence[Any]) -> None:
        """See :class:`Update`."""
        for outer, state in zip(self._outers, kept, strict=True):
            outer.load_state(state)


class Pulled:
    """Results are parameters: global servers have taken the step.

    Args:
      answers: decodes them.
    """

    def __init__(self, answers: Codec):
        self._answers = answers

    def apply(
        self, bucket: Bucket, results: Sequence[Contribution], before: np.ndarray
    ) -> np.ndarray:
        """See :class:`Update`."""
        del before
        if type(results[0].payload) is SizeOnly:
            return hollow(bucket.size)
        return join([self._answers.decode(chunk.payload) for chunk in results])  # type: ignore[arg-type]

    def state(self) -> list[Any]:
        """See :class:`Update`: the servers have it."""
        return []

    def load(self, kept: Sequence[Any]) -> None:
        """See :class:`Update`."""
        del kept
