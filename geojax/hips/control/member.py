"""A member's side of the membership protocol (see :mod:`geojax.hips.roles.scheduler`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from geojax.awareness.link_meter import LinkMeter
from geojax.awareness.views import OUT_AFTER_S
from geojax.errors import Expelled, GeojaxError, Refused, SchedulerLost
from geojax.hips.cluster import SCHEDULER, WAN_GROUP
from geojax.hips.context import NodeContext
from geojax.hips.control import messages
from geojax.hips.control.channel import ControlChannel, Handlers
from geojax.hips.control.complaints import Complaints
from geojax.hips.control.heartbeats import Heartbeats
from geojax.hips.control.member_exchanges import MemberExchanges
from geojax.hips.control.member_grant import MemberGrant
from geojax.hips.control.member_services import MemberServices
from geojax.hips.control.requests import Requests
from geojax.hips.control.run_end import RunEnd
from geojax.hips.control.start_inbox import Start, StartInbox
from geojax.hips.control.state_inbox import StateInbox
from geojax.hips.exchange.base import Exchange, TakesOver
from geojax.hips.exchange.cuts import Cut
from geojax.hips.routing.multipath import MultipathSender
from geojax.hips.routing.source_routes import unpacked_table
from geojax.overlay.policy.policy import Policy
from geojax.sync.service import Service
from geojax.wire.message import Kind, Message
from geojax.wire.priority import PROBE_PRIORITY
from geojax.wire.transport import Lost, Received, deliver

T = TypeVar("T")
log = logging.getLogger("geojax.member")


def _nobody_serves(centers: Sequence[str], number: int) -> None:
    raise GeojaxError(f"{', '.join(centers)} want the state after round {number} from no server")


class Membership:
    """Joins, beats, holds grants, and follows changes of the membership.

    Args:
      context: its node; :meth:`pump` is the only reader of its transport.
      engines: the exchanges it takes part in, by group.
      lan_rounds: exchanges within a center in one round.
      multipath: through which the WAN's exchange sends, where the run has auxiliary routes.
      meter: times what arrives from the other members of the WAN group, for the heartbeats; None:
        the run does not measure links.
      services: that a local server has for the workers of its center.
      holds: the last round of the WAN that this member holds, where it does not follow from the
        rounds of its main group; None: it does.

    Attributes:
      has_state: whether this member has parameters; set by its role.
      states: gets the state of a peer, for a member that starts elsewhere or comes back.
      on_state_wanted: called with the centers that need the state after a round, and its number.
      on_keep: called on a worker with a cut that has its state after a round, and the round; set by
        its role.
      position: local steps that this member has taken, where they do not follow from the rounds;
        set by its role.
      counted: the last round of its main group that a member has behind it which comes back, by
        the local steps that it is known to have taken, where it counts rounds of its own; set by
        its role. It goes on behind that, or behind the round that it is told, if that is later.
    """

    def __init__(
        self,
        context: NodeContext,
        *,
        engines: Mapping[int, Exchange],
        lan_rounds: int = 1,
        multipath: MultipathSender | None = None,
        meter: LinkMeter | None = None,
        services: Mapping[str, Service] | None = None,
        holds: Callable[[], int] | None = None,
    ):
        self._context, self._multipath, self._meter = context, multipath, meter
        me, timeouts = self.me, context.setup.config.timeouts
        self._exchanges = MemberExchanges(me, engines, lan_rounds=lan_rounds, holds=holds)
        self._channel = ControlChannel(context, lambda: self._exchanges.epoch)
        self._grant = MemberGrant(
            timeouts, holds or (lambda: self._exchanges.main.held), self._heartbeat
        )
        self._starts, self._end = StartInbox(me, timeouts), RunEnd(timeouts)
        self._beats = Heartbeats(me, timeouts, self._heartbeat, lambda: self._end.over)
        self._digests: dict[int, str] = {}
        self._services = MemberServices(context, self._channel, services or {})
        self._handlers: Handlers = {
            messages.Start: self._on_start,
            messages.Return: self._on_return,
            messages.Beat: self._on_beat,
            messages.NewPolicy: self._on_policy,
            messages.Hold: self._on_hold,
            messages.TakeOver: self._on_take_over,
            messages.Prepare: self._on_prepare,
            messages.Resume: self._on_resume,
            messages.Routes: self._on_routes,
            messages.Probe: self._on_probe,
            messages.Keep: self._on_keep,
            messages.End: self._on_end,
            messages.Expel: self._on_expel,
            **self._services.handlers,
        }
        self._complaints = Complaints(context, self._say, lambda: self._exchanges.epoch)
        self._channel.on_refused = self._complaints.refused
        for engine in self._exchanges:
            engine.gate.on_refused = self._complaints.refused
            engine.gate.on_owed = self._complaints.owed
        if multipath is not None:
            multipath.on_refused = self._complaints.refused
        self.has_state = False
        self.states = StateInbox(timeouts, partial(self._complaints.refuse, Kind.STATE))
        self.on_state_wanted: Callable[[Sequence[str], int], None] = _nobody_serves
        self.on_keep: Callable[[Cut, int], None]
        self.position: Callable[[], int | None] = lambda: None
        self.counted: Callable[[int | None], int] = lambda _: -1

    @property
    def me(self) -> str:
        """This member's name."""
        return self._context.name

    @property
    def failed(self) -> asyncio.Future[None]:
        """Gets ``SchedulerLost`` when the scheduler has been silent for too long."""
        return self._beats.failed

    # ---- for the roles

    async def join(self, elements: int, digest: str | None = None) -> Start:
        """Says that this node is ready; returns when, and at which round, it starts.

        Args:
          elements: of its vector; 0 for a global server, which has none and learns from the
            scheduler how those of the others are cut.
          digest: of its initial vector; None: it has none.

        Raises:
          SchedulerLost: no start came in time.
        """
        main = self._exchanges.main
        self._say(messages.Join(elements, tuple(main.sizes), tuple(main.layers), digest))
        started = await self._starts.receive()
        self._beats.start()
        return started

    async def caught_up(self, whole: Callable[[int], Awaitable[T]]) -> tuple[Start, T]:
        """See :meth:`geojax.hips.control.start_inbox.StartInbox.caught_up`."""
        return await self._starts.caught_up(whole)

    async def granted(self, number: int) -> bool:
        """Waits for the grant of a round; false when the run ends before it.

        Where what this member holds does not follow from the rounds of its main group, it is the
        round of the WAN after that, whichever ``number`` its own has.
        """
        return await self._grant.reaches(self._exchanges.next_after(number))

    def asks(self, host: str) -> Requests:
        """This member's questions to the services of a node."""
        return self._services.asks(host)

    async def request(
        self, service: str, question: Mapping[str, Any], *, host: str = SCHEDULER
    ) -> Mapping[str, Any]:
        """Asks a service; see :meth:`geojax.hips.control.requests.Requests.request`."""
        return await self.asks(host).request(service, question)

    @property
    def workers(self) -> list[str]:
        """The living workers that this local server has on its LAN."""
        return self._exchanges.workers

    def tell_workers(self, cut: Cut, number: int) -> None:
        """A cut has the states of this center after a round: its workers keep theirs."""
        for name in self.workers:
            self._channel.say(name, messages.Keep(cut.number, cut.time, number))

    def report_digest(self, number: int, digest: str) -> None:
        """Sends a digest of the parameters after round ``number`` with the next heartbeat."""
        self._digests[number] = digest

    async def finish(self) -> None:
        """Says that this member is done, and stays to help others until everybody is."""
        if self._digests:
            self._heartbeat()
        self._end.said_done = True
        self._say(messages.Done(self._exchanges.held))
        await self._end.wait_for_others()

    async def ended(self) -> None:
        """Waits until the run is over, or this task is cancelled as the scheduler is gone.

        For a global server, which no round tells that it is the last one.
        """
        await self._end.wait()

    def pump(self) -> asyncio.Future[None]:
        """Reads the transport for ever and hands every message to its receiver.

        Returns:
          What gets ``Expelled`` when the scheduler has declared this member dead, and
          ``SchedulerLost`` when it is gone.
        """
        return deliver(self._context.transport, self._take, f"{self.me} pump")

    # ---- what comes in

    def _take(self, item: Received | Lost) -> None:
        if isinstance(item, Lost):
            self._on_lost(item)
            return
        if self._meter is not None:
            self._meter.arrived(item)
        message = item.message
        kind = message.kind
        if kind is Kind.CONTROL:
            if item.peer == SCHEDULER:
                self._beats.answered()
            self._channel.take(item, self._handlers)
        elif kind is Kind.STATE:
            self.states.take(item.peer, message)
        elif kind is not Kind.PROBE:  # which has done its work by coming
            self._on_chunk(item.peer, message)
        elif self._meter is None or message.contributors:
            self._complaints.refuse(Kind.PROBE, item.peer, "nobody told it to time this link")

    def _on_chunk(self, peer: str, message: Message) -> None:
        if self._multipath is not None:
            taken = self._multipath.take(peer, message)
            if taken is None:
                return
            peer, message = taken
        engine = self._exchanges.get(message.group)
        if engine is None:
            self._complaints.refuse(message.kind, peer, f"no exchange of group {message.group}")
        else:
            engine.handle(peer, message)

    def _on_lost(self, item: Lost) -> None:
        if item.peer == SCHEDULER:
            if self._end.said_done and item.goodbye:
                self._end.come()  # it left when all were done
            if not self._end.over:
                raise SchedulerLost(f"{self.me}: the scheduler is gone: {item.reason}")
            return
        if self._multipath is not None:
            self._multipath.lose(item.peer)
        self._complaints.lost(item.peer, item.reason)

    def _on_start(self, _: str, told: messages.Start) -> None:
        self._exchanges.check(told.policies, self._context.setup.cluster.members)
        self._learn_cut(told)
        for group, policy in told.policies.items():
            engine = self._exchanges.of(group)
            engine.resume(told.epoch, policy, held=engine.held)
        self._services.begin(told.epoch, self.workers)
        self.states.begin(told.epoch, told.initial_from)
        self._starts.begin(Start(told.at, told.time, None, told.initial_from, told.initial_to))

    def _on_return(self, _: str, told: messages.Return) -> None:
        """Starts, or goes on in another epoch that has begun before this member had its state."""
        self._exchanges.check(told.policies, self._context.setup.cluster.members)
        self._learn_cut(told)
        held, main = dict(told.held), self._exchanges.main_group
        if main in held:
            held[main] = max(held[main], self.counted(told.steps))
        for group, policy in told.policies.items():
            engine = self._exchanges.of(group)
            # A worker gets the round itself from its local server, if its group has common ones.
            lacks = main != WAN_GROUP and engine.replicas
            after = max(-1, held[group] - lacks)
            if not self.has_state or engine.held < after:
                engine.skip_to(after)
            source = policy.trees[0].root if lacks else None
            engine.resume(told.epoch, policy, held=held[group], source=source)
        self._services.begin(told.epoch, self.workers)
        self.states.begin(told.epoch, told.state_from, held.get(WAN_GROUP, -1))
        self._starts.come_back(Start(told.at, told.time, held.get(main, -1), steps=told.steps))

    def _learn_cut(self, told: messages.Start | messages.Return) -> None:
        self._take_grant(told.until, final=told.final)
        if told.sizes is not None and told.layers is not None:
            self._exchanges.main.learn(told.sizes, told.layers)

    def _on_beat(self, _: str, beat: messages.Beat) -> None:
        self._end.progress = beat.progress or 0
        self._take_grant(max(self._grant.until, beat.until), final=beat.final)

    def _take_grant(self, until: int, *, final: bool) -> None:
        wan = self._exchanges.get(WAN_GROUP)
        if wan is not None:
            wan.grant(until)
        self._grant.take(until, final=final)

    def _on_policy(self, _: str, told: messages.NewPolicy) -> None:
        self._check_later(told.epoch, told.policies)
        for group, policy in told.policies.items():
            engine = self._exchanges.of(group)
            if engine.gate.epoch == told.epoch:
                engine.change(told.first, policy)

    def _on_hold(self, _: str, told: messages.Hold) -> None:
        engine = self._taking_over()
        if told.epoch == self._exchanges.epoch and not self._exchanges.of(WAN_GROUP).gate.frozen:
            begun, lacks = engine.hold_back()
            offered = engine.has_offered(begun + 1)
            self._say(messages.Holding(told.epoch, told.version, begun, tuple(lacks), offered))

    def _on_take_over(self, _: str, told: messages.TakeOver) -> None:
        engine = self._taking_over()
        self._check_later(told.epoch, told.policies)
        if told.epoch == self._exchanges.epoch:
            engine.take_over(told.first, told.policies[WAN_GROUP], {*told.again})

    def _taking_over(self) -> TakesOver:
        engine = self._exchanges.of(WAN_GROUP)
        if not isinstance(engine, TakesOver):
            raise Refused("the rounds of this exchange go by no trees")
        return engine

    def _check_later(self, epoch: int, policies: Mapping[int, Policy]) -> None:
        """Raises ``Refused`` if the member cannot go by these policies after those that it has."""
        self._exchanges.check(policies, self._context.setup.cluster.members)
        for group, policy in policies.items():
            engine = self._exchanges.of(group)
            known = engine.policy if engine.gate.epoch == epoch else None
            if known is not None and policy.version <= known.version:
                raise Refused(f"policy of group {group}: version {policy.version} is no later one")

    def _on_prepare(self, _: str, told: messages.Prepare) -> None:
        self._services.died(told.dead)
        for engine in self._exchanges:
            engine.freeze(told.epoch)
        if self._multipath is not None:
            self._multipath.change(told.epoch)
        dead = f"; dead: {', '.join(told.dead)}" if told.dead else ""
        log.warning("%s: membership epoch %d begins%s", self.me, told.epoch, dead)
        held = {group: engine.held for group, engine in self._exchanges.items()}
        keeps = {group: engine.keeps for group, engine in self._exchanges.items()}
        self._say(messages.Report(told.epoch, held, keeps, self.has_state))

    def _on_resume(self, _: str, told: messages.Resume) -> None:
        self._exchanges.check(told.policies, self._context.setup.cluster.members)
        for group, policy in told.policies.items():
            engine = self._exchanges.of(group)
            if told.epoch == engine.gate.epoch:
                source, held = (told.source or {}).get(group), told.held[group]
                engine.resume(
                    told.epoch, policy, held=held, lacking=told.lacking.get(group, ()),
                    source=source,
                )  # fmt: skip
                if source is not None:  # it says that it holds the round
                    promised = Message(Kind.AGGREGATE, group=group, epoch=told.epoch, round=held)
                    engine.gate.owes(source, promised)
        self._services.resume(told.epoch, self.workers)
        self.states.begin(told.epoch)
        if told.state_to:
            self.on_state_wanted(told.state_to, told.held[WAN_GROUP])

    def _on_routes(self, _: str, told: messages.Routes) -> None:
        if self._multipath is None:
            raise Refused(f"{self.me} has no use for auxiliary routes")
        self._multipath.route_by(unpacked_table(told.table, self._multipath.names))

    def _on_probe(self, _: str, probe: messages.Probe) -> None:
        """Sends bytes to a peer, behind all chunks; none while the link to it stands still."""
        if self._context.transport.stalled(probe.peer) >= OUT_AFTER_S:
            return
        epoch = max(self._exchanges.epoch, 0)
        content = np.zeros(probe.bytes, np.uint8)
        message = Message(
            Kind.PROBE, group=self._exchanges.main_group, epoch=epoch, payload=content
        )
        path = self._multipath or self._context.transport
        for _number in range(probe.count):
            path.send(probe.peer, message, PROBE_PRIORITY)

    def _on_keep(self, peer: str, told: messages.Keep) -> None:
        me = self._context.setup.cluster.node(self.me)
        if me.role != "worker" or peer != me.center:
            raise Refused(f"keep: {peer} is not the local server of {self.me}")
        self.on_keep(Cut(told.cut, told.time), told.round)

    def _on_end(self, _: str, __: messages.End) -> None:
        self._end.come()

    def _on_expel(self, _: str, told: messages.Expel) -> None:
        if told.may_return and not self._starts.came:
            return  # it was said to this node's life before; this one asks to come back
        text = f"{self.me} was expelled from the run: {told.reason}"
        raise Expelled(text, may_return=told.may_return)

    # ---- what goes out

    def _heartbeat(self) -> None:
        timeouts = self._context.setup.config.timeouts
        for engine in self._exchanges:
            engine.gate.expire(2 * timeouts.dead, self._complaints.patience(engine.sizes))
        self.states.expire(2 * timeouts.dead)
        digests, self._digests = tuple(self._digests.items()) or None, {}
        links = None if self._meter is None else self._meter.links()
        sent = None if self._meter is None else self._meter.sent()
        self._say(messages.Heartbeat(self._exchanges.held, digests, links, sent, self.position()))

    def close(self) -> None:
        """Stops the heartbeats."""
        self._beats.stop()

    def _say(self, said: messages.ControlMessage) -> None:
        self._channel.say(SCHEDULER, said)
