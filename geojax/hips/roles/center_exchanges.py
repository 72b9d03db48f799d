"""The exchanges within a center that come before its exchange over the WAN.

Every round of the WAN belongs to the last of its LAN rounds; in those before, the center's workers
go on from their mean. How many there are, the algorithm says, or a service does while they run
(ESync across centers and workers).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from geojax.hips.exchange.buckets import Bucket
from geojax.hips.exchange.lan import Downlink, Total
from geojax.hips.roles.center_offers import CenterOffers
from geojax.hips.roles.lan_rounds import LanRounds
from geojax.hips.roles.local_steps import LocalSteps
from geojax.sync.algorithm import More
from geojax.telemetry.clock import Clock


class Decided(NamedTuple):
    """Who decides while a round runs how many exchanges within the center it has.

    Attributes:
      steps: asks whether there is one more.
      told: where the workers learn which one follows.
    """

    steps: LocalSteps
    told: LanRounds


class CenterExchanges:
    """A local server's part in the exchanges within its center.

    Args:
      clock: experiment time.
      buckets: of the vector.
      link: to the workers.
      offers: makes the workers' mean of their sum.
      most: LAN rounds in a round of the WAN, or the most of them.
      decided: who decides how many; None: there are ``most``.

    Attributes:
      vector: what the center's workers have.
      last: the LAN round that the present round of the WAN belongs to.
      taken: local steps of the workers in the LAN rounds before that.
    """

    def __init__(
        self,
        clock: Clock,
        buckets: Sequence[Bucket],
        *,
        link: Downlink,
        offers: CenterOffers,
        most: int,
        decided: Decided | None = None,
    ):
        self._clock, self._buckets, self._link, self._offers = clock, buckets, link, offers
        self.most, self._decided = most, decided
        self.vector: Any = None
        self.last, self.taken = -1, 0

    async def run(self, number: int) -> Total | None:
        """Exchanges within the center before round ``number`` of the WAN.

        Returns:
          What the workers offered in the last LAN round, if it is here already.
        """
        first, self.last = number * self.most, (number + 1) * self.most - 1
        self.taken = 0
        if self._decided is None:
            for lan_number in range(first, self.last):
                (bucket,) = self._buckets
                await self._average(lan_number, await self._link.total(lan_number, bucket))
            return None
        return await self._as_decided(self._decided, self._decided.steps.begin(number), first)

    def counted(self, total: Total) -> Total:
        """The last LAN round's offers, which stand for the steps of those before, too.

        Where nothing in them was finite they count nothing, and stand for nothing.
        """
        pairs = zip(total.steps, total.weights, strict=True)
        return total._replace(steps=tuple(n + self.taken if weight else 0 for n, weight in pairs))

    async def _as_decided(self, decided: Decided, more: More, first: int) -> Total:
        (bucket,), last = self._buckets, self.last
        for lan_number in range(first, last + 1):
            start = self._clock()
            total = await self._link.total(lan_number, bucket)
            decided.steps.stepped(self._clock() - start)
            if lan_number == last or not await more(lan_number - first + 1):
                break
            decided.told.decide(lan_number, lan_number + 1)
            await self._average(lan_number, total)
        decided.steps.end()
        self.last = lan_number
        decided.told.decide(lan_number, last + 1)
        if lan_number < last:
            self._link.stand_for(lan_number, last)
        return total

    async def _average(self, lan_number: int, total: Total) -> None:
        """The workers go on from their mean."""
        (bucket,) = self._buckets
        self.vector = self._offers.moved(total, self.vector)
        self.taken += total.steps[0]
        await self._link.publish(lan_number, bucket, self.vector)
