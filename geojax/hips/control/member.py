"""A member's side of the membership protocol (see :mod:`geojax.hips.roles.scheduler`)."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np

from geojax.awareness.link_meter import LinkMeter
from geojax.awareness.views import OUT_AFTER_S
from geojax.errors import Expelled, GeojaxError, Refused, SchedulerLost, WaitTimeout
from geojax.hips.cluster import SCHEDULER, WAN_GROUP
from geojax.hips.context import NodeContext
from geojax.hips.control import messages
from geojax.hips.control.channel import ControlChannel
from geojax.hips.control.heartbeats import Heartbeats
from geojax.hips.control.member_grant import MemberGrant
from geojax.hips.control.requests import Requests, ServiceHost
from geojax.hips.control.state_inbox import StateInbox
from geojax.hips.exchange.base import Exchange
from geojax.hips.exchange.cuts import Cut
from geojax.hips.routing.multipath import MultipathSender
from geojax.hips.routing.source_routes import unpacked_table
from geojax.machine.waits import wait_for
from geojax.overlay.policy.policy import Policy
from geojax.sync.service import Service
from geojax.wire.message import Kind, Message
from geojax.wire.priority import PROBE_PRIORITY
from geojax.wire.transport import Lost, Received, deliver

T = TypeVar("T")
log = logging.getLogger("geojax.member")


class Start(NamedTuple):
    """How a member begins.

    Attributes:
      at: loop time at which it starts.
      time: experiment time then.
      last: for a member that comes back, the last round that is done; None: the run begins.
      initial_from: who sends the initial vector, if this member's is not the one that counts.
      initial_to: the members that this one sends it to.
      steps: local steps that a member which comes back is known to have taken.
    """

    at: float
    time: float
    last: int | None
    initial_from: str | None = None
    initial_to: tuple[str, ...] = ()
    steps: int | None = None


def _nobody_serves(centers: Sequence[str], number: int) -> None:
    raise GeojaxError(f"{', '.join(centers)} want the state after round {number} from no server")


def _wake(waiting: asyncio.Future[None], _: object = None) -> None:
    if not waiting.done():
        waiting.set_result(None)


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
        self.me, self._context, self._lan_rounds = context.name, context, lan_rounds
        self._engines, self._multipath, self._meter = engines, multipath, meter
        self._main_group = min(engines)
        main, timeouts = engines[self._main_group], context.setup.config.timeouts
        self._channel = ControlChannel(context, lambda: main.gate.epoch)
        self._holds = holds
        self._grant = MemberGrant(timeouts, holds or (lambda: main.held), self._heartbeat)
        loop = asyncio.get_running_loop()
        self._started: asyncio.Future[Start] = loop.create_future()
        self._back: Start | None = None  # the last one that this member, which is back, was told
        self._told_again: asyncio.Future[None] = loop.create_future()
        self._end: asyncio.Future[None] = loop.create_future()
        self._done = False  # it has said so
        self._beats = Heartbeats(self.me, timeouts, self._heartbeat, self._end.done)
        self._progress = 0  # of all members, where they make rounds of their own
        self._digests: dict[int, str] = {}
        self._handlers: dict[type[messages.ControlMessage], Any] = {
            messages.Start: self._on_start,
            messages.Return: self._on_return,
            messages.Beat: self._on_beat,
            messages.NewPolicy: self._on_policy,
            messages.Prepare: self._on_prepare,
            messages.Resume: self._on_resume,
            messages.Routes: self._on_routes,
            messages.Probe: self._on_probe,
            messages.Keep: self._on_keep,
            messages.End: self._on_end,
            messages.Expel: self._on_expel,
            messages.Answer: self._on_answer,
        }
        self._asked: dict[str, Requests] = {}
        self._host: ServiceHost | None = None
        self._died: set[str] = set()  # since this local server's services knew their members last
        if services:
            self._host = ServiceHost(
                services, say=self._channel.say, refuse=self._channel.refuse,
                recorder=context.recorder,
            )  # fmt: skip
            self._handlers[messages.Request] = self._host.take
        self._silences: dict[tuple[int, ...], float] = {}
        self._refused_in: dict[str, int] = {}  # peer: the epoch in which it was complained about
        self._channel.on_refused = self._on_refused
        for engine in engines.values():
            engine.gate.on_refused, engine.gate.on_owed = self._on_refused, self._on_owed
        if multipath is not None:
            multipath.on_refused = self._on_refused
        self.has_state = False
        self.states = StateInbox(timeouts, partial(self._refuse, Kind.STATE))
        self.on_state_wanted: Callable[[Sequence[str], int], None] = _nobody_serves
        self.on_keep: Callable[[Cut, int], None]
        self.position: Callable[[], int | None] = lambda: None
        self.counted: Callable[[int | None], int] = lambda _: -1

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
        engine, timeouts = self._engines[self._main_group], self._context.setup.config.timeouts
        self._say(messages.Join(elements, tuple(engine.sizes), tuple(engine.layers), digest))
        try:
            started = await wait_for(
                self._started,
                describe=lambda: "start of the run from the scheduler",
                timeout=timeouts.start + timeouts.dead,
                warn=timeouts.warn,
            )
        except WaitTimeout as error:
            raise SchedulerLost(f"{self.me}: {error}") from error
        self._beats.start()
        return started

    async def caught_up(self, whole: Callable[[int], Awaitable[T]]) -> tuple[Start, T]:
        """How this member, which is back, begins at last, and what there is after that round.

        Args:
          whole: waits for what there is after a round. If those that held the round die, the
            member is told of another one.
        """
        while True:
            assert self._back is not None
            start, woken = self._back, asyncio.get_running_loop().create_future()
            assert start.last is not None
            self._told_again = woken
            came = asyncio.ensure_future(whole(start.last))
            came.add_done_callback(partial(_wake, woken))
            try:
                await woken
                if came.done():
                    return start, came.result()
            finally:
                came.cancel()

    async def granted(self, number: int) -> bool:
        """Waits for the grant of a round; false when the run ends before it.

        Where what this member holds does not follow from the rounds of its main group, it is the
        round of the WAN after that, whichever ``number`` its own has.
        """
        return await self._grant.reaches(number if self._holds is None else self._holds() + 1)

    def asks(self, host: str) -> Requests:
        """This member's questions to the services of a node."""
        if host not in self._asked:
            say = partial(self._channel.say, host)
            self._asked[host] = Requests(host, say, self._context.setup.config.timeouts)
        return self._asked[host]

    async def request(
        self, service: str, question: Mapping[str, Any], *, host: str = SCHEDULER
    ) -> Mapping[str, Any]:
        """Asks a service; see :meth:`geojax.hips.control.requests.Requests.request`."""
        return await self.asks(host).request(service, question)

    @property
    def workers(self) -> list[str]:
        """The living workers that this local server has on its LAN."""
        policies = [e.policy for group, e in self._engines.items() if group != WAN_GROUP]
        names = [n for policy in policies if policy is not None for n in policy.members]
        return [name for name in names if name != self.me]

    def tell_workers(self, cut: Cut, number: int) -> None:
        """A cut has the states of this center after a round: its workers keep theirs."""
        for name in self.workers:
            self._channel.say(name, messages.Keep(cut.number, cut.time, number))

    def report_digest(self, number: int, digest: str) -> None:
        """Sends a digest of the parameters after round ``number`` with the next heartbeat."""
        self._digests[number] = digest

    async def finish(self) -> None:
        """Says that this member is done, and stays to help others until everybody is."""
        timeouts = self._context.setup.config.timeouts
        if self._digests:
            self._heartbeat()
        self._done = True
        self._say(messages.Done(self._held))
        while not self._end.done():
            progress = self._progress
            try:
                await wait_for(
                    asyncio.shield(self._end),
                    describe=lambda: "end of the run from the scheduler",
                    timeout=timeouts.round,
                    warn=timeouts.warn,
                )
            except WaitTimeout:
                if progress == self._progress:  # else slower members are still at work
                    raise

    async def ended(self) -> None:
        """Waits until the run is over, or this task is cancelled as the scheduler is gone.

        For a global server, which no round tells that it is the last one.
        """
        await self._end

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
            self._refuse(Kind.PROBE, item.peer, "nobody told it to time this link")

    def _on_chunk(self, peer: str, message: Message) -> None:
        if self._multipath is not None:
            taken = self._multipath.take(peer, message)
            if taken is None:
                return
            peer, message = taken
        engine = self._engines.get(message.group)
        if engine is None:
            self._refuse(message.kind, peer, f"no exchange of group {message.group}")
        else:
            engine.handle(peer, message)

    def _on_lost(self, item: Lost) -> None:
        if item.peer == SCHEDULER:
            if self._done and item.goodbye:
                self._on_end(SCHEDULER, messages.End())  # it left when all were done
            if not self._end.done():
                raise SchedulerLost(f"{self.me}: the scheduler is gone: {item.reason}")
            return
        if self._multipath is not None:
            self._multipath.lose(item.peer)
        self._context.recorder.event("lost", peer=item.peer)
        self._say(messages.LostPeer(item.peer, item.reason[:1000]))

    def _refuse(self, kind: Kind, peer: str, why: str) -> None:
        """Names who made a message that no exchange gets to see."""
        self._context.recorder.event("refused", peer=peer, kind=kind.name, why=why)
        log.warning("%s: refused %s from %s: %s", self.me, kind.name, peer, why)
        self._on_refused(peer, why)

    def _on_refused(self, peer: str, why: str) -> None:
        """Tells the scheduler of a refused message, once an epoch for each peer.

        See :class:`geojax.hips.exchange.base.Gate`.
        """
        epoch = self._engines[self._main_group].gate.epoch
        mates = self._context.setup.cluster.members
        if peer in mates and self._refused_in.get(peer, -1) < epoch:
            self._refused_in[peer] = epoch
            self._say(messages.LostPeer(peer, f"refused: {why}"[:1000], refused=True))

    def _on_owed(self, peer: str, what: str, accuses: bool) -> None:
        """Tells the scheduler of what does not come, and perhaps for no fault of the peer."""
        if peer in self._context.setup.cluster.members:
            self._say(messages.LostPeer(peer, what[:1000], refused=accuses or None, silent=True))

    def _on_start(self, _: str, told: messages.Start) -> None:
        self._check_policies(told.policies)
        self._learn_cut(told)
        for group, policy in told.policies.items():
            engine = self._engine(group)
            engine.resume(told.epoch, policy, held=engine.held)
        self._begin_requests(told.epoch)
        self.states.begin(told.epoch, told.initial_from)
        if not self._started.done():
            start = Start(told.at, told.time, None, told.initial_from, told.initial_to)
            self._started.set_result(start)

    def _on_return(self, _: str, told: messages.Return) -> None:
        """Starts, or goes on in another epoch that has begun before this member had its state."""
        self._check_policies(told.policies)
        self._learn_cut(told)
        held = dict(told.held)
        if self._main_group in held:
            held[self._main_group] = max(held[self._main_group], self.counted(told.steps))
        for group, policy in told.policies.items():
            engine = self._engine(group)
            # A worker gets the round itself from its local server, if its group has common ones.
            lacks = self._main_group != WAN_GROUP and engine.replicas
            after = max(-1, held[group] - lacks)
            if not self.has_state or engine.held < after:
                engine.skip_to(after)
            source = policy.trees[0].root if lacks else None
            engine.resume(told.epoch, policy, held=held[group], source=source)
        self._begin_requests(told.epoch)
        self.states.begin(told.epoch, told.state_from, held.get(WAN_GROUP, -1))
        last = held.get(self._main_group, -1)
        self._back = Start(told.at, told.time, last, steps=told.steps)
        if not self._started.done():
            self._started.set_result(self._back)
        else:
            _wake(self._told_again)

    def _on_answer(self, peer: str, said: messages.Answer) -> None:
        if peer not in self._asked:
            raise Refused(f"answer.number: nothing was asked of {peer}")
        self._asked[peer].take(peer, said)

    def _begin_requests(self, epoch: int) -> None:
        """Numbers of this member's requests are new ones, and its own host's members are known."""
        for requests in self._asked.values():
            requests.begin(epoch)
        self._know_askers(epoch)

    def _know_askers(self, epoch: int) -> None:
        """The workers that may ask the services of this local server."""
        if self._host is not None:
            self._host.members(self.workers, epoch, back=self._died)
            self._died.clear()

    def _learn_cut(self, told: messages.Start | messages.Return) -> None:
        self._take_grant(told.until, final=told.final)
        if told.sizes is not None and told.layers is not None:
            self._engines[self._main_group].learn(told.sizes, told.layers)

    def _on_beat(self, _: str, beat: messages.Beat) -> None:
        self._progress = beat.progress or 0
        self._take_grant(max(self._grant.until, beat.until), final=beat.final)

    def _take_grant(self, until: int, *, final: bool) -> None:
        if WAN_GROUP in self._engines:
            self._engines[WAN_GROUP].grant(until)
        self._grant.take(until, final=final)

    def _on_policy(self, _: str, told: messages.NewPolicy) -> None:
        self._check_policies(told.policies)
        for group, policy in told.policies.items():
            engine = self._engine(group)
            known = engine.policy if engine.gate.epoch == told.epoch else None
            if known is not None and policy.version <= known.version:
                raise Refused(f"policy of group {group}: version {policy.version} is no later one")
        for group, policy in told.policies.items():
            engine = self._engine(group)
            if engine.gate.epoch == told.epoch:
                engine.change(told.first, policy)

    def _on_prepare(self, _: str, told: messages.Prepare) -> None:
        self._died |= {*told.dead}
        for engine in self._engines.values():
            engine.freeze(told.epoch)
        if self._multipath is not None:
            self._multipath.change(told.epoch)
        dead = f"; dead: {', '.join(told.dead)}" if told.dead else ""
        log.warning("%s: membership epoch %d begins%s", self.me, told.epoch, dead)
        held = {group: engine.held for group, engine in self._engines.items()}
        keeps = {group: engine.keeps for group, engine in self._engines.items()}
        self._say(messages.Report(told.epoch, held, keeps, self.has_state))

    def _on_resume(self, _: str, told: messages.Resume) -> None:
        self._check_policies(told.policies)
        for group, policy in told.policies.items():
            engine = self._engine(group)
            if told.epoch == engine.gate.epoch:
                source, held = (told.source or {}).get(group), told.held[group]
                engine.resume(
                    told.epoch, policy, held=held, lacking=told.lacking.get(group, ()),
                    source=source,
                )  # fmt: skip
                if source is not None:  # it says that it holds the round
                    promised = Message(Kind.AGGREGATE, group=group, epoch=told.epoch, round=held)
                    engine.gate.owes(source, promised)
        self._know_askers(told.epoch)
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
        epoch = max(self._engines[self._main_group].gate.epoch, 0)
        content = np.zeros(probe.bytes, np.uint8)
        message = Message(Kind.PROBE, group=self._main_group, epoch=epoch, payload=content)
        path = self._multipath or self._context.transport
        for _number in range(probe.count):
            path.send(probe.peer, message, PROBE_PRIORITY)

    def _on_keep(self, peer: str, told: messages.Keep) -> None:
        me = self._context.setup.cluster.node(self.me)
        if me.role != "worker" or peer != me.center:
            raise Refused(f"keep: {peer} is not the local server of {self.me}")
        self.on_keep(Cut(told.cut, told.time), told.round)

    def _on_end(self, _: str, __: messages.End) -> None:
        if not self._end.done():
            self._end.set_result(None)

    def _on_expel(self, _: str, told: messages.Expel) -> None:
        if told.may_return and not self._started.done():
            return  # it was said to this node's life before; this one asks to come back
        text = f"{self.me} was expelled from the run: {told.reason}"
        raise Expelled(text, may_return=told.may_return)

    def _check_policies(self, policies: Mapping[int, Policy]) -> None:
        """Raises ``Refused`` if this member cannot go by one of these; then it goes by none."""
        nodes = self._context.setup.cluster.members
        for group, policy in policies.items():
            engine, where = self._engine(group), f"policy of group {group}"
            unknown = {*policy.members, *policy.passive} - {*nodes}
            if unknown:
                raise Refused(f"{where}: no node is called {min(unknown)}")
            if self.me not in (*policy.members, *policy.passive):
                raise Refused(f"{where}: {self.me} has no part in it")
            if policy.fixed and engine.sizes and len(policy.fixed) != len(engine.sizes):
                raise Refused(
                    f"{where}: expected trees of {len(engine.sizes)} chunks, came those of "
                    f"{len(policy.fixed)}"
                )

    def _engine(self, group: int) -> Exchange:
        engine = self._engines.get(group)
        if engine is None:
            raise Refused(f"{self.me} is no member of group {group}")
        return engine

    def _silence(self, sizes: tuple[int, ...]) -> float:
        """So long an honest peer may send nothing although it owes something, s.

        That is a fifth of ``timeouts.round``; or, where it is more, four times what vectors for all
        members take over the slowest link: others may be before it, and links may be slower than
        when the run started.
        """
        if sizes not in self._silences:
            setup = self._context.setup
            view, members = setup.view, len(setup.cluster.members)
            rates = [*view.rate.values(), *view.egress.values(), *view.ingress.values()]
            whole = 4 * members * 32 * sum(sizes) / min(rates, default=math.inf)
            self._silences[sizes] = max(setup.config.timeouts.round / 5, whole)
        return self._silences[sizes]

    # ---- what goes out

    def _heartbeat(self) -> None:
        timeouts = self._context.setup.config.timeouts
        for engine in self._engines.values():
            engine.gate.expire(2 * timeouts.dead, self._silence(engine.sizes))
        self.states.expire(2 * timeouts.dead)
        digests, self._digests = tuple(self._digests.items()) or None, {}
        links = None if self._meter is None else self._meter.links()
        sent = None if self._meter is None else self._meter.sent()
        self._say(messages.Heartbeat(self._held, digests, links, sent, self.position()))

    @property
    def _held(self) -> int:
        """The last whole round that it holds; a worker's follows from its LAN rounds, if common."""
        if self._holds is not None:
            return self._holds()
        held = self._engines[self._main_group].held
        return held if self._main_group == WAN_GROUP else (held + 1) // self._lan_rounds - 1

    def close(self) -> None:
        """Stops the heartbeats."""
        self._beats.stop()

    def _say(self, said: messages.ControlMessage) -> None:
        self._channel.say(SCHEDULER, said)
