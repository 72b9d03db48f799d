"""Changes of the membership, at the scheduler: who lives, and how the run goes on after a change.

A change is a new *epoch*. Everybody is told to stop (``prepare``) and reports what it holds, while
a plan for those who live is made. When all reports and the plan are there, everybody is told where
to go on (``resume``; ``start`` for members that come back). Another change may begin before that;
reports and plans of the unfinished one are then ignored.

A member that comes back is *stateless* until it reports that it has parameters. If the epoch
changes again before that, the member is told to start once more, after the same round.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from geojax.awareness.views import WanView
from geojax.errors import GeojaxError, Refused, WaitTimeout
from geojax.hips.cluster import WAN_GROUP, Cluster
from geojax.hips.context import NodeContext
from geojax.hips.control.background import Background
from geojax.hips.control.channel import ControlChannel
from geojax.hips.control.failure_detector import FailureDetector
from geojax.hips.control.grants import Grants
from geojax.hips.control.messages import Expel, LostPeer, Prepare, Report, Resume, Return
from geojax.hips.control.path_tables import PathTables
from geojax.hips.control.policies import Policies
from geojax.hips.control.recovery import (
    Recovery,
    RoundLost,
    StateTransfer,
    pairs,
    recover_all,
    sources,
)
from geojax.hips.control.replica_check import ReplicaCheck
from geojax.hips.control.roster import Roster, Stateless
from geojax.hips.control.round_numbers import RoundNumbers
from geojax.machine.waits import wait_for
from geojax.overlay.policy.policy import Policy
from geojax.overlay.routes.static_routes import is_up, two_way
from geojax.overlay.view import NetworkView

log = logging.getLogger("geojax.scheduler")


@dataclass
class _Change:
    """A change that is under way.

    Attributes:
      outage: it began because a link is out.
      planned: the policies to go on by, once they are there.
      reports: of the members that have stopped: what they hold.
    """

    outage: bool
    planned: dict[int, Policy] | None = None
    reports: dict[str, Report] = field(default_factory=dict)


class Epochs:
    """The membership of a run; see the module's docstring.

    Args:
      context: the scheduler's node.
      channel: says what members are told.
      background: where plans are waited for.
      policies: that rounds go by.
      grants: of the members.
      tables: auxiliary paths.
      wan_view: what the WAN is believed to be.
      numbers: of the rounds.
      changed: called when a change is over.

    Attributes:
      roster: who takes part.
      stateless: members that have come back and have no parameters yet.
      number: of the present epoch.
      running: whether the run has started.
      over: whether it has ended; then nothing changes any more.
      transfers: what members send each other after a change.
      replicas: compares the living centers' parameters.
      detector: finds out who is silent, or sends what cannot be true.
    """

    def __init__(
        self,
        context: NodeContext,
        channel: ControlChannel,
        background: Background,
        *,
        policies: Policies,
        grants: Grants,
        tables: PathTables,
        wan_view: WanView,
        numbers: RoundNumbers,
        changed: Callable[[], None],
    ):
        self._context, self._channel, self._background = context, channel, background
        self._policies, self._grants, self._tables = policies, grants, tables
        self._wan_view, self._numbers, self._changed = wan_view, numbers, changed
        self.roster, self.stateless = Roster(self._cluster), Stateless()
        self.number = 0
        self.running = self.over = False
        self.transfers = StateTransfer()
        self.replicas = ReplicaCheck()
        timeouts = context.setup.config.timeouts
        self.detector = FailureDetector(timeouts, lambda: self.roster.alive, self._failed)
        self._change: _Change | None = None

    @property
    def _cluster(self) -> Cluster:
        return self._context.setup.cluster

    @property
    def changing(self) -> bool:
        """Whether the epoch has begun and the run does not go on yet."""
        return self._change is not None

    def begin(self) -> None:
        """The run starts: from now on members may die and come back."""
        self.running = True
        for name in self.roster.alive:
            self.detector.begin(name)
        self.detector.watch()

    async def plan(self, timeout: float, wan: Policy | None = None) -> dict[int, Policy]:
        """Fresh policies, which the run waits for; ``wan``: the WAN's, if it is planned already."""
        what = f"plan of epoch {self.number} for {len(self.roster.alive)} members"
        return await wait_for(
            self._policies.plan(self.roster.alive, wan), describe=lambda: what, timeout=timeout,
            warn=self._context.setup.config.timeouts.warn,
        )  # fmt: skip

    # ---- who lives

    def _failed(self, names: Sequence[str], reason: str, broken: bool) -> bool:
        if names and not self.over:
            self._background.check(lambda: self.declare_dead(names, reason, broken=broken))
        return not self.over

    def declare_dead(self, names: Sequence[str], reason: str, *, broken: bool = False) -> None:
        """Goes on without these members and those that depend on them.

        Args:
          names: the members.
          reason: why, for people.
          broken: they sent what cannot be true, and may not come back.

        Raises:
          GeojaxError: the run has not started, or no center is left.
        """
        left = self.roster.without(names)
        gone = [name for name in self.roster.alive if name not in left]
        log.warning("dead: %s (%s); left: %s", ", ".join(gone), reason, ", ".join(left) or "none")
        self._context.recorder.event("dead", nodes=gone)
        if broken:
            self.roster.broken |= {*gone}
        for name in gone:
            if name not in names:
                self._channel.say(name, Expel(f"{', '.join(names)}: {reason}", not broken))
        if not self.running:
            raise GeojaxError(f"{', '.join(gone)} died before the run started: {reason}")
        if not set(left) & set(self._cluster.servers):
            raise GeojaxError(f"no member is left: {', '.join(gone)} died ({reason})")
        self.roster.alive = left
        self._grants.keep(left)
        self.replicas.forget(gone)
        self.change(gone)

    def rejoin(self, name: str) -> None:
        """A node has been started again; a center takes part when all its nodes are back."""
        if name in self.roster.alive:  # it was restarted before its death was noticed
            self.declare_dead((name,), "started again")
        back = self.roster.admit(name)
        if not back:
            return
        for node in back:
            self.stateless.admit(node)
            self.detector.begin(node)
            self._grants.done.discard(node)
        log.warning("back: %s; members: %s", ", ".join(back), ", ".join(self.roster.alive))
        self._context.recorder.event("back", nodes=back)
        self.change(())

    def on_complaint(self, name: str, lost: LostPeer) -> None:
        """A connection ended, or ``name`` refused a message of the peer.

        If the peer still lives after ``timeouts.dead``, a new epoch begins, and lost messages are
        sent again. A peer whose messages are refused again in a later epoch is declared dead, or
        who refuses those of several members alone (see :class:`FailureDetector`). That a peer
        sends nothing says nothing while its link is out: the complaint waits, and then accuses
        nobody.
        """
        peer, number = lost.peer, self.number
        if peer == name or peer not in self._cluster.members:
            raise Refused(f"lost.peer: expected another member, came {peer!r}")
        lies = lost.refused and not self.over and peer in self.roster.alive
        if lost.silent and self._is_out(peer, name):
            lies = False
        broken = self.detector.refused(name, peer, number) if lies else None
        if broken is not None:
            said = f"{name}: {lost.reason}"
            why = said if broken == peer else f"it alone accuses several members, last {peer}"
            self.declare_dead((broken,), why, broken=True)
            return

        loop, dead = asyncio.get_running_loop(), self._context.setup.config.timeouts.dead

        def again() -> None:
            both_live = name in self.roster.alive and peer in self.roster.alive
            if not both_live or number != self.number or self.over:
                return
            if lost.silent and self._is_out(peer, name):
                loop.call_later(dead, again)
                return
            log.warning("%s complains about %s, which lives: new epoch", name, peer)
            self.change(())

        loop.call_later(dead, again)

    def _is_out(self, source: str, target: str) -> bool:
        """Whether a link between the centers of two members is believed to be out."""
        here, there = (self._cluster.node(name).center for name in (source, target))
        return here != there and not is_up(here, there, two_way(self._wan_view.view()))

    # ---- a change

    def change(self, dead: Sequence[str], wan: Policy | None = None) -> None:
        """Begins a new epoch: everyone stops and reports what it holds.

        Args:
          dead: the members that have died.
          wan: the new policy of the WAN, if it is planned already (a link is out).
        """
        self.number += 1
        self._change = _Change(outage=wan is not None)
        self._tables.begin(self.number)
        self.stateless.keep(self.roster.alive)
        for name in self.roster.alive:
            self._channel.say(name, Prepare(self.number, tuple(dead)))
        self.detector.ask(self.roster.alive, f"report for epoch {self.number}")
        self._background.start(self._plan_for(self.number, wan))

    async def _plan_for(self, number: int, wan: Policy | None) -> None:
        try:
            planned = await self.plan(self._context.setup.config.timeouts.round, wan)
        except WaitTimeout:
            if number == self.number:
                raise
            return  # a later change has replaced it
        if number == self.number and self._change is not None:
            self._change.planned = planned
            self._check_ready(self._change)

    def on_report(self, name: str, report: Report) -> None:
        """A member has stopped."""
        if report.epoch > self.number:
            raise Refused(f"report.epoch: expected {self.number}, came {report.epoch}")
        if report.epoch < self.number or self._change is None:
            return  # another change has begun since
        self._check_report(name, report)
        self.detector.answered(name)
        self._change.reports[name] = report
        if report.has_state:
            self.stateless.after.pop(name, None)
        self._check_ready(self._change)

    def _check_report(self, name: str, report: Report) -> None:
        """Raises ``Refused`` if the member cannot hold what it reports."""
        groups = self._cluster.groups_of(name)
        if report.held.keys() != {*groups} or report.keeps.keys() != {*groups}:
            raise Refused(f"report.held, report.keeps: expected groups {groups}, came "
                          f"{[*report.held]}, {[*report.keeps]}")  # fmt: skip
        if name in self._cluster.global_servers:
            return
        for group, held in report.held.items():
            if group == WAN_GROUP or not self._numbers.workers_alone:  # else nothing grants them
                self._grants.check(name, self._numbers.of_wan(group, held))
        before = self._grants.held.get(name, -1)
        now = report.held.get(WAN_GROUP, before)
        if self.stateless.may_hold(name, now, before):
            self._grants.lower(name, now)
        elif now < before:
            raise Refused(f"report.held: expected round {before} or later, as it said before")

    def _check_ready(self, change: _Change) -> None:
        """Ends the change when everyone has reported and the plan is there."""
        if change.planned is None or not all(name in change.reports for name in self.roster.alive):
            return
        ahead = self._too_far_ahead(change)
        if ahead:
            self.declare_dead(ahead, "reported a round that others had no part in", broken=True)
            return
        try:
            self._go_on(change, change.planned)
        except RoundLost as error:  # the others can make it again without them
            self.declare_dead(error.holders, str(error))

    def _too_far_ahead(self, change: _Change) -> list[str]:
        """Members that report an impossible round: more than one ahead of another member's."""
        ahead: list[str] = []
        for group, names in self.roster.groups.items():
            counted = {*names} - {*self.stateless.after, *self._cluster.global_servers}
            held = {name: change.reports[name].held[group] for name in names if name in counted}
            if self._numbers.skips:
                held = {name: self._numbers.of_wan(group, n) for name, n in held.items()}
            if not self._numbers.alone(group):
                ahead += [name for name, n in held.items() if n > min(held.values()) + 1]
        return ahead

    def _go_on(self, change: _Change, planned: dict[int, Policy]) -> None:
        """Ends the change: holders of the last round send it, and later rounds run again."""
        if self._numbers.independent:
            planned = self._keep_servers(planned, change.reports)
        elif not set(self.roster.centers) - self.stateless.after.keys():
            raise GeojaxError(
                f"the parameters are lost: {', '.join(self.roster.centers)} came back, and every "
                "center that had them died before they were sent; continue from a checkpoint "
                "(resume=true, where the run has checkpoint_every)"
            )
        view = two_way(self._wan_view.view())
        found = recover_all(
            planned, change.reports, numbers=self._numbers, stateless=self.stateless.after,
            behind=self.stateless.behind, highest=self._grants.highest, view=view,
        )  # fmt: skip
        self._policies.begin(planned)
        self._tables.tell(planned[WAN_GROUP])
        self._tell(found, view)
        self._change = None
        wan, recorder = found[WAN_GROUP], self._context.recorder
        recorder.event(
            "epoch", epoch=self.number, members=list(self.roster.alive), held=wan.held,
            policies=self._policies.described(),
        )  # fmt: skip
        if change.outage:
            self._policies.record(recorder, wan.held + 1, "outage")
        self._policies.record_loads(recorder)
        self._changed()
        self.roster.back.clear()

    def _tell(self, found: Mapping[int, Recovery], view: NetworkView) -> None:
        """Tells everybody where to go on."""
        able = found[WAN_GROUP].able
        servers = [name for name in self.stateless.after if name in self._cluster.servers]
        states = sources(servers, able, view)
        self.transfers.begin(found[WAN_GROUP], states, view)
        now, time = asyncio.get_running_loop().time(), self._context.clock()
        for name in self.roster.alive:
            mine = self._policies.of(name)
            held = {group: found[group].held for group in mine}
            sends = {group: found[group].sends for group in mine}
            lacking = {group: tuple(to[name]) for group, to in sends.items() if name in to}
            if name not in self.stateless:
                to = tuple(states.get(name, ()))
                sources_of = {
                    group: sender
                    for group, lists in sends.items()
                    for sender, to_whom in pairs(lists)
                    if to_whom == name
                }
                self._channel.say(
                    name, Resume(self.number, held, lacking, to, mine, sources_of or None)
                )
                continue
            after = self.stateless.after[name]
            if WAN_GROUP in held and after is not None:
                held[WAN_GROUP] = after
            self.stateless.tell(name, held.get(WAN_GROUP, -1))
            told = {**self._grants.told(name), **self._policies.told_cut(name)}
            sender = next((sender for sender, to in pairs(states) if to == name), None)
            self._channel.say(name, Return(
                held, lacking, self.number, at=now, time=time, policies=mine, state_from=sender,
                steps=self.stateless.steps.get(name), **told,
            ))  # fmt: skip

    def _keep_servers(
        self, planned: dict[int, Policy], reports: Mapping[str, Report]
    ) -> dict[int, Policy]:
        """Leaves shards where they are, and has who comes back go on behind everyone."""
        before, after = (of[WAN_GROUP].members for of in (self._policies.groups, planned))
        rounds = {name: reports[name].held[WAN_GROUP] for name in before
                  if name in after and name not in self.stateless}  # fmt: skip
        self._grants.highest = max(self._grants.highest, *rounds.values(), -1)
        for name, behind in self.stateless.after.items():
            if behind is None:
                self.stateless.after[name] = self._grants.highest
                if self._cluster.node(name).role == "server":
                    self._grants.begin_anew(name, self._context.clock())
        holding = [name for name in self.roster.alive if name not in self.stateless]
        return self._policies.with_kept_roots(planned, holding, rounds)
