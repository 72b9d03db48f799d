"""The frame codec: messages to frames and back, with every length bounded before it is believed.

A frame is a fixed header of 80 bytes in network order, a msgpack body (first frame of a message
only) and at most 256 KiB of payload::

    magic 4s | version B | kind B | codec B | flags B | epoch policy tree group round chunk 6i
    sequence I | offset I | steps I | total Q | weight d | contributors I | tag I
    body bytes I | payload bytes I | crc32 I over the header before it, the body and the payload

Every frame of a message carries the whole header. All its frames but the last hold exactly
``FRAGMENT_BYTES`` of payload (``STRIPE_BYTES`` where there are several connections), so the bytes
of a message on the wire follow from its size alone. Frames of different messages may interleave on
one connection, which is how a message of higher priority overtakes a large one. A frame with the
flag ``FOLLOWS`` left straight behind the frame before it on its connection; the receiver can time
such frames. The tag is 0, but in a datagram (who sent it, :mod:`geojax.wire.datagrams`)
and where several connections carry one sequence of frames (the frame's number in it,
:mod:`geojax.wire.frame_order`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgpack
import numpy as np

from geojax.errors import FrameError
from geojax.wire.checksum import crc32
from geojax.wire.message import FRAGMENT_BYTES, HEADER_BYTES, Kind, Message, SizeOnly
from geojax.wire.receive_memory import ReceiveMemory

MAGIC = b"GEOJ"
PROTOCOL_VERSION = 3
FOLLOWS = 1  # flag of a frame
MAX_BODY_BYTES = 64 * 1024  # msgpack body of one message
MAX_PAYLOAD_BYTES = 1 << 30  # payload of one message, unless the assembler is told otherwise
MAX_SENT_BYTES = 1 << 32  # payload of one message: what the header has room for
MAX_UNFINISHED = 4096  # messages of one connection whose last frame has not come yet

_HEADER = struct.Struct("!4sBBBB6iIIIQdIIIII")
_FLAGS_AT = 7
_OFFSET, _OFFSET_AT = struct.Struct("!I"), 36
_ENDING, _ENDING_AT = struct.Struct("!III"), 64  # tag, lengths of body and payload
_CHECKSUM = struct.Struct("!I")
_CHECKED_BYTES = HEADER_BYTES - _CHECKSUM.size
_KINDS = {kind.value: kind for kind in Kind}

Frame = tuple[bytes, memoryview]  # header and body, payload
Buffer = bytes | bytearray | memoryview


class Header(NamedTuple):
    """The fixed header of one frame; see :class:`geojax.wire.message.Message` for the others."""

    kind: Kind
    codec: int
    flags: int  # of this frame
    epoch: int
    policy: int
    tree: int
    group: int
    round: int
    chunk: int
    sequence: int  # number of the message on its connection
    offset: int  # of this frame's payload within the message's payload
    steps: int
    total: int  # payload bytes of the whole message
    weight: float
    contributors: int
    tag: int  # who sent a datagram, or the frame's number among those of several connections
    body_bytes: int
    payload_bytes: int  # of this frame
    checksum: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of the whole frame."""
        return HEADER_BYTES + self.body_bytes + self.payload_bytes

    @property
    def follows(self) -> bool:
        """Whether the frame left straight behind the one before it on its connection."""
        return bool(self.flags & FOLLOWS)

    @property
    def last(self) -> bool:
        """Whether the message is whole with this frame."""
        return self.offset + self.payload_bytes == self.total


def pack_body(body: Mapping[str, Any] | None) -> bytes:
    """The body of a message as msgpack; tuples become lists, ``None`` is no bytes at all."""
    if body is None:
        return b""
    try:
        packed = msgpack.packb(dict(body), use_bin_type=True) or b""
    except (TypeError, ValueError, OverflowError) as error:
        raise FrameError(f"body: expected values that msgpack can hold: {error}") from error
    if len(packed) > MAX_BODY_BYTES:
        raise FrameError(
            f"body: expected at most {MAX_BODY_BYTES} bytes, came {len(packed)}; "
            "send large content as payload"
        )
    return packed


