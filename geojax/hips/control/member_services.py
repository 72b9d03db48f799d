"""Services at a member: those that it asks, and those that a local server has for its workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from geojax.errors import Refused
from geojax.hips.context import NodeContext
from geojax.hips.control.channel import ControlChannel, Handlers
from geojax.hips.control.messages import Answer, Request
from geojax.hips.control.requests import Requests, ServiceHost
from geojax.sync.service import Service


class MemberServices:
    """A member's questions, and its own services.

    Args:
      context: its node.
      channel: says what is asked and answered.
      services: that it has; empty: none.
    """

    def __init__(
        self, context: NodeContext, channel: ControlChannel, services: Mapping[str, Service]
    ):
        self._channel, self._timeouts = channel, context.setup.config.timeouts
        self._asked: dict[str, Requests] = {}
        self._host: ServiceHost | None = None
        self._died: set[str] = set()  # since its services knew their members last
        if services:
            self._host = ServiceHost(
                services, say=channel.say, refuse=channel.refuse, recorder=context.recorder
            )

    @property
    def handlers(self) -> Handlers:
        """Of what others ask and answer."""
        return {
            Answer: self._on_answer, **({} if self._host is None else {Request: self._host.take}),
        }  # fmt: skip

    def asks(self, host: str) -> Requests:
        """This member's questions to the services of a node."""
        if host not in self._asked:
            self._asked[host] = Requests(host, partial(self._channel.say, host), self._timeouts)
        return self._asked[host]

    def _on_answer(self, peer: str, said: Answer) -> None:
        if peer not in self._asked:
            raise Refused(f"answer.number: nothing was asked of {peer}")
        self._asked[peer].take(peer, said)

    def died(self, names: Iterable[str]) -> None:
        """These members have died."""
        self._died |= {*names}

    def begin(self, epoch: int, workers: Sequence[str]) -> None:
        """This member starts, or comes back: the numbers of its requests are new ones."""
        for requests in self._asked.values():
            requests.begin(epoch)
        self.resume(epoch, workers)

    def resume(self, epoch: int, workers: Sequence[str]) -> None:
        """In this epoch these workers may ask."""
        if self._host is not None:
            self._host.members(workers, epoch, back=self._died)
            self._died.clear()
