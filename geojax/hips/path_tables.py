"""Path tables at the scheduler: planned beside the run, told to the centers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from typing import Any

from geojax.hips.belief import Belief
from geojax.hips.machine import Machine
from geojax.hips.recovery import is_up
from geojax.hips.source_routes import table_message
from geojax.overlay.auxiliary import PathTable
from geojax.overlay.policy import Policy
from geojax.overlay.routes import two_way
from geojax.overlay.view import Edge, NetworkView
from geojax.wire.message import Message

log = logging.getLogger("geojax.scheduler")
PlanTables = Callable[[NetworkView, Policy], dict[str, PathTable]]


class PathTables:
    """The auxiliary routes of a run.

    Centers need not change their tables at the same time, since chunks carry their routes. Until a
    new epoch's tables are there, its chunks go the primary way.

    Args:
      plan: plans the tables of all centers, a function that another process can be given; None: the
        run has no auxiliary routes, and everything below does nothing.
      machine: makes the plans.
      belief: what the WAN is believed to be.
      names: all centers of the run, in the order that routes count them by.
      start: does work beside the run.
      send: sends a control message to a center.
    """

    def __init__(
        self,
        plan: PlanTables | None,
        machine: Machine,
        belief: Belief,
        *,
        names: Sequence[str],
        start: Callable[[Coroutine[Any, Any, None]], None],
        send: Callable[[str, Message], None],
    ):
        self._plan, self._machine, self._belief = plan, machine, belief
        self._names, self._start, self._send = tuple(names), start, send
        self._epoch = 0
        self._policy: Policy | None = None  # whose chunks the tables are for
        self._revision = -1  # of the belief that was planned for last
        self._links: set[Edge] = set()  # that chunks of this epoch may be on

    def begin(self, epoch: int) -> None:
        """Whatever was under way is sent again in a new epoch, on tables that are yet to come."""
        self._epoch, self._policy = epoch, None
        self._links.clear()

    def tell(self, policy: Policy) -> None:
        """Plans for the chunks that a policy has centers send; then tells every center its table.

        The plan is dropped if another epoch has begun when it is there.
        """
        if self._plan is not None:
            self._policy, self._revision = policy, self._belief.revision
            self._start(self._tell(self._plan, policy, self._epoch))

    def review(self) -> bool:
        """Plans anew if the belief has changed; true if what is under way must be sent again.

        That is so if a link is out, in either direction, that a chunk of this epoch may be on.
        Nobody else would miss it: trees may have no use for that link.
        """
        if self._policy is None or self._revision == self._belief.revision:
            return False
        view = two_way(self._belief.view())
        cut = [link for link in self._links if not is_up(*link, view)]
        if cut:
            log.warning("auxiliary routes lead over links that are out: %s", sorted(cut))
        else:
            self.tell(self._policy)
        return bool(cut)

    async def _tell(self, plan: PlanTables, policy: Policy, epoch: int) -> None:
        tables = await self._machine.plan(plan, two_way(self._belief.view()), policy)
        if epoch != self._epoch:
            return
        for name, table in tables.items():
            for route in (route for found in table.values() for route in found):
                self._links.update(pairwise(route.hops))
            self._send(name, table_message(epoch, table, self._names))
