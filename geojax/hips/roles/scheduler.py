"""The scheduler: membership, epochs, policies and grants. It never carries parameters.

It sends and receives :mod:`geojax.hips.control.messages`. Each is checked when it arrives; one that
cannot be true is refused and its sender named. That sender is broken and is declared dead after
``timeouts.dead``.

**Policies by round.** Every plan has a version, higher than all before. A new policy of the WAN
takes effect with the first round that no member has been granted yet. Every member is sent it
before any ``beat`` that grants that round, and messages between two nodes keep their order. So a
member knows the policy of every round that it may begin, no round has two policies, and no member
waits for another. Where plans may change, grants reach only two rounds ahead, and one where rounds
are long.

**Plans** are made in a process of their own while messages are answered and rounds go on. The run
waits for one at its start, for ``timeouts.start`` at most, and when the membership changes
(:mod:`geojax.hips.control.epochs`), for ``timeouts.round``. Others are made beside the run when the
view of the WAN has changed (:mod:`geojax.hips.control.replanning`).

**Routes of control messages** are static, as IP's are; with ``wan.server_center=external`` they
have links of their own. A member whose link is cut is silent, and is declared dead after
``timeouts.dead`` unless the link comes back before. If only the direction towards the member is
cut, it is heard but learns of no new epoch; a member that owes a report for ``timeouts.dead`` is
declared dead, too.

**Global servers** on a site of their own only merge. No change waits for what they hold, since only
centers keep rounds, and the end of the run does not wait for them. Where centers exchange with
global servers at their own paces (*independent*), every center has rounds and a grant of its own:
no round runs again when the membership changes, parameters are not compared, the global servers
keep their shards (see :func:`geojax.overlay.planners.keep_roots.keep_roots`), and plans are made
only for a new membership.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from geojax.awareness.probing import Awareness
from geojax.awareness.views import WanView
from geojax.errors import GeojaxError, Refused
from geojax.hips.cluster import WAN_GROUP
from geojax.hips.context import NodeContext
from geojax.hips.control.background import Background
from geojax.hips.control.channel import ControlChannel, Handlers
from geojax.hips.control.epochs import Epochs
from geojax.hips.control.grants import Grants
from geojax.hips.control.joining import JoinBarrier, senders
from geojax.hips.control.messages import (
    Beat,
    ControlMessage,
    Done,
    End,
    Expel,
    Heartbeat,
    Holding,
    Join,
    LostPeer,
    Probe,
    Report,
    Request,
    Start,
)
from geojax.hips.control.path_tables import PathTables, PlanTables
from geojax.hips.control.policies import Policies, Propose
from geojax.hips.control.replanning import Replanning
from geojax.hips.control.requests import ServiceHost
from geojax.hips.control.round_numbers import RoundNumbers
from geojax.hips.control.takeovers import TakeOvers
from geojax.overlay.policy.policy import Policy
from geojax.sync.service import Service
from geojax.wire.transport import Lost

log = logging.getLogger("geojax.scheduler")
_LEAD_S = 0.5  # from the start message to experiment time 0

M = TypeVar("M", bound=ControlMessage)


class Scheduler:
    """The scheduler of one run.

    Args:
      context: its node.
      propose: plans the policy of the WAN group, and estimates it.
      wan_view: what the WAN is believed to be; it takes what members measure.
      numbers: of the rounds; for centers that go at paces of their own see the module's docstring.
      replans: whether plans depend on what is believed about rates, and may change between rounds.
      plan_tables: plans the centers' path tables; None: the run has no auxiliary routes.
      awareness: follows the view and has links probed, where rates are measured.
      services: that members may ask, by name.
    """

    def __init__(
        self,
        context: NodeContext,
        *,
        propose: Propose,
        wan_view: WanView,
        numbers: RoundNumbers,
        replans: bool = False,
        plan_tables: PlanTables | None = None,
        awareness: Awareness | None = None,
        services: Mapping[str, Service] | None = None,
    ):
        config, cluster = context.setup.config, context.setup.cluster
        self._context, self._cluster = context, cluster
        self._wan_view, self._awareness = wan_view, awareness
        self._replans, self._independent = replans, numbers.independent
        self._background = Background(self._fail)
        self._channel = ControlChannel(context, lambda: self.epochs.number)
        self._join_barrier = JoinBarrier(cluster, config.timeouts, self._channel.refused)
        self._grants = Grants(
            config, cluster, first=context.setup.resume.round + 1, independent=numbers.independent,
            replans=replans, after=context.setup.resume.held,
        )  # fmt: skip
        self._policies = Policies(cluster, context.machine, wan_view, propose, config.overlay.lan)
        self._tables = PathTables(
            plan_tables, context.machine, wan_view, names=cluster.servers,
            start=self._background.start, say=self._channel.say,
        )  # fmt: skip
        self.epochs = Epochs(
            context, self._channel, self._background, policies=self._policies,
            grants=self._grants, tables=self._tables, wan_view=wan_view, numbers=numbers,
            changed=self._on_changed,
        )  # fmt: skip
        self._roster = self.epochs.roster
        self._take_overs = TakeOvers(
            self._channel, epochs=self.epochs, policies=self._policies, grants=self._grants,
            tables=self._tables, recorder=context.recorder, hysteresis=config.overlay.hysteresis,
        )  # fmt: skip
        self._replanning = Replanning(
            context, self._channel, self._background, epochs=self.epochs, policies=self._policies,
            grants=self._grants, tables=self._tables, wan_view=wan_view,
            take_overs=self._take_overs if config.overlay.replan_at == "chunk" else None,
        )  # fmt: skip
        self._channel.on_refused = self.epochs.detector.distrust
        self._services = ServiceHost(
            services or {}, say=self._channel.say, refuse=self._channel.refuse,
            recorder=context.recorder,
        )  # fmt: skip
        self._handlers: Handlers = {
            Join: self._on_join,
            Heartbeat: self._of_living(self._on_heartbeat),
            LostPeer: self._of_living(self.epochs.on_complaint),
            Report: self._of_living(self.epochs.on_report),
            Holding: self._of_living(self._take_overs.on_holding),
            Done: self._of_living(self._on_done),
            Request: self._of_living(self._services.take),
        }
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # ---- the run

    async def run(self) -> None:
        """Runs until every living member holds the last round.

        Raises:
          WaitTimeout: not all nodes joined in time; names the missing ones.
          GeojaxError: no member is left, the parameters are lost, or those of members differ.
        """
        self._background.start(self._pump())
        try:
            await self._join_barrier.gather()
            self._policies.cut = self._join_barrier.cut
            planned = await self.epochs.plan(self._context.setup.config.timeouts.start)
            if not self._finished.done():  # it has failed in the meantime
                self._start(planned)
            await self._finished
        finally:
            self.epochs.over = True
            self._background.stop()

    def _start(self, planned: dict[int, Policy]) -> None:
        self._policies.begin(planned)
        resume, recorder = self._context.setup.resume, self._context.recorder
        initial = senders(self._join_barrier.digests, self._roster.alive, self._cluster)
        if initial:
            log.warning("initial parameters of %s differ: the master's count", ", ".join(initial))
            recorder.event("initial", at=resume.time, sources=initial)
        if initial and (self._independent or resume.round >= 0):
            raise GeojaxError(
                f"{', '.join(initial)} begin with other parameters than the first center, and only "
                "a synchronous run can mend that, at its start"
            )
        start = asyncio.get_running_loop().time() + _LEAD_S
        self._context.clock.start_at(start, resume.time)
        self._tables.tell(planned[WAN_GROUP])
        for name in self._roster.alive:
            to = tuple(other for other, source in initial.items() if source == name)
            self._channel.say(
                name,
                Start(
                    self.epochs.number, at=start, time=resume.time,
                    policies=self._policies.of(name), initial_from=initial.get(name),
                    initial_to=to, **self._grants.told(name), **self._policies.told_cut(name),
                ),
            )  # fmt: skip
        recorder.event(
            "start", at=resume.time, members=list(self._roster.alive),
            elements=max(join.elements for join in self._join_barrier.joins.values()),
            policies=self._policies.described(),
        )  # fmt: skip
        self._policies.record_loads(recorder, resume.time)
        self._services.members(self._askers, self.epochs.number)
        self.epochs.begin()

    def _fail(self, error: BaseException) -> None:
        """Ends :meth:`run` with an error, in whichever phase it is."""
        self.epochs.over = True
        if not self._join_barrier.fail(error) and not self._finished.done():
            self._finished.set_exception(error)

    # ---- what members say

    async def _pump(self) -> None:
        while True:
            item = await self._context.transport.receive()
            if not isinstance(item, Lost):
                self._channel.take(item, self._handlers)
            elif item.peer in self._roster.alive and not self.epochs.over:
                self.epochs.declare_dead((item.peer,), item.reason)

    def _of_living(self, handler: Callable[[str, M], None]) -> Callable[[str, M], None]:
        """A handler for messages of living members; a dead sender is told that it is expelled."""

        def hear(name: str, said: M) -> None:
            if name in self._roster.returning.waiting:
                return  # it was said before the member asked to come back, or is of no use yet
            if not self._roster.lives(name):
                may_return = self._roster.may_return(name) and not self.epochs.over
                self._channel.say(name, Expel("it was declared dead", may_return))
                return
            handler(name, said)
            self.epochs.detector.hear(name)

        return hear

    def _on_join(self, name: str, join: Join) -> None:
        if not self.epochs.running:
            self._join_barrier.take(name, join)
            return
        if self.epochs.over or not self._join_barrier.knows(name, join):
            self._channel.say(
                name, Expel("the run is over, or its model is another one", may_return=False)
            )
            return
        self.epochs.rejoin(name)

    @property
    def _askers(self) -> list[str]:
        return [name for name in self._roster.alive if name not in self._cluster.global_servers]

    def _on_changed(self) -> None:
        self._services.members(self._askers, self.epochs.number, back=self._roster.back)
        self._check_end()

    def _on_heartbeat(self, name: str, beat: Heartbeat) -> None:
        self._check_heartbeat(name, beat)
        self._wan_view.take(name, beat.links or (), self._context.clock())
        if self._replans:
            self._replanning.reconsider()
        if not (self.epochs.changing or self.epochs.over) and self._tables.review():
            self.epochs.change(())  # a link of a route is out: what is on it runs again
        if self._context.oracle.reached is not None:
            self._grants.finish()
        if beat.steps is not None:
            self.epochs.stateless.steps[name] = beat.steps
        if name not in self._cluster.global_servers:
            self._grants.note(name, max(self._grants.held.get(name, -1), beat.held))
        self._grants.extend(name, self._context.clock())
        progress = sum(self._grants.held.values()) if self._independent else None
        if not self._independent:
            for number, digest in beat.digests or ():
                self.epochs.replicas.take(name, number, digest, self._roster.centers)
        self._channel.say(name, Beat(progress=progress, **self._grants.told(name)))
        if not self._independent:
            self._probe(name, beat)

    def _check_heartbeat(self, name: str, beat: Heartbeat) -> None:
        """Raises ``Refused`` if the heartbeat cannot be true."""
        if name not in self._cluster.global_servers:
            self._grants.check(name, beat.held)
        if beat.steps is not None and name not in self._cluster.trainers:
            raise Refused("heartbeat.steps: of a node that trains")
        late = [number for number, _ in beat.digests or () if number > beat.held]
        if (beat.digests and name not in self._cluster.servers) or late:
            raise Refused("heartbeat.digests: of a center, for rounds that it holds")
        if not beat.links:
            return
        peers = {*self._cluster.servers, *self._cluster.global_servers} - {name}
        for peer, nbytes, seconds in beat.links:
            if peer not in peers or (nbytes and not seconds):
                raise Refused(f"heartbeat.links: {nbytes} bytes of {peer!r} in {seconds:g} s")

    def _probe(self, name: str, beat: Heartbeat) -> None:
        """Has little-known links probed, unless the membership is changing."""
        if self._awareness is None or beat.sent is None or self.epochs.changing:
            return
        probes = self._awareness.heard(name, beat.sent, self._grants.highest, self._roster.alive)
        for probe in probes:
            self._channel.say(probe.source, Probe(probe.target, probe.nbytes, probe.count))

    def _on_done(self, name: str, done: Done) -> None:
        self._grants.check(name, done.held, done=True)
        self._grants.note(name, done.held)
        self._grants.done.add(name)
        self._check_end()

    def _check_end(self) -> None:
        awaited = set(self._roster.alive) - set(self._cluster.global_servers)
        if self.epochs.changing or self.epochs.over or not awaited <= self._grants.done:
            return
        self.epochs.over = True
        for name in self._roster.alive:
            self._channel.say(name, End())
        for name in self._roster.returning.waiting:
            self._channel.say(name, Expel("the run is over", may_return=False))
        self._context.recorder.event("end", rounds=max(self._grants.held.values()) + 1)
        if not self._finished.done():
            self._finished.set_result(None)
