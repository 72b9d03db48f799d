"""The scheduler: membership, epochs, policies and grants. It never carries parameters.

Messages are CONTROL bodies with a ``type``. Policies are their payload (see
:mod:`geojax.hips.control.policy_messages`), since hundreds of trees are more than a body may hold:

=============  =====================  ============================================================
type           direction              says
=============  =====================  ============================================================
join           member → scheduler     I am compiled and ready; elements of my vector, how it is cut
start          scheduler → members    epoch, first grant, the instant of time 0; to global servers
                                      also how vectors are cut; payload: the policies
heartbeat      member → scheduler     the last round that I hold; now and then my parameters'
                                      digest; what I measured of links
beat           scheduler → member     the grant so far, and whether it is final
probe          scheduler → member     send so many bytes to a peer, to time the link
policy         scheduler → members    in this epoch, rounds from ``first`` on go by another policy
                                      of the WAN; payload: the policy
lost           member → scheduler     my connection to a peer ended
prepare        scheduler → members    stop: the membership changes to this epoch
report         member → scheduler     the last round that I hold in each of my groups
resume         scheduler → members    go on: last round held by anybody, to whom you send it;
                                      payload: the policies
start          scheduler → returned   the same, for members that come back after they were dead
routes         scheduler → members    where the run has auxiliary routes: yours, as payload
done           member → scheduler     I hold the last granted round (never of a global server)
end            scheduler → members    everybody is done
expelled       scheduler → member     the run goes on without you
=============  =====================  ============================================================

**Policies by round.** Every plan has a version, higher than all before. A new policy of the WAN
takes effect from the furthest round on that anybody has been granted; every member is sent it
before any ``beat`` that grants that round, and what is sent between two nodes keeps its order. So a
member knows the policy of every round that it may begin; no round has two, and nobody waits for
anybody. Where plans may change, grants reach only two rounds ahead, and one where rounds are long.

**Plans** are made in a process of their own while messages are answered and rounds go on. The run
waits for one at its start, for ``timeouts.start`` at most, and when the membership changes, for
``timeouts.round``. Beside that, when the view of the WAN has changed, one plan at a time is made
and estimated beside the present policy on the same view (:mod:`geojax.overlay.policy.estimate`); it
is taken if it saves more than ``overlay.hysteresis`` of the time. A plan for an epoch that is over
when it comes is dropped. If a policy that rounds go by needs a link that is out (either way,
:func:`geojax.overlay.routes.static_routes.two_way`), and the new plan does not, a new epoch begins
at once, so that the round that is stuck runs again along other links; else it waits for the link.

Control messages take static routes, as IP's are; with ``wan.server_center=external`` they have
links of their own. Where these are cut, a member falls silent and is dead after ``timeouts.dead``
unless the link comes back before. Where just the way to it is cut, it is heard all the same, but
learns of no new epoch: who owes a report on one is dead after ``timeouts.dead``, too.

Global servers on a site of their own only merge. No change waits for what they hold, since only
centers keep rounds, and the end waits for nothing of theirs. Where centers exchange with global
servers at paces of their own (*independent*), every center has rounds and a grant of its own: then
no round is run again when the membership changes, nobody's parameters are compared, the global
servers stay where they are (see :func:`geojax.overlay.planners.keep_roots.keep_roots`), and no plan
is made but for a new membership.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from geojax.awareness.probing import Awareness
from geojax.awareness.views import WanView
from geojax.config import RunConfig
from geojax.errors import GeojaxError, WaitTimeout
from geojax.hips.cluster import WAN_GROUP, Cluster
from geojax.hips.control.failure_detector import FailureDetector
from geojax.hips.control.grants import Grants
from geojax.hips.control.joining import JoinBarrier, senders
from geojax.hips.control.policies import Policies, Propose
from geojax.hips.control.policy_messages import packed_policies
from geojax.hips.control.recovery import Report, StateTransfer, pairs, recover_all, sources
from geojax.hips.control.replica_check import ReplicaCheck
from geojax.hips.routing.path_tables import PathTables, PlanTables
from geojax.hips.storage.checkpoint import START, ResumePoint
from geojax.machine.machine import Machine
from geojax.machine.waits import wait_for
from geojax.overlay.policy.cutting import unpacked
from geojax.overlay.policy.planning import Proposal
from geojax.overlay.policy.policy import Policy
from geojax.overlay.routes.static_routes import two_way
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import Kind, Message
from geojax.wire.transport import Lost, Received, Transport

log = logging.getLogger("geojax.scheduler")
CONTROL_PRIORITY = -1  # before every chunk
_LEAD_S = 0.5  # from the start message to experiment time 0


class Scheduler:
    """The scheduler of one run.

    Args:
      config: the run.
      cluster: all its nodes.
      transport: its own transport.
      machine: makes the plans.
      recorder: takes the events.
      propose: plans the policy of the WAN group, and estimates it.
      replans: whether plans depend on what is believed about rates, and may change between rounds.
      view: what the WAN is believed to be; it takes what members measure.
      plan_tables: plans the centers' path tables; None: the run has no auxiliary routes.
      clock: experiment time.
      resume: where the run goes on, if it continues a broken one.
      lan_rounds: exchanges within a center in one round.
      enough: whether the run has reached its target and may end.
      independent: centers go at paces of their own, see the module's docstring.
      awareness: follows the view and has links probed, where that is what was measured.
    """

    def __init__(
        self,
        config: RunConfig,
        cluster: Cluster,
        *,
        transport: Transport,
        machine: Machine,
        recorder: Recorder,
        propose: Propose,
        replans: bool = False,
        wan_view: WanView,
        plan_tables: PlanTables | None = None,
        clock: Clock,
        resume: ResumePoint = START,
        lan_rounds: int = 1,
        independent: bool = False,
        enough: Callable[[], bool] = lambda: False,
        awareness: Awareness | None = None,
    ):
        self._config, self._cluster, self._transport = config, cluster, transport
        self._recorder = recorder
        self._clock, self._wan_view, self._replans = clock, wan_view, replans
        self._awareness = awareness
        self._policies = Policies(cluster, machine, wan_view, propose)
        self._tables = PathTables(
            plan_tables, machine, wan_view, names=cluster.servers, start=self._in_background,
            send=lambda name, message: transport.send(name, message, CONTROL_PRIORITY),
        )  # fmt: skip
        self._planned: dict[int, Policy] | None = None  # for the epoch that begins
        self._outage = False  # it begins since a link is out
        self._considered = -1  # revision of the view that was planned for last
        self._comparing = False
        self._tasks: list[asyncio.Task[None]] = []
        self._loop = asyncio.get_running_loop()
        self._alive: tuple[str, ...] = cluster.members
        self._join_barrier = JoinBarrier(cluster, config.timeouts)
        self._failure_detector = FailureDetector(
            config.timeouts, lambda: self._alive, self._declare_silent_dead
        )
        self._reports: dict[str, Report] = {}
        self._replicas = ReplicaCheck()
        self._done: set[str] = set()
        self._returning: dict[str, None] = {}  # joined again, not admitted yet
        self._refused_in: dict[str, int] = {}  # member: the first epoch in which it was refused
        self._stateless: dict[str, None] = {}  # admitted, have no parameters yet
        self._changing = False
        self._ended = False
        self._independent, self._enough = independent, enough
        self._first = resume.round + 1
        self._grants = Grants(
            config, cluster, first=self._first, independent=independent, replans=replans
        )
        self._state_transfer = StateTransfer()
        self._resume_time, self._lan_rounds = resume.time, lan_rounds
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._running = False
        self.epoch = 0

    # ---- the run

    async def run(self) -> None:
        """Runs until every living member holds the last round.

        Raises:
          WaitTimeout: not all nodes joined in time; names the missing ones.
          GeojaxError: no member is left, or the members' vectors or parameters differ.
        """
        self._in_background(self._pump())
        try:
            await self._join_barrier.gather()
            self._considered = self._wan_view.revision
            planned = await self._plan(self._config.timeouts.start)
            if not self._finished.done():  # it has failed in the meantime
                self._start(planned)
            await self._finished
        finally:
            self._ended = True
            for task in self._tasks:
                task.cancel()

    def _start(self, planned: dict[int, Policy]) -> None:
        self._policies.begin(planned)
        now = self._loop.time()
        self._running = True
        initial = senders(self._join_barrier.digests, self._alive, self._cluster)
        if initial:
            log.warning("initial parameters of %s differ: the master's count", ", ".join(initial))
            self._recorder.event("initial", at=self._resume_time, sources=initial)
        if initial and (self._independent or self._first):
            raise GeojaxError(
                f"{', '.join(initial)} begin with other parameters than the first center, and only "
                "a synchronous run can mend that, at its start"
            )
        self._clock.start_at(now + _LEAD_S, self._resume_time)
        self._tables.tell(planned[WAN_GROUP])
        for name in self._alive:
            self._failure_detector.hear(name)
            self._say(
                name,
                "start",
                self._policies.of(name),
                epoch=self.epoch,
                **self._grants.told(name),
                at=now + _LEAD_S,
                time=self._resume_time,
                initial_from=initial.get(name),
                initial_to=[other for other, source in initial.items() if source == name],
                **self._policies.told_cut(name),
            )
        self._recorder.event(
            "start",
            at=self._resume_time,
            members=list(self._alive),
            elements=max(self._join_barrier.elements.values()),  # global servers have none
            policies=self._policies.described(),
        )
        self._policies.record_loads(self._recorder, self._resume_time)
        self._failure_detector.watch()

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Does something beside the run, which ends with an error if it does."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._task_ended)

    async def _pump(self) -> None:
        while True:
            item = await self._transport.receive()
            if isinstance(item, Lost):
                self._on_lost(item)
            else:
                self._on_message(item)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Ends :meth:`run` with an error, in whichever phase it is."""
        self._ended = True
        if not self._join_barrier.fail(error) and not self._finished.done():
            self._finished.set_exception(error)

    # ---- what members say

    def _on_message(self, item: Received) -> None:
        body = item.message.body or {}
        kind, name = body.get("type"), item.peer
        if item.message.kind is not Kind.CONTROL or kind is None:
            log.warning("refused a %s message from %s", item.message.kind.name, name)
            return
        if kind == "join" and self._running:
            self._on_return(name, body)
            return
        if name not in self._alive:
            self._say(name, "expelled", reason="it was declared dead")
            return
        self._failure_detector.hear(name)
        handlers = {
            "join": self._on_join,
            "heartbeat": self._on_heartbeat,
            "lost": self._on_complaint,
            "report": self._on_report,
            "done": self._on_done,
        }
        handler = handlers.get(kind)
        if handler is None:
            log.warning("refused a control message of unknown type %r from %s", kind, name)
            return
        handler(name, body)

    def _on_join(self, name: str, body: Mapping[str, Any]) -> None:
        if name in self._cluster.servers:
            self._policies.cut = unpacked(body["sizes"]), unpacked(body["layers"])
        self._join_barrier.take(name, body)

    def _on_heartbeat(self, name: str, body: Mapping[str, Any]) -> None:
        self._wan_view.take(name, body.get("links", ()), self._clock())
        self._reconsider()
        if not (self._changing or self._ended) and self._tables.review():
            self._change(())  # a link of a route is out: what is on it runs again
        if self._enough():
            self._grants.finish()
        if name not in self._cluster.global_servers:
            held = self._grants.held
            self._grants.note(name, max(held.get(name, -1), int(body["held"])))
        self._grants.extend(name, self._clock())
        if self._independent:
            progress = sum(self._grants.held.values())
            self._say(name, "beat", **self._grants.told(name), progress=progress)
            return
        for number, digest in body.get("digests", ()):
            self._replicas.take(name, int(number), str(digest), self._centers)
        self._say(name, "beat", **self._grants.told(name))
        self._probe(name, body)

    def _probe(self, name: str, body: Mapping[str, Any]) -> None:
        """Has links probed of which too little is known; not while the membership changes."""
        if self._awareness is None or "sent" not in body or self._changing:
            return
        probes = self._awareness.heard(name, int(body["sent"]), self._grants.highest, self._alive)
        for probe in probes:
            self._say(probe.source, "probe", peer=probe.target, bytes=probe.nbytes,
                      count=probe.count)  # fmt: skip

    def _on_complaint(self, name: str, body: Mapping[str, Any]) -> None:
        """A connection ended. If its peer lives on, what was on its way is sent again.

        So it is if the peer sent what makes no sense (``refused``); if it does so again in a later
        epoch, it is declared dead.
        """
        peer, epoch = str(body["peer"]), self.epoch
        lies = body.get("refused") and not self._ended and peer in self._alive
        if lies and self._refused_in.setdefault(peer, epoch) < epoch:
            self._declare_dead((peer,), f"{name}: {body.get('reason')}")
            return

        def again() -> None:
            both_live = name in self._alive and peer in self._alive
            if both_live and epoch == self.epoch and not self._ended:
                log.warning("%s complains about %s, which lives: new epoch", name, peer)
                self._change(())

        self._loop.call_later(self._config.timeouts.dead, again)

    def _on_done(self, name: str, body: Mapping[str, Any]) -> None:
        self._grants.note(name, int(body["held"]))
        self._done.add(name)
        self._check_end()

    def _check_end(self) -> None:
        awaited = set(self._alive) - set(self._cluster.global_servers)
        if self._changing or self._ended or not awaited <= self._done:
            return
        self._ended = True
        for name in self._alive:
            self._say(name, "end")
        for name in self._returning:
            self._say(name, "expelled", reason="the run is over")
        self._recorder.event("end", rounds=max(self._grants.held.values()) + 1)
        if not self._finished.done():
            self._finished.set_result(None)

    # ---- policies

    def _reconsider(self) -> None:
        """Plans anew, beside the run, if what is believed about the WAN has changed."""
        busy = self._comparing or self._changing or self._ended
        if self._replans and not busy and self._wan_view.revision != self._considered:
            self._considered, self._comparing = self._wan_view.revision, True
            self._in_background(self._compare(self.epoch))

    async def _compare(self, epoch: int) -> None:
        held = min(self._grants.held.get(name, -1) for name in self._centers)
        proposal = await self._policies.compare(self._alive, held)
        self._comparing = False
        if epoch == self.epoch and not self._ended:
            self._decide(proposal)
        self._reconsider()

    def _decide(self, proposal: Proposal) -> None:
        """Takes a plan or leaves it, see the module's docstring."""
        present, view = proposal.present_s[-1], two_way(self._wan_view.view())
        cut = any(map(math.isinf, proposal.present_s))
        cut = cut or self._state_transfer.cut(self._grants.held, view)
        if cut and not math.isinf(proposal.seconds):
            log.warning("a link that the round needs is out: new epoch")
            self._change((), wan=proposal.policy)
        elif present - proposal.seconds > self._config.overlay.hysteresis * present:
            self._change_policy(proposal.policy)

    def _change_policy(self, policy: Policy) -> None:
        first = self._grants.common.until
        if self._grants.common.final:  # no round will go by it
            return
        self._policies.change(first, policy)
        for name in self._cluster.groups(self._alive)[WAN_GROUP]:
            self._say(name, "policy", {WAN_GROUP: policy}, epoch=self.epoch, first=first)
        self._tables.tell(policy)
        self._policies.record(self._recorder, first, "rates")
        self._policies.record_loads(self._recorder)

    # ---- membership

    def _on_lost(self, item: Lost) -> None:
        if item.peer in self._alive and not self._ended:
            self._declare_dead((item.peer,), item.reason)

    def _declare_silent_dead(self, names: Sequence[str], reason: str) -> bool:
        try:
            if names and not self._ended:
                self._declare_dead(names, reason)
        except GeojaxError as error:
            self._fail(error)
        return not self._ended

    def _declare_dead(self, names: Sequence[str], reason: str) -> None:
        left = self._cluster.survivors(self._alive, names)
        gone = [name for name in self._alive if name not in left]
        log.warning("dead: %s (%s); left: %s", ", ".join(gone), reason, ", ".join(left) or "none")
        self._recorder.event("dead", nodes=gone)
        for name in gone:
            if name not in names:
                self._say(name, "expelled", reason=f"{', '.join(names)}: {reason}")
        if not self._running:
            raise GeojaxError(f"{', '.join(gone)} died before the run started: {reason}")
        if not set(left) & set(self._cluster.servers):
            raise GeojaxError(f"no member is left: {', '.join(gone)} died ({reason})")
        self._alive = left
        self._grants.keep(left)
        self._change(gone)

    def _on_return(self, name: str, body: Mapping[str, Any]) -> None:
        """A dead node has been started again. A center comes back whole, any other node alone."""
        if self._ended or int(body["elements"]) != self._join_barrier.elements[name]:
            self._say(name, "expelled", reason="the run is over, or its model is another one")
            return
        if name in self._alive:  # it was restarted before its death was noticed
            self._declare_dead((name,), "started again")
        self._returning[name] = None
        place = self._cluster.node(name)
        server = name if place.role == "global" else place.center
        center = (server, *self._cluster.workers(server))
        if server not in self._alive and not all(node in self._returning for node in center):
            return
        back = [node for node in center if node in self._returning]
        for node in back:
            del self._returning[node]
            self._stateless[node] = None
            self._failure_detector.hear(node)
            self._done.discard(node)
        self._alive = tuple(n for n in self._cluster.members if n in {*self._alive, *back})
        log.warning("back: %s; members: %s", ", ".join(back), ", ".join(self._alive))
        self._recorder.event("back", nodes=back)
        self._change(())

    def _change(self, dead: Sequence[str], wan: Policy | None = None) -> None:
        """Begins a new membership epoch: everyone stops and reports what it holds.

        Args:
          dead: who has died.
          wan: the new policy of the WAN, if it is there already.
        """
        self.epoch += 1
        self._changing, self._reports, self._planned = True, {}, None
        self._outage = wan is not None
        self._tables.begin(self.epoch)
        self._stateless = {name: None for name in self._stateless if name in self._alive}
        for name in self._alive:
            self._say(name, "prepare", epoch=self.epoch, dead=list(dead))
        self._failure_detector.ask(self._alive, f"report for epoch {self.epoch}")
        self._in_background(self._plan_for(self.epoch, wan))

    async def _plan_for(self, epoch: int, wan: Policy | None) -> None:
        if wan is None:
            self._considered = self._wan_view.revision
        try:
            planned = await self._plan(self._config.timeouts.round, wan)
        except WaitTimeout:
            if epoch == self.epoch:
                raise
            return  # nobody waits for it any more
        if epoch == self.epoch:
            self._planned = planned
            self._check_changed()

    async def _plan(self, timeout: float, wan: Policy | None = None) -> dict[int, Policy]:
        """Fresh policies that the run waits for; ``wan``: the one that is there already."""
        what = f"plan of epoch {self.epoch} for {len(self._alive)} members"
        return await wait_for(
            self._policies.plan(self._alive, wan), describe=lambda: what, timeout=timeout,
            warn=self._config.timeouts.warn,
        )  # fmt: skip

    def _on_report(self, name: str, body: Mapping[str, Any]) -> None:
        if int(body["epoch"]) != self.epoch or not self._changing:
            return
        self._failure_detector.answered(name)
        self._reports[name] = Report(
            {int(group): int(held) for group, held in body["held"].items()},
            {int(group): bool(keeps) for group, keeps in body["keeps"].items()},
        )
        if body["has_state"]:
            self._stateless.pop(name, None)
        self._check_changed()

    def _check_changed(self) -> None:
        """Ends the change when everyone has reported and the plan is there."""
        ready = all(member in self._reports for member in self._alive)
        if self._changing and ready and self._planned is not None:
            self._resume(self._planned)

    def _resume(self, planned: dict[int, Policy]) -> None:
        """Ends the change: who holds the last round sends it, everything later runs again."""
        if self._independent:
            planned = self._keep_servers(planned)
        self._policies.begin(planned)
        self._tables.tell(planned[WAN_GROUP])
        view = two_way(self._wan_view.view())
        found = recover_all(
            planned, self._reports, stateless=self._stateless, lan_rounds=self._lan_rounds,
            view=view, highest=self._grants.highest if self._independent else None,
        )  # fmt: skip
        wan = found[WAN_GROUP]
        servers = [name for name in self._stateless if name in self._cluster.servers]
        states = sources(servers, wan.able, view)
        self._state_transfer.begin(wan, states, view)
        for name in self._alive:
            mine = self._policies.of(name)
            fields = {
                "epoch": self.epoch,
                "held": {str(g): found[g].held for g in mine},
                "lacking": {str(g): found[g].sends[name] for g in mine if name in found[g].sends},
            }
            told = {
                str(g): sender for g in mine for sender, to in pairs(found[g].sends) if to == name
            }
            if told:
                fields["source"] = told
            if name in self._stateless:
                now = {"at": self._loop.time(), "time": self._clock()}
                cut = self._policies.told_cut(name)
                self._say(name, "start", mine, **fields, **self._grants.told(name), **now, **cut)
            else:
                self._say(name, "resume", mine, **fields, state_to=states.get(name, []))
        self._changing = False
        self._recorder.event(
            "epoch", epoch=self.epoch, members=list(self._alive), held=wan.held,
            policies=self._policies.described(),
        )  # fmt: skip
        if self._outage:
            self._policies.record(self._recorder, wan.held + 1, "outage")
        self._policies.record_loads(self._recorder)
        self._check_end()

    def _keep_servers(self, planned: dict[int, Policy]) -> dict[int, Policy]:
        """Leaves shards where they are, and has who comes back go on behind everyone."""
        before, after = (of[WAN_GROUP].members for of in (self._policies.groups, planned))
        rounds = {name: self._reports[name].held[WAN_GROUP] for name in before
                  if name in after and name not in self._stateless}  # fmt: skip
        self._grants.highest = max(self._grants.highest, *rounds.values(), -1)
        for name in self._stateless:
            if self._cluster.node(name).role == "server":
                self._grants.begin_anew(name, self._clock())
        holding = [name for name in self._alive if name not in self._stateless]
        return self._policies.with_kept_roots(planned, holding, rounds)

    # ---- helpers

    @property
    def _centers(self) -> list[str]:
        """The living centers."""
        return [name for name in self._cluster.servers if name in self._alive]

    def _say(
        self, name: str, kind: str, policies: Mapping[int, Policy] | None = None, **fields: Any
    ) -> None:
        payload = None if policies is None else packed_policies(policies)
        body = {"type": kind, **fields}
        message = Message(Kind.CONTROL, epoch=self.epoch, body=body, payload=payload)
        self._transport.send(name, message, CONTROL_PRIORITY)
