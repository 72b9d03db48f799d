"""A node's end of the control protocol: it packs what is said, and checks what comes."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from geojax.errors import Refused
from geojax.hips.cluster import SCHEDULER
from geojax.hips.context import NodeContext
from geojax.hips.control.messages import ControlMessage, pack, read
from geojax.wire.priority import CONTROL_PRIORITY
from geojax.wire.transport import Received

log = logging.getLogger("geojax.control")

Handlers = Mapping[type[ControlMessage], Callable[[str, Any], None]]
"""What a role does with each type of message, given the sender and the message. A handler raises
``Refused``, before it changes anything, for a message that is well-formed and yet cannot be true.
"""


class ControlChannel:
    """Sends control messages, and hands those that arrive to their handlers.

    Args:
      context: the node.
      epoch: its membership epoch now.

    Attributes:
      refused: why a message of a node was refused last.
      on_refused: called with the sender of such a message, and why.
    """

    def __init__(self, context: NodeContext, epoch: Callable[[], int]):
        self._me = context.name
        self._roles = {node.name: node.role for node in context.setup.cluster.all}
        self._transport, self._recorder = context.transport, context.recorder
        self._epoch = epoch
        self.refused: dict[str, str] = {}
        self.on_refused: Callable[[str, str], None] = lambda _peer, _reason: None

    def say(self, peer: str, said: ControlMessage) -> None:
        """Sends a message to a node."""
        self._transport.send(peer, pack(said, max(self._epoch(), 0)), CONTROL_PRIORITY)

    def take(self, item: Received, handlers: Handlers) -> None:
        """Handles a message; one that cannot be true is refused, and its sender named."""
        try:
            role = SCHEDULER if item.peer == SCHEDULER else self._roles.get(item.peer, "stranger")
            said = read(item.message, role)
            if type(said) not in handlers:
                raise Refused(f"{said.name}: not for {self._me}")
            handlers[type(said)](item.peer, said)
        except Refused as error:
            self._refuse(item, str(error))

    def _refuse(self, item: Received, reason: str) -> None:
        kind = (item.message.body or {}).get("type", item.message.kind.name)
        self.refuse(item.peer, kind, reason)

    def refuse(self, peer: str, kind: object, reason: str) -> None:
        """Logs and records that a message is refused."""
        self.refused[peer] = reason
        told = reprlib.repr(kind)
        log.warning("%s: refused %s from %s: %s", self._me, told, peer, reason)
        self._recorder.event("refused", peer=peer, type=told, reason=reason)
        self.on_refused(peer, reason)
