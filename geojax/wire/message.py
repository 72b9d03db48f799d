"""What one node says to another: a fixed header, a small body and a payload."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from geojax.hollow import SizeOnly

FRAGMENT_BYTES = 256 * 1024  # payload bytes of one frame at most
STRIPE_BYTES = 32 * 1024  # the same where several connections carry frames side by side
HEADER_BYTES = 80  # size of the fixed header, see geojax.wire.frame


def fragment_bytes(connections: int) -> int:
    """Payload bytes of one frame at most, where so many connections carry what goes to a peer.

    Over several, a frame takes as many times longer, and those behind it wait for it.
    """
    return FRAGMENT_BYTES if connections == 1 else STRIPE_BYTES


class Kind(IntEnum):
    """What a message is about; byte counters are kept per kind."""

    HELLO = 0  # first frame of a connection
    CONTROL = 1  # scheduler and members; ``body["type"]`` says what
    OFFER = 2  # one chunk that travels to the root
    RESULT = 3  # one merged chunk that travels from the root
    AGGREGATE = 4  # one merged chunk for a member that missed it
    STATE = 5  # parameters and outer state, for a center that comes back
    LATE = 6  # the less important part of an offered chunk; a merge does not wait for it
    PROBE = 7  # bytes without meaning, sent to time a link


CHUNK_KINDS = (Kind.OFFER, Kind.RESULT, Kind.AGGREGATE, Kind.STATE, Kind.LATE)
DATA_KINDS = (*CHUNK_KINDS, Kind.PROBE)  # not control
ROUTED = (Kind.OFFER, Kind.RESULT)  # along the trees of a policy; may take an auxiliary route


Payload = np.ndarray | SizeOnly | None


class _Sized:
    """Keeps what packing the body has told of its size."""

    __slots__ = ("_nbytes",)
    _nbytes: int


@dataclass(frozen=True, slots=True)
class Message(_Sized):
    """One whole message. The transport cuts it into frames and puts it together again.

    Attributes:
      kind: what it is about.
      group: index of the member group it belongs to (0: the WAN; 1 + c: center c's LAN).
      epoch: membership epoch of the sender.
      policy: version of the policy that routed it.
      tree: index of the tree within the policy.
      round: round number.
      chunk: chunk index.
      codec: wire number of the codec that wrote the payload.
      weight: total weight of the contributions in the payload.
      contributors: how many members' contributions are in the payload.
      steps: how many local steps these contributions stand for.
      body: small msgpack-able mapping, for control and for what an exchange says of a chunk.
      payload: a C-contiguous array, sent as its bytes and received as ``uint8``; an empty array
        is received as None.
    """

    kind: Kind
    group: int = 0
    epoch: int = 0
    policy: int = 0
    tree: int = 0
    round: int = 0
    chunk: int = 0
    codec: int = 0
    weight: float = 0.0
    contributors: int = 0
    steps: int = 0
    body: Mapping[str, Any] | None = None
    payload: Payload = None

    @property
    def payload_bytes(self) -> int:
        """Bytes of the payload alone."""
        return 0 if self.payload is None else self.payload.nbytes

    def sized(self, measure: Callable[[Message], int]) -> int:
        """``measure`` of it, which is called once; it is always the same function."""
        try:
            return self._nbytes
        except AttributeError:
            object.__setattr__(self, "_nbytes", measure(self))
            return self._nbytes
