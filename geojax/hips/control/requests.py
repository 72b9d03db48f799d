"""Questions to services: the asking member's end, and the host's.

A request travels over the connection that all control messages take, so it is lost only with that
connection. It is sent again every ``timeouts.dead`` until it is answered, and the wait for it is
bounded by ``timeouts.round``. The host keeps the last answer of every member and repeats it for a
repeated request, so a question is never put twice to the service. One that was refused is refused
again: who asked waits for ever, and is found out when it is refused in a later epoch, too.

A member that comes back numbers its requests by the epoch in which it does so. They may overtake
the word that this epoch has begun, and wait for it at the host. What it asked before it died may
come late, and is forgotten; so is all that comes of one that is dead, and does not know it yet.

An honest member waits for its answers, so the host never has more than a few requests of it. One
that sends more than :data:`MOST_WAITING` faster than they are served is refused and named; its
requests never delay those of another member, since every member is served at a rate of its own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from geojax.config import TimeoutsConfig
from geojax.errors import Refused
from geojax.hips.control.messages import Answer, ControlMessage, Request
from geojax.machine.waits import wait_for
from geojax.sync.service import Service
from geojax.telemetry.recorder import Recorder

MOST_WAITING = 8  # requests of one member
GAP_S = 0.0005  # between two requests of one member that are served
_QUIET_S = 1.0  # a flood is named once in so long
_EPOCH = 1 << 32  # requests that a member numbers in one epoch


class Requests:
    """A member's questions to one host.

    Args:
      host: the node that has the services.
      say: sends it a control message.
      timeouts: bounds on waits.
    """

    def __init__(self, host: str, say: Callable[[ControlMessage], None], timeouts: TimeoutsConfig):
        self.host, self._say, self._timeouts = host, say, timeouts
        self._next = 0
        self._waiting: dict[int, asyncio.Future[Mapping[str, Any]]] = {}

    def begin(self, epoch: int) -> None:
        """The member starts, or comes back, in this epoch: its numbers are new ones."""
        self._next = max(self._next, epoch * _EPOCH)

    async def request(self, service: str, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Asks a service, and returns its answer.

        Raises:
          WaitTimeout: there was none in ``timeouts.round``; names the host.
        """
        asked = self._numbered(service, question, wanted=True)
        loop = asyncio.get_running_loop()
        answer = self._waiting[asked.number] = loop.create_future()

        def again() -> None:
            nonlocal timer
            self._say(asked)
            timer = loop.call_later(self._timeouts.dead, again)

        timer = loop.call_later(self._timeouts.dead, again)
        self._say(asked)
        try:
            return await wait_for(
                answer,
                describe=lambda: f"answer of service {service!r} from {self.host}",
                timeout=self._timeouts.round,
                warn=self._timeouts.warn,
            )
        finally:
            timer.cancel()
            self._waiting.pop(asked.number, None)

    def tell(self, service: str, question: Mapping[str, Any]) -> None:
        """Tells a service something, which it does not answer."""
        self._say(self._numbered(service, question, wanted=False))

    def take(self, peer: str, said: Answer) -> None:
        """Takes an answer; one that nobody waits for any more is forgotten.

        Raises:
          Refused: it comes from another node, or was never asked for.
        """
        if peer != self.host or said.number >= self._next:
            raise Refused(f"answer.number: nothing was asked of {peer} under {said.number}")
        waiting = self._waiting.get(said.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(said.answer)

    def _numbered(self, service: str, question: Mapping[str, Any], *, wanted: bool) -> Request:
        number, self._next = self._next, self._next + 1
        return Request(service, number, dict(question), wanted)


@dataclass
class _Line:
    """One member's requests at the host.

    Attributes:
      since: the epoch in which the member began, or came back.
      taken: the number of the last one that came.
      answer: the last answer.
      refused: the number of the last request that was refused.
      why: it was.
      waiting: what came faster than it is served.
      free_at: loop time from which on the next one is served.
      named_at: loop time at which it was last named for a flood.
    """

    since: int
    taken: int = -1
    answer: Answer | None = None
    refused: int = -1
    why: str = ""
    waiting: deque[Request] = field(default_factory=deque)
    free_at: float = 0.0
    named_at: float = float("-inf")


class ServiceHost:
    """Has services, and serves the requests of members.

    Args:
      services: by name.
      say: sends a member a control message.
      refuse: names a member that asked what cannot be true.
      recorder: counts requests, and takes what services record.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        *,
        say: Callable[[str, ControlMessage], None],
        refuse: Callable[[str, str, str], None],
        recorder: Recorder,
    ):
        self._services, self._say, self._refuse = services, say, refuse
        self._recorder = recorder
        self._lines: dict[str, _Line] = {}
        self._known: set[str] = set()  # who has ever taken part
        self._epoch = -1
        self._early: list[tuple[str, Request]] = []

    def members(self, names: Iterable[str], epoch: int, back: Collection[str] = ()) -> None:
        """In this epoch exactly these may ask; ``back``: those of them that begin anew in it."""
        names, self._epoch = tuple(names), epoch
        self._known.update(names)
        stay = {name: line for name, line in self._lines.items() if name not in back}
        self._lines = {name: stay.get(name) or _Line(epoch) for name in names}
        for service in self._services.values():
            if back:  # their return may have been as soon as their death was noticed
                service.members([name for name in names if name not in back])
            service.members(names)
        early, self._early = self._early, []
        for sender, asked in early:
            try:
                self.take(sender, asked)
            except Refused as error:
                self._refuse(sender, Request.name, str(error))

    def take(self, sender: str, asked: Request) -> None:
        """A request came.

        Raises:
          Refused: who sent it may not ask, there is no such service, the service refuses it, or
            too many requests of this member wait.
        """
        if self._known and sender not in self._known:
            raise Refused(f"request: {sender} takes no part")
        if asked.number // _EPOCH > self._epoch:
            self._wait(sender, asked)
            return
        line = self._lines.get(sender)
        if line is None or asked.number // _EPOCH < line.since:
            return  # it does not know yet that it was declared dead
        self._in_line(sender, line, asked)

    def _wait(self, sender: str, asked: Request) -> None:
        if sum(name == sender for name, _ in self._early) >= MOST_WAITING:
            raise Refused(f"request: {MOST_WAITING} of {sender} wait for an epoch")
        self._early.append((sender, asked))

    def _in_line(self, sender: str, line: _Line, asked: Request) -> None:
        if asked.service not in self._services:
            raise Refused(f"request.service: there is no {asked.service!r} here")
        if asked.number <= line.taken:
            if line.answer is not None and line.answer.number == asked.number:
                self._say(sender, line.answer)
            elif line.refused == asked.number:
                raise Refused(line.why)
            return
        now = asyncio.get_running_loop().time()
        if len(line.waiting) >= MOST_WAITING:
            self._recorder.add("dropped_requests")
            if now - line.named_at >= _QUIET_S:
                line.named_at = now
                raise Refused(f"request: {MOST_WAITING} of {sender} wait already")
            return
        line.taken = asked.number
        if line.waiting or now < line.free_at:
            line.waiting.append(asked)
            if len(line.waiting) == 1:
                self._later(sender, line)
        else:
            self._serve(sender, line, asked, now)

    def _later(self, sender: str, line: _Line) -> None:
        asyncio.get_running_loop().call_at(line.free_at, self._next, sender, line)

    def _next(self, sender: str, line: _Line) -> None:
        if self._lines.get(sender) is not line:
            return  # it takes no part any more
        try:
            asked = line.waiting.popleft()
            self._serve(sender, line, asked, asyncio.get_running_loop().time())
        except Refused as error:
            self._refuse(sender, Request.name, str(error))
        if line.waiting:
            self._later(sender, line)

    def _serve(self, sender: str, line: _Line, asked: Request, now: float) -> None:
        line.free_at = now + GAP_S
        service = self._services[asked.service]
        try:
            answer = service.answer(sender, asked.question, now)
        except Refused as error:
            line.refused, line.why = asked.number, str(error)
            raise
        self._recorder.add("requests")
        for record in service.records():
            self._recorder.event(asked.service, **record)
        if asked.wanted:
            line.answer = Answer(asked.number, answer)
            self._say(sender, line.answer)
