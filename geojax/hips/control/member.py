"""A member's side of the membership protocol (see :mod:`geojax.hips.roles.scheduler`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from geojax.awareness.link_meter import LinkMeter
from geojax.awareness.views import OUT_AFTER_S
from geojax.config import TimeoutsConfig
from geojax.errors import Expelled, GeojaxError, SchedulerLost, WaitTimeout
from geojax.hips.cluster import SCHEDULER, WAN_GROUP
from geojax.hips.control.policy_messages import unpacked_policies
from geojax.hips.exchange.base import Exchange
from geojax.hips.roles.scheduler import CONTROL_PRIORITY
from geojax.hips.routing.multipath import MultipathSender
from geojax.hips.routing.source_routes import table_of
from geojax.machine.waits import wait_for
from geojax.overlay.policy.cutting import packed, unpacked
from geojax.overlay.policy.policy import Policy
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import Kind, Message
from geojax.wire.transport import Lost, Received, Transport

log = logging.getLogger("geojax.member")
PROBE_PRIORITY = 1 << 30  # behind every chunk


class Start(NamedTuple):
    """How a member begins.

    Attributes:
      at: loop time at which it starts.
      time: experiment time then.
      last: for a member that comes back, the last round that is done; None: the run begins.
      initial_from: who sends the initial vector, if this member's is not the one that counts.
      initial_to: to whom this member sends it.
    """

    at: float
    time: float
    last: int | None
    initial_from: str | None = None
    initial_to: tuple[str, ...] = ()


def _nobody_serves(centers: Sequence[str], number: int) -> None:
    raise GeojaxError(f"{', '.join(centers)} want the state after round {number} from no server")


class Membership:
    """Joins, beats, holds grants, and follows changes of the membership.

    Args:
      me: this member's name.
      transport: its transport; :meth:`pump` is its only reader.
      engines: the exchanges it takes part in, by group.
      timeouts: bounds on all waits.
      recorder: takes the events.
      lan_rounds: exchanges within a center in one round.
      multipath: through which the WAN's exchange sends, where the run has auxiliary routes.
      meter: times what arrives from the other members of the WAN group, for the heartbeats; None:
        nobody wants to know.

    Attributes:
      failed: gets ``SchedulerLost`` when the scheduler has been silent for too long.
      has_state: whether this member has parameters; set by its role.
      returned: gets the message that carries a peer's state, for a center that comes back.
      on_state_wanted: called with the centers that want the state after a round.
    """

    def __init__(
        self,
        me: str,
        *,
        transport: Transport,
        engines: Mapping[int, Exchange],
        timeouts: TimeoutsConfig,
        recorder: Recorder,
        lan_rounds: int = 1,
        multipath: MultipathSender | None = None,
        meter: LinkMeter | None = None,
    ):
        self._multipath, self._meter = multipath, meter
        self.me, self._lan_rounds = me, lan_rounds
        self._transport, self._engines = transport, engines
        self._timeouts, self._recorder = timeouts, recorder
        self._loop = asyncio.get_running_loop()
        self._main_group = min(engines)
        self._until, self._final = 0, False
        self._answered = float("inf")
        self._progress = 0  # of all members, where they make rounds of their own
        self._beaten = 0.0
        self._asked_with = (-1, -1)
        self._digests: dict[int, str] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._started: asyncio.Future[Start] = self._loop.create_future()
        self._end: asyncio.Future[None] = self._loop.create_future()
        self._beating: asyncio.TimerHandle | None = None
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._refused_in: dict[str, int] = {}  # peer: the epoch in which it was complained about
        for engine in engines.values():
            engine.gate.on_refused = self._on_refused
        self.has_state = False
        self.returned: asyncio.Future[Message] = self._loop.create_future()
        self.on_state_wanted: Callable[[Sequence[str], int], None] = _nobody_serves

    # ---- for the roles

    async def join(self, elements: int, digest: str | None = None) -> Start:
        """Says that this node is ready; returns when, and at which round, it starts.

        Args:
          elements: of its vector; 0 for a global server, which has none and learns from the
            scheduler how those of the others are cut.
          digest: of its initial vector; None: it has none.
        """
        engine = self._engines[self._main_group]
        sizes, layers = packed(engine.sizes), packed(engine.layers)
        self._say("join", elements=elements, sizes=sizes, layers=layers, digest=digest)
        started = await wait_for(
            self._started,
            describe=lambda: "start of the run from the scheduler",
            timeout=self._timeouts.start + self._timeouts.dead,
            warn=self._timeouts.warn,
        )
        self._beaten = self._loop.time()
        self._beat_again()
        return started

    async def granted(self, number: int) -> bool:
        """Waits for the grant of a round; false when the run ends before it."""
        while number >= self._until and not self._final:
            self._ask()
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await wait_for(
                waiter,
                describe=lambda: f"grant of round {number} from the scheduler",
                timeout=self._timeouts.round,
                warn=self._timeouts.warn,
            )
        if number < self._until and number + 2 >= self._until:
            self._ask()
        return number < self._until

    def report_digest(self, number: int, digest: str) -> None:
        """Sends a digest of the parameters after round ``number`` with the next heartbeat."""
        self._digests[number] = digest

    async def finish(self) -> None:
        """Says that this member is done, and stays to help others until everybody is."""
        if self._digests:
            self._heartbeat()
        self._say("done", held=self._held)
        while not self._end.done():
            progress = self._progress
            try:
                await wait_for(
                    asyncio.shield(self._end),
                    describe=lambda: "end of the run from the scheduler",
                    timeout=self._timeouts.round,
                    warn=self._timeouts.warn,
                )
            except WaitTimeout:
                if progress == self._progress:  # else slower members are still at work
                    raise

    async def ended(self) -> None:
        """Waits until the run is over, or this task is cancelled as the scheduler is gone.

        For a global server, which no round tells that it is the last one.
        """
        await self._end

    async def pump(self) -> None:
        """Reads the transport for ever and hands every message to whom it is for.

        Raises:
          Expelled: the scheduler declared this member dead.
          SchedulerLost: the scheduler is gone.
        """
        while True:
            item = await self._transport.receive()
            if isinstance(item, Lost):
                self._on_lost(item)
                continue
            if self._meter is not None:
                self._meter.arrived(item)
            if item.message.kind is Kind.PROBE:
                if self._meter is None:
                    self._on_refused(item.peer, "a probe, but links are not timed")
                continue  # it has done its work by coming
            if item.message.kind is Kind.CONTROL:
                self._on_control(item)
            elif item.message.kind is Kind.STATE:
                if not self.returned.done():
                    self.returned.set_result(item.message)
            else:
                self._on_chunk(item.peer, item.message)

    # ---- what comes in

    def _on_chunk(self, peer: str, message: Message) -> None:
        if self._multipath is not None:
            taken = self._multipath.take(peer, message)
            if taken is None:
                return
            peer, message = taken
        engine = self._engines.get(message.group)
        if engine is None:
            log.warning("refused a chunk of group %d from %s", message.group, peer)
            self._on_refused(peer, f"a chunk of group {message.group}")
        else:
            engine.handle(peer, message)

    def _on_lost(self, item: Lost) -> None:
        if item.peer == SCHEDULER:
            if not self._end.done():
                raise SchedulerLost(f"{self.me}: the scheduler is gone: {item.reason}")
            return
        if self._multipath is not None:
            self._multipath.lose(item.peer)
        self._recorder.event("lost", peer=item.peer)
        self._say("lost", peer=item.peer, reason=item.reason)

    def _on_refused(self, peer: str, why: str) -> None:
        """A message of a peer can never become valid: complains to the scheduler, once an epoch.

        See :class:`geojax.hips.exchange.base.Gate`.
        """
        epoch = self._engines[self._main_group].gate.epoch
        if peer != SCHEDULER and self._refused_in.get(peer, -1) < epoch:
            self._refused_in[peer] = epoch
            self._say("lost", peer=peer, reason=f"refused: {why}", refused=True)

    def _on_control(self, item: Received) -> None:
        body = item.message.body or {}
        kind = body.get("type")
        told = item.peer == SCHEDULER and kind in ("start", "policy", "resume")
        policies = unpacked_policies(item.message.payload) if told else {}
        handlers = {
            "start": lambda body: self._on_start(body, policies),
            "beat": self._on_beat,
            "policy": lambda body: self._on_policy(body, policies),
            "prepare": self._on_prepare,
            "resume": lambda body: self._on_resume(body, policies),
            "routes": lambda _: self._on_routes(item.message),
            "probe": self._on_probe,
            "end": lambda _: self._end.done() or self._end.set_result(None),
            "expelled": self._on_expelled,
        }
        handler = handlers.get(str(kind))
        if item.peer != SCHEDULER or handler is None:
            log.warning("refused a control message %r from %s", kind, item.peer)
            self._on_refused(item.peer, "a control message")
            return
        self._answered = self._loop.time()
        handler(body)

    def _on_start(self, body: Mapping[str, Any], policies: Mapping[int, Policy]) -> None:
        self._final = bool(body["final"])
        self._grant(int(body["until"]))
        held = body.get("held")
        if "sizes" in body:
            engine = self._engines[self._main_group]
            engine.learn(unpacked(body["sizes"]), unpacked(body["layers"]))
        for group, policy in policies.items():
            engine = self._engine(group)
            last, source = engine.held, None
            if held is not None:
                last = int(held[str(group)])
                lacks = self._main_group != WAN_GROUP  # a worker gets it from its local server
                source = policy.trees[0].root if lacks else None
                engine.skip_to(max(-1, last - lacks))
            engine.resume(int(body["epoch"]), policy, held=last, source=source)
        if not self._started.done():
            last = None if held is None else int(held.get(str(self._main_group), -1))
            source, to = body.get("initial_from"), tuple(body.get("initial_to", ()))
            at, time = float(body["at"]), float(body["time"])
            self._started.set_result(Start(at, time, last, source, to))

    def _on_beat(self, body: Mapping[str, Any]) -> None:
        self._grant(max(self._until, int(body["until"])))
        self._progress = int(body.get("progress", 0))
        self._final = bool(body["final"])
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _grant(self, until: int) -> None:
        self._until = until
        if WAN_GROUP in self._engines:
            self._engines[WAN_GROUP].grant(until)

    def _on_policy(self, body: Mapping[str, Any], policies: Mapping[int, Policy]) -> None:
        for group, policy in policies.items():
            engine = self._engine(group)
            if engine.gate.epoch == int(body["epoch"]):
                engine.change(int(body["first"]), policy)

    def _on_prepare(self, body: Mapping[str, Any]) -> None:
        epoch = int(body["epoch"])
        for engine in self._engines.values():
            engine.freeze(epoch)
        if self._multipath is not None:
            self._multipath.change(epoch)
        held = {str(group): engine.held for group, engine in self._engines.items()}
        dead = ", ".join(body["dead"])
        log.warning("%s: membership epoch %d begins%s", self.me, epoch, dead and f"; dead: {dead}")
        keeps = {str(group): engine.keeps for group, engine in self._engines.items()}
        self._say("report", epoch=epoch, held=held, keeps=keeps, has_state=self.has_state)

    def _on_resume(self, body: Mapping[str, Any], policies: Mapping[int, Policy]) -> None:
        epoch = int(body["epoch"])
        for group, policy in policies.items():
            engine = self._engine(group)
            if epoch == engine.gate.epoch:
                engine.resume(
                    epoch,
                    policy,
                    held=int(body["held"][str(group)]),
                    lacking=body["lacking"].get(str(group), ()),
                    source=body.get("source", {}).get(str(group)),
                )
        if body["state_to"]:
            self.on_state_wanted(body["state_to"], int(body["held"][str(WAN_GROUP)]))

    def _on_routes(self, message: Message) -> None:
        if self._multipath is None:
            raise GeojaxError(f"{self.me} has no use for auxiliary routes")
        self._multipath.route_by(table_of(message, self._multipath.names))

    def _on_probe(self, body: Mapping[str, Any]) -> None:
        """Sends bytes to a peer, behind all chunks; not where something waits for a dead link."""
        peer, payload = str(body["peer"]), np.zeros(int(body["bytes"]), np.uint8)
        if self._transport.stalled(peer) >= OUT_AFTER_S:
            return
        epoch = max(self._engines[self._main_group].gate.epoch, 0)
        message = Message(Kind.PROBE, group=self._main_group, epoch=epoch, payload=payload)
        way = self._multipath or self._transport
        for _ in range(int(body["count"])):
            way.send(peer, message, PROBE_PRIORITY)

    def _on_expelled(self, body: Mapping[str, Any]) -> None:
        raise Expelled(f"{self.me} was expelled from the run: {body['reason']}")

    def _engine(self, group: int) -> Exchange:
        engine = self._engines.get(group)
        if engine is None:
            raise GeojaxError(f"{self.me} is no member of group {group}")
        return engine

    # ---- what goes out

    def _beat_again(self) -> None:
        now = self._loop.time()
        if now - self._beaten > 2 * self._timeouts.heartbeat:  # this process stood still itself
            self._answered = now
        self._beaten = now
        silence = now - self._answered
        if silence > 2 * self._timeouts.dead and not self._end.done():
            error = SchedulerLost(f"{self.me}: no answer from the scheduler in {silence:.1f} s")
            self.failed.set_exception(error)
            return
        for engine in self._engines.values():
            engine.gate.expire(2 * self._timeouts.dead)
        self._heartbeat()
        self._beating = self._loop.call_later(self._timeouts.heartbeat, self._beat_again)

    def _heartbeat(self) -> None:
        fields: dict[str, Any] = {"held": self._held}
        if self._digests:
            fields["digests"] = list(self._digests.items())
            self._digests = {}
        if self._meter is not None:
            fields |= {"links": self._meter.links(), "sent": self._meter.sent()}
        self._say("heartbeat", **fields)

    @property
    def _held(self) -> int:
        """The last whole round that it holds; a worker knows of it by the center's exchanges."""
        held = self._engines[self._main_group].held
        return held if self._main_group == WAN_GROUP else (held + 1) // self._lan_rounds - 1

    def _ask(self) -> None:
        """Asks for a longer grant at once, if nothing has changed since it was asked for last."""
        asked_with = (self._until, self._engines[self._main_group].held)
        if self._final or self._asked_with == asked_with:
            return
        self._asked_with = asked_with
        self._heartbeat()

    def close(self) -> None:
        """Stops the heartbeats."""
        if self._beating is not None:
            self._beating.cancel()

    def _say(self, kind: str, **fields: Any) -> None:
        engine = self._engines[self._main_group]
        message = Message(
            Kind.CONTROL, epoch=max(engine.gate.epoch, 0), body={"type": kind, **fields}
        )
        self._transport.send(SCHEDULER, message, CONTROL_PRIORITY)