def unpack_body(packed: Buffer) -> dict[str, Any] | None:
    """Reverses :func:`pack_body`; refuses what is no mapping."""
    if not len(packed):
        return None
    try:
        body = msgpack.unpackb(packed, raw=False, strict_map_key=False, max_ext_len=0)
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise FrameError(f"body: expected valid msgpack, came {error!r}") from error
    if not isinstance(body, dict):
        raise FrameError(f"body: expected a mapping, came {type(body).__name__}")
    return body


def frame_count(message: Message, fragment: int = FRAGMENT_BYTES) -> int:
    """Number of frames that a message travels in, of so many bytes of payload each."""
    return max(1, -(-message.payload_bytes // fragment))


def wire_bytes(message: Message, fragment: int = FRAGMENT_BYTES) -> int:
    """Bytes of a message on the wire: payload, body and the headers of all its frames.

    >>> wire_bytes(Message(Kind.OFFER, payload=SizeOnly(300_000)))
    300160
    """
    payload = message.payload
    nbytes = 0 if payload is None else payload.nbytes
    if message.body is not None:
        nbytes += message.sized(_body_bytes)
    if message.payload_bytes <= fragment:
        return HEADER_BYTES + nbytes
    return frame_count(message, fragment) * HEADER_BYTES + nbytes


def _body_bytes(message: Message) -> int:
    return len(pack_body(message.body))


def _payload_view(message: Message) -> memoryview:
    payload = message.payload
    if payload is None:
        return memoryview(b"")
    if isinstance(payload, SizeOnly):
        raise FrameError(
            f"payload: expected an array, came SizeOnly({payload.nbytes}): a size without content "
            "travels only in the simulated transport"
        )
    if not payload.flags.c_contiguous:
        raise FrameError(
            f"payload: expected a C-contiguous array, came shape {payload.shape} with strides "
            f"{payload.strides}; use np.ascontiguousarray"
        )
    if payload.dtype.hasobject:
        raise FrameError(f"payload: expected plain numbers, came dtype {payload.dtype}")
    return payload.reshape(-1).view(np.uint8).data


def frames_of(
    message: Message, sequence: int = 0, tag: int = 0, fragment: int = FRAGMENT_BYTES
) -> Frames:
    """Cuts a message into frames.

    Everything is checked at the call; checksums are computed one by one as the iterator is
    drawn. The payload is never copied and must not change until the last frame is sent.

    Args:
      message: what to send; a ``SizeOnly`` payload is refused.
      sequence: number of the message on its connection, modulo 2**32.
      tag: of a datagram, see :mod:`geojax.wire.datagrams`.
      fragment: payload bytes of every frame but the last.

    Raises:
      FrameError: a field, the body or the payload does not fit.
    """
    payload = _payload_view(message)
    if payload.nbytes > MAX_SENT_BYTES:
        raise FrameError(
            f"payload: expected at most {MAX_SENT_BYTES} bytes, came {payload.nbytes}; send it in "
            "several messages"
        )
    body = pack_body(message.body)
    head = bytearray(HEADER_BYTES)
    try:
        _HEADER.pack_into(
            head, 0, MAGIC, PROTOCOL_VERSION, message.kind, message.codec, 0,
            message.epoch, message.policy, message.tree, message.group,
            message.round, message.chunk, sequence & 0xFFFFFFFF, 0, message.steps, payload.nbytes,
            message.weight, message.contributors, 0, 0, 0, 0,
        )  # fmt: skip
    except struct.error as error:
        raise FrameError(f"header of {message.kind!r}: a field is out of range: {error}") from error
    return Frames(head, body, payload, tag, fragment)


class Frames(Iterator[Frame]):
    """The frames of one message, drawn one by one.

    Attributes:
      follows: whether the frame that is drawn next leaves straight behind the one before it.
      tag: of the frame that is drawn next.
    """

    def __init__(self, head: bytearray, body: bytes, payload: memoryview, tag: int, fragment: int):
        self._head, self._body, self._payload, self._fragment = head, body, payload, fragment
        self._checked = memoryview(head)[:_CHECKED_BYTES]
        self._offsets = iter(range(0, max(1, payload.nbytes), fragment))
        self.follows, self.tag = False, tag

    def __next__(self) -> Frame:
        """The next frame, with what differs from frame to frame filled in."""
        offset = next(self._offsets)
        head, body = self._head, self._body
        fragment = self._payload[offset : offset + self._fragment]
        head[_FLAGS_AT] = FOLLOWS if self.follows else 0
        _OFFSET.pack_into(head, _OFFSET_AT, offset)
        _ENDING.pack_into(head, _ENDING_AT, self.tag, len(body), fragment.nbytes)
        checksum = crc32(fragment, crc32(body, crc32(self._checked)))
        _CHECKSUM.pack_into(head, _CHECKED_BYTES, checksum)
        self._body = b""
        return bytes(head) + body, fragment


def parse_header(raw: Buffer, fragment: int = FRAGMENT_BYTES) -> Header:
    """Reads and checks a header; only its checksum is left for :meth:`Assembler.finish`.

    Args:
      raw: ``HEADER_BYTES`` long.
      fragment: payload bytes of every frame but the last of a message.

    Raises:
      FrameError: says which field, what was expected and what came.
    """
    if len(raw) != HEADER_BYTES:
        raise FrameError(f"header: expected {HEADER_BYTES} bytes, came {len(raw)}")
    magic, version, kind, codec, flags, *rest = _HEADER.unpack(raw)
    if magic != MAGIC:
        raise FrameError(f"magic: expected {MAGIC!r}, came {magic!r}")
    if version != PROTOCOL_VERSION:
        raise FrameError(f"protocol version: expected {PROTOCOL_VERSION}, came {version}")
    if kind not in _KINDS:
        raise FrameError(f"kind: expected one of {sorted(_KINDS)}, came {kind}")
    if flags & ~FOLLOWS:
        raise FrameError(f"flags: expected {FOLLOWS} or 0, came {flags}")
    header = Header(_KINDS[kind], codec, flags, *rest)
    if header.body_bytes > MAX_BODY_BYTES:
        raise FrameError(f"body: expected at most {MAX_BODY_BYTES} bytes, came {header.body_bytes}")
    if header.offset and header.body_bytes:
        raise FrameError(f"body: expected it in the first frame, came at offset {header.offset}")
    if header.offset % fragment or (header.offset and header.offset >= header.total):
        raise FrameError(
            f"offset: expected a multiple of {fragment} below the payload's {header.total} "
            f"bytes, came {header.offset}"
        )
    expected = min(fragment, header.total - header.offset)
    if header.payload_bytes != expected:
        raise FrameError(
            f"payload of this frame: expected {expected} bytes (of {header.total} from "
            f"{header.offset}), came {header.payload_bytes}"
        )
    return header


class WholeFrame(NamedTuple):
    """A frame as it came."""

    header: Header
    body: memoryview
    payload: memoryview


def check_sum(header: Header, raw: bytearray | memoryview, body: Buffer, payload: Buffer) -> None:
    """Compares a frame's checksum with what came.

    Args:
      header: the frame's header.
      raw: the same as it came, ``HEADER_BYTES`` long.
      body: the frame's body as it came.
      payload: the frame's payload as it came.

    Raises:
      FrameError: they differ.
    """
    checksum = crc32(payload, crc32(body, crc32(raw[:_CHECKED_BYTES])))
    if checksum != header.checksum:
        raise FrameError(f"checksum: expected {header.checksum:#010x}, came {checksum:#010x}")


class _Unfinished:
    """A message whose frames are still coming."""

    __slots__ = ("body", "first", "payload", "received", "view")

    def __init__(self, first: Header, memory: ReceiveMemory):
        self.first = first
        self.body: dict[str, Any] | None = None
        self.payload = memory.take(first.total)
        self.view = self.payload.data
        self.received = 0

    def message(self) -> Message:
        head = self.first
        return Message(
            head.kind, head.group, head.epoch, head.policy, head.tree, head.round, head.chunk,
            head.codec, head.weight, head.contributors, head.steps, self.body,
            self.payload if head.total else None,
        )  # fmt: skip


class Assembler:
    """Puts the messages of one connection together, with bounded memory.

    For each frame: :func:`parse_header`, receive the body, :meth:`begin`, receive the payload
    straight into the view that it returns, :meth:`finish`.

    Args:
      max_payload_bytes: largest payload of one message; the payloads of all unfinished messages
        together may take twice as much.
      memory: where payloads are received into.
    """

    def __init__(
        self, max_payload_bytes: int = MAX_PAYLOAD_BYTES, memory: ReceiveMemory | None = None
    ):
        self.max_payload_bytes = max_payload_bytes
        self.memory = ReceiveMemory() if memory is None else memory
        self._unfinished: dict[int, _Unfinished] = {}
        self._reserved = 0  # payload bytes of the unfinished messages

    @property
    def unfinished(self) -> int:
        """Number of messages whose last frame has not come yet."""
        return len(self._unfinished)

    def begin(self, header: Header) -> memoryview:
        """Where to receive this frame's payload; allocates when the message is new.

        Raises:
          FrameError: the message is too large, there are too many unfinished ones, or the frame
            does not continue its message.
        """
        entry = self._unfinished.get(header.sequence)
        if header.offset == 0:
            if entry is not None:
                raise FrameError(
                    f"message {header.sequence}: expected its frame at offset {entry.received}, "
                    "came a second first frame"
                )
            entry = self._open(header)
        elif entry is None:
            raise FrameError(
                f"message {header.sequence}: expected its first frame, came offset {header.offset}"
            )
        elif header.offset != entry.received or not _same_message(header, entry.first):
            raise FrameError(
                f"message {header.sequence}: expected its frame at offset {entry.received} of "
                f"{entry.first}, came {header}"
            )
        return entry.view[header.offset : header.offset + header.payload_bytes]

    def _open(self, header: Header) -> _Unfinished:
        if header.total > self.max_payload_bytes:
            raise FrameError(
                f"payload: expected at most {self.max_payload_bytes} bytes, came a claim of "
                f"{header.total}"
            )
        if len(self._unfinished) >= MAX_UNFINISHED:
            raise FrameError(f"unfinished messages: expected at most {MAX_UNFINISHED}, came more")
        if self._reserved + header.total > 2 * self.max_payload_bytes:
            raise FrameError(
                f"unfinished messages: expected at most {2 * self.max_payload_bytes} bytes of "
                f"payload, came {self._reserved + header.total}"
            )
        entry = self._unfinished[header.sequence] = _Unfinished(header, self.memory)
        self._reserved += header.total
        return entry

    def finish(self, header: Header, raw: bytearray | memoryview, body: Buffer) -> Message | None:
        """Checks the frame's checksum; returns the message when it is whole, else None.

        Args:
          header: the frame's header, for which :meth:`begin` was called.
          raw: the same header as it came, ``HEADER_BYTES`` long.
          body: the frame's body as it came.
        """
        view = self._unfinished[header.sequence].view
        check_sum(header, raw, body, view[header.offset : header.offset + header.payload_bytes])
        return self._add(header, body)

    def add(self, frame: WholeFrame) -> Message | None:
        """Takes a frame that came elsewhere and whose checksum was right; as :meth:`finish`.

        Raises:
          FrameError: as :meth:`begin`.
        """
        self.begin(frame.header)[:] = frame.payload
        return self._add(frame.header, frame.body)

    def _add(self, header: Header, body: Buffer) -> Message | None:
        entry = self._unfinished[header.sequence]
        if header.offset == 0:
            entry.body = unpack_body(body)
        entry.received = header.offset + header.payload_bytes
        if not header.last:
            return None
        del self._unfinished[header.sequence]
        self._reserved -= header.total
        return entry.message()


def _same_message(header: Header, first: Header) -> bool:
    """Whether a later frame has the fields of the first one; flags, offset, tag, lengths aside."""
    same_head = header[:2] == first[:2] and header[3:10] == first[3:10]
    return same_head and header[11:15] == first[11:15]
