"""The sums that members of an exchange along trees make of what they are offered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from geojax.compression.codec import Codec
from geojax.hips.exchange.contribution import ABSTAINED, Contribution, check_finite, summed
from geojax.machine.machine import Machine
from geojax.wire.message import Payload


class ChunkSum(NamedTuple):
    """What is to be summed of a chunk.

    Attributes:
      offers: all that were expected, by contributor, in member order.
      payloads: of those that do not abstain, in that order; then late ones.
    """

    offers: Mapping[str, Contribution]
    payloads: Sequence[Payload]


class ChunkSums:
    """Sums payloads in member order, never in order of arrival, and charges a machine for it.

    Args:
      codec: says what payloads are, and sums them.
      machine: charges the sums.
      counts: told, at the root of a round's first chunk, how many local steps came from the member
        itself, and from each child with all below it; again if the round runs again.

    Attributes:
      codec: as above.
    """

    def __init__(
        self,
        codec: Codec,
        machine: Machine,
        counts: Callable[[int, Mapping[str, int]], None] | None = None,
    ):
        self.codec, self._machine, self._counts = codec, machine, counts

    def begin(
        self,
        offers: Mapping[str, Contribution],
        late: Sequence[Any],
        then: Callable[[ChunkSum], None],
    ) -> None:
        """Calls ``then`` when as much work is done as the sum of offers and late payloads takes."""
        payloads: list[Any] = [each.payload for each in offers.values() if each.contributors]
        payloads += late
        work = sum([payload.nbytes for payload in payloads[1:]])
        self._machine.after("sum", work, lambda: then(ChunkSum(offers, payloads)))

    def total(self, of: ChunkSum, what: Callable[[], str]) -> Contribution:
        """The sum; ``what`` tells what it is the sum of.

        Raises:
          Diverged: it is not finite.
        """
        given = [each for each in of.offers.values() if each.contributors]
        if len(of.payloads) < 2:
            return given[0] if given else ABSTAINED
        total = summed(self.codec.combine(of.payloads), given)  # type: ignore[arg-type]
        check_finite(total.payload, self.codec, lambda: of.offers, what)
        return total

    def tell_steps(self, number: int, of: ChunkSum) -> None:
        """Tells how many local steps of a round came from whom."""
        if self._counts is not None:
            self._counts(number, {n: c.steps for n, c in of.offers.items() if c.contributors})
