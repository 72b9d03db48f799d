"""The global server on a site of its own: sums what centers send, and sends the sum back.

It has no data, no parameters and no optimizer, and needs no JAX: its part is that of a passive root
in the trees of the WAN group (:mod:`geojax.hips.exchange`). What the sum does to the parameters is
done in every center alike, so nothing is lost with it when it dies: the centers go on without it,
or with those global servers that are left.
"""

from __future__ import annotations

from geojax.hips.member import Membership
from geojax.telemetry.clock import Clock


class GlobalServer:
    """A global server; see the module's docstring.

    Args:
      member: the membership, with this server's part in the WAN exchange.
      clock: experiment time.
    """

    def __init__(self, *, member: Membership, clock: Clock):
        self._member, self._clock = member, clock

    async def run(self) -> None:
        """Serves until the run is over."""
        start = await self._member.join(0)
        self._member.has_state = True  # all that it needs
        self._clock.start_at(start.at, start.time)
        await self._clock.until_start()
        await self._member.ended()
