"""Source routes, which chunks carry themselves, and path tables.

A chunk on an auxiliary route carries the whole route in its body, from its sender to its receiver:
``{"route": [indices]}`` into the list of all centers of the run. The route never changes, so a new
path table redirects no chunk that has left, and no chunk can go round in circles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import msgpack
import numpy as np

from geojax.errors import Refused
from geojax.overlay.routes.auxiliary import PathTable, from_lists, to_lists
from geojax.wire.message import ROUTED, Message

_LEAST = 3  # members of a route; one without a relay is the primary path


class Hop(NamedTuple):
    """Where a routed message is: its sender, and who gets it next (None: it is for this member)."""

    origin: str
    onward: str | None


def routed(message: Message, hops: Sequence[str], names: Sequence[str]) -> Message:
    """The message with its route, which starts at its sender."""
    route = [names.index(name) for name in hops]
    return replace(message, body={**(message.body or {}), "route": route})


def is_routed(message: Message) -> bool:
    """Whether a message has a route; :func:`hop_at` checks it."""
    return message.body is not None and "route" in message.body


def hop_at(me: str, peer: str, message: Message, names: Sequence[str]) -> Hop | str:
    """Where on its route a message is that came from ``peer``, or what is wrong with the route.

    >>> from geojax.wire.message import Kind
    >>> message = Message(Kind.OFFER, body={"route": [0, 2, 1]})
    >>> hop_at("c", "a", message, ["a", "b", "c"])
    Hop(origin='a', onward='b')
    >>> hop_at("b", "c", message, ["a", "b", "c"])
    Hop(origin='a', onward=None)
    >>> hop_at("b", "a", message, ["a", "b", "c"])
    'came from a instead of c'
    """
    if message.kind not in ROUTED:
        return f"a message of kind {message.kind.name} has no route"
    hops = (message.body or {}).get("route")
    if not isinstance(hops, list) or len(hops) < _LEAST:
        return f"expected at least {_LEAST} members, came {hops!r:.100}"
    if not all(type(hop) is int and 0 <= hop < len(names) for hop in hops):
        return f"expected indices of {len(names)} centers, came {hops!r:.100}"
    if len(set(hops)) < len(hops):
        return f"goes in circles: {hops!r:.100}"
    route = [str(names[hop]) for hop in hops]
    if me not in route[1:]:
        return f"does not lead here: {', '.join(route)}"
    at = route.index(me)
    if route[at - 1] != peer:
        return f"came from {peer} instead of {route[at - 1]}"
    return Hop(route[0], route[at + 1] if at + 1 < len(route) else None)


def packed_table(table: PathTable, names: Sequence[str]) -> np.ndarray:
    """A member's path table as the payload of a message."""
    return np.frombuffer(msgpack.packb(to_lists(table, names)) or b"", np.uint8)


def unpacked_table(payload: np.ndarray, names: Sequence[str]) -> PathTable:
    """The inverse of :func:`packed_table`.

    Raises:
      Refused: these bytes are no path table.
    """
    try:
        return from_lists(msgpack.unpackb(payload.tobytes()), names)
    except Exception as error:  # whatever is wrong with bytes that came from elsewhere
        raise Refused(f"routes: expected a path table, came {error!r}") from error
