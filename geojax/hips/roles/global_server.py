"""The global server on a site of its own: sums what centers send, and sends the sum back.

In a synchronous run it has no data, no parameters and no optimizer, and needs no JAX: it is a
passive root in the trees of the WAN group (:mod:`geojax.hips.exchange.tree`). Every center applies
the sum to its own parameters, so nothing is lost when a global server dies: the centers go on
without it, or with the global servers that are left. In an asynchronous run it holds a shard of the
parameters (:mod:`geojax.hips.exchange.push_pull`).
"""

from __future__ import annotations

from geojax.hips.control.member import Membership
from geojax.hips.storage.checkpoint import Checkpoints
from geojax.hips.storage.snapshots import Snapshots
from geojax.telemetry.clock import Clock


class GlobalServer:
    """A global server; see the module's docstring.

    Args:
      member: the membership, with this server's part in the WAN exchange.
      clock: experiment time.
      snapshots: keeps the pieces of the model that are held here, in an asynchronous run.
      checkpoints: of these pieces, likewise.
    """

    def __init__(
        self,
        *,
        member: Membership,
        clock: Clock,
        snapshots: Snapshots | None = None,
        checkpoints: Checkpoints | None = None,
    ):
        self._member, self._clock, self._snapshots = member, clock, snapshots
        self._checkpoints = checkpoints

    async def run(self) -> None:
        """Serves until the run is over."""
        start = await self._member.join(0)
        self._member.has_state = True  # it needs none
        self._clock.start_at(start.at, start.time)
        await self._clock.until_start()
        await self._member.ended()
        if self._snapshots is not None:
            await self._snapshots.leave()
        if self._checkpoints is not None:
            await self._checkpoints.flush()
