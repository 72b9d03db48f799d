"""Path tables at the scheduler: planned beside the run, told to the centers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from geojax.awareness.views import WanView
from geojax.hips.control.messages import Routes
from geojax.hips.routing.source_routes import packed_table
from geojax.machine.machine import Machine
from geojax.overlay.policy.policy import Policy
from geojax.overlay.routes.auxiliary import PathTable
from geojax.overlay.routes.static_routes import is_up, two_way
from geojax.overlay.view import Edge, NetworkView

log = logging.getLogger("geojax.scheduler")


class PlanTables(Protocol):
    """Plans the tables of all centers."""

    def __call__(self, view: NetworkView, *policies: Policy) -> dict[str, PathTable]:
        """Tables by center, for the chunks that these policies have it send."""
        ...


class PathTables:
    """The auxiliary routes of a run.

    Centers need not change their tables at the same time, since chunks carry their routes. Until a
    new epoch's tables are there, its chunks take the primary path.

    Args:
      plan: plans the tables of all centers, a function that another process can be given; None: the
        run has no auxiliary routes, and everything below does nothing.
      machine: makes the plans.
      view: what the WAN is believed to be.
      names: all centers of the run, in the order that routes count them by.
      start: does work beside the run.
      say: sends a control message to a center.
    """

    def __init__(
        self,
        plan: PlanTables | None,
        machine: Machine,
        wan_view: WanView,
        *,
        names: Sequence[str],
        start: Callable[[Coroutine[Any, Any, None]], None],
        say: Callable[[str, Routes], None],
    ):
        self._plan, self._machine, self._wan_view = plan, machine, wan_view
        self._names, self._start, self._say = tuple(names), start, say
        self._epoch = 0
        self._policies: tuple[Policy, ...] = ()  # whose chunks the tables are for
        self._reviewed = -1  # revision of the view that was looked at last
        self._links: set[Edge] = set()  # that chunks of this epoch may be on
        self._then: list[Callable[[], None]] = []  # what waits for tables
        self._planning = self._wanted = False  # tables are being planned; others are wanted

    def begin(self, epoch: int) -> None:
        """A new epoch begins: chunks are sent again, by the primary path until :meth:`tell`."""
        self._epoch, self._policies, self._wanted = epoch, (), False
        self._links.clear()

    def tell(self, *policies: Policy, then: Callable[[], None] | None = None) -> None:
        """Plans for the chunks that policies have centers send; then tells every center its table.

        ``then`` is called when they have been told, or there are no tables.

        Those are all policies that rounds go by which are not over: a center without a route to a
        peer would send as packets go, whose way may be out.

        One plan is made at a time. It is dropped if another epoch has begun meanwhile, or if a
        route crosses a link that is out: if that went out meanwhile, another plan is made at once,
        else when the view has changed. If only the policy or the rates have changed, its tables are
        told all the same, since they are better than none; newer ones follow.
        """
        if self._plan is None:
            if then is not None:
                then()
            return
        if then is not None:
            self._then.append(then)
        self._policies = policies
        if not self._links:  # else there are links to be reviewed
            self._reviewed = self._wan_view.revision
        self._want(self._plan)

    def review(self) -> bool:
        """Plans again if the view has changed; true if chunks may be lost: a new epoch must begin.

        That is so if a chunk of this epoch may be on a link that is out in either direction. No
        other part notices that: the trees may not use the link.
        """
        if self._plan is None or not self._policies or self._reviewed == self._wan_view.revision:
            return False
        self._reviewed = self._wan_view.revision
        cut = self._out(self._links)
        if cut:
            log.warning("auxiliary routes lead over links that are out: %s", cut)
        else:
            self._want(self._plan)
        return bool(cut)

    def _want(self, plan: PlanTables) -> None:
        """Plans tables now, or when those that are being planned are there."""
        self._wanted = True
        if not self._planning:
            self._planning = True
            self._start(self._tell(plan))

    async def _tell(self, plan: PlanTables) -> None:
        while self._wanted and self._policies:
            self._wanted, epoch = False, self._epoch
            view = two_way(self._wan_view.view())
            tables = await self._machine.plan(plan, view, *self._policies)
            if epoch == self._epoch:
                self._take(tables, view)
        self._planning = False
        waiting, self._then = self._then, []
        for then in waiting:
            then()

    def _take(self, tables: Mapping[str, PathTable], planned_for: NetworkView) -> None:
        links = {
            link
            for table in tables.values()
            for found in table.values()
            for route in found
            for link in pairwise(route.hops)
        }
        cut = self._out(links)
        if cut:
            log.warning("dropped path tables: these links are out: %s", cut)
            self._wanted = any(is_up(*link, planned_for) for link in cut)
            return
        self._links |= links
        for name, table in tables.items():
            self._say(name, Routes(packed_table(table, self._names)))

    def _out(self, links: Collection[Edge]) -> list[Edge]:
        """Those that are out."""
        view = two_way(self._wan_view.view())
        return sorted(link for link in links if not is_up(*link, view))
