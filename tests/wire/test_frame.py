"""The frame codec: round trips, every violation, and bytes that mean nothing."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.errors import FrameError
from geojax.wire.frame import (
    MAX_BODY_BYTES,
    Assembler,
    Header,
    frames_of,
    pack_body,
    parse_header,
    unpack_body,
    wire_bytes,
)
from geojax.wire.message import FRAGMENT_BYTES, HEADER_BYTES, Kind, Message, SizeOnly

INT32 = st.integers(-(2**31), 2**31 - 1)
SIZES = st.sampled_from(
    [0, 1, 7, FRAGMENT_BYTES - 1, FRAGMENT_BYTES, FRAGMENT_BYTES + 1, 3 * FRAGMENT_BYTES]
)
BODIES = st.none() | st.dictionaries(
    st.text(max_size=5),
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    max_size=4,
)
MESSAGES = st.builds(
    Message,
    kind=st.sampled_from(Kind),
    group=INT32,
    epoch=INT32,
    policy=INT32,
    tree=INT32,
    round=INT32,
    chunk=INT32,
    codec=st.integers(0, 2**8 - 1),
    weight=st.floats(allow_nan=False),
    contributors=st.integers(0, 2**32 - 1),
    steps=st.integers(0, 2**32 - 1),
    body=BODIES,
    payload=SIZES.map(lambda size: (np.arange(size) % 251).astype(np.uint8)),
)

# Where the fields that the violations below touch lie in the header.
VERSION, KIND, FLAGS, OFFSET, STEPS, TOTAL, BODY, PAYLOAD = 4, 5, 7, 36, 40, 44, 68, 72


def encode(message: Message, sequence: int = 0) -> list[bytes]:
    return [head + bytes(payload) for head, payload in frames_of(message, sequence)]


def feed(assembler: Assembler, frame: bytes) -> Message | None:
    """What a receiver does with a frame that has come in."""
    raw = bytearray(frame[:HEADER_BYTES])
    header = parse_header(raw)
    body = frame[HEADER_BYTES : HEADER_BYTES + header.body_bytes]
    view = assembler.begin(header)
    view[:] = frame[HEADER_BYTES + header.body_bytes :]
    return assembler.finish(header, raw, body)


def patched(frame: bytes, at: int, layout: str, value: int) -> bytes:
    """The frame with another value in its header, and a checksum that is right for it."""
    changed = bytearray(frame)
    struct.pack_into(layout, changed, at, value)
    checksum = zlib.crc32(changed[HEADER_BYTES:], zlib.crc32(changed[: HEADER_BYTES - 4]))
    struct.pack_into("!I", changed, HEADER_BYTES - 4, checksum)
    return bytes(changed)


def same(a: Message, b: Message) -> bool:
    def fields(message: Message) -> list[object]:
        return [getattr(message, name) for name in Message.__slots__ if name != "payload"]

    def payload(message: Message) -> bytes:
        return message.payload.tobytes() if isinstance(message.payload, np.ndarray) else b""

    return fields(a) == fields(b) and payload(a) == payload(b)


@given(message=MESSAGES)
def test_a_message_survives_the_wire(message: Message) -> None:
    frames = encode(message, sequence=9)
    assembler = Assembler()
    *unfinished, whole = [feed(assembler, frame) for frame in frames]
    assert unfinished == [None] * len(unfinished)
    assert same(whole, message)
    assert assembler.unfinished == 0
    assert sum(map(len, frames)) == wire_bytes(message)


@pytest.mark.parametrize("size", [0, 1, FRAGMENT_BYTES, FRAGMENT_BYTES + 1, 10 * FRAGMENT_BYTES])
def test_the_size_on_the_wire_needs_no_content(size: int) -> None:
    real = Message(Kind.OFFER, body={"a": 1}, payload=np.zeros(size, np.uint8))
    assert wire_bytes(Message(Kind.OFFER, body={"a": 1}, payload=SizeOnly(size))) == sum(
        map(len, encode(real))
    )


def test_payloads_are_views() -> None:
    array = np.zeros(FRAGMENT_BYTES, np.float32)
    for _, payload in frames_of(Message(Kind.OFFER, payload=array)):
        assert np.shares_memory(np.frombuffer(payload, np.uint8), array)


@pytest.mark.parametrize("dtype", ["f4", "f2", "i8", "?", "c8"])
def test_any_plain_dtype_travels_as_its_bytes(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    received = feed(Assembler(), encode(Message(Kind.OFFER, payload=array))[0])
    assert received is not None
    assert received.payload.dtype == np.uint8
    assert np.array_equal(received.payload.view(dtype).reshape(3, 4), array)


def test_each_frame_says_whether_it_follows() -> None:
    frames = frames_of(Message(Kind.OFFER, payload=np.zeros(2 * FRAGMENT_BYTES + 1, np.uint8)))
    assembler, told = Assembler(), []
    for follows in (False, True, False):
        frames.follows = follows
        head, payload = next(frames)
        told.append(parse_header(head[:HEADER_BYTES]).follows)
        whole = feed(assembler, head + bytes(payload))
    assert told == [False, True, False]
    assert whole is not None
    assert next(frames, None) is None


def test_fragments_of_two_messages_interleave() -> None:
    first, second = (
        Message(Kind.OFFER, chunk=i, payload=np.full(3 * FRAGMENT_BYTES, i, np.uint8))
        for i in (1, 2)
    )
    a, b = encode(first, 1), encode(second, 2)
    assembler = Assembler()
    results = [feed(assembler, frame) for frame in (a[0], b[0], a[1], b[1], b[2], a[2])]
    assert [result is not None for result in results] == [False] * 4 + [True] * 2
    assert same(results[4], second)
    assert same(results[5], first)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (Message(Kind.OFFER, payload=SizeOnly(5)), r"SizeOnly\(5\)"),
        (Message(Kind.OFFER, payload=np.zeros((4, 4))[:, ::2]), "C-contiguous"),
        (Message(Kind.OFFER, payload=np.array([None])), "dtype object"),
        (Message(Kind.CONTROL, body={"x": object()}), "msgpack"),
        (Message(Kind.CONTROL, body={"x": 2**70}), "msgpack"),
        (Message(Kind.CONTROL, body={"x": b"0" * MAX_BODY_BYTES}), f"at most {MAX_BODY_BYTES}"),
        (Message(Kind.OFFER, chunk=2**31), "out of range"),
        (Message(Kind.OFFER, codec=-1), "out of range"),
        (Message(Kind.OFFER, steps=-1), "out of range"),
        (Message(Kind.OFFER, steps=2**32), "out of range"),
        (Message(Kind.OFFER, codec=2**8), "out of range"),
    ],
)
def test_what_fits_no_frame_is_refused_at_the_call(message: Message, complaint: str) -> None:
    with pytest.raises(FrameError, match=complaint):
        frames_of(message)


def test_what_has_no_room_in_the_header_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geojax.wire.frame.MAX_SENT_BYTES", 10)
    assert encode(Message(Kind.OFFER, payload=np.zeros(10, np.uint8)))
    with pytest.raises(FrameError, match="at most 10 bytes, came 11; send it in several"):
        frames_of(Message(Kind.OFFER, payload=np.zeros(11, np.uint8)))


FRAME = encode(Message(Kind.OFFER, payload=np.zeros(10, np.uint8)))[0]
TWO = encode(Message(Kind.OFFER, payload=np.zeros(FRAGMENT_BYTES + 10, np.uint8)))


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (FRAME[: HEADER_BYTES - 1], f"expected {HEADER_BYTES} bytes, came {HEADER_BYTES - 1}"),
        (b"HTTP" + FRAME[4:], "magic: expected b'GEOJ', came b'HTTP'"),
        (patched(FRAME, VERSION, "!B", 1), "version: expected 3, came 1"),
        (patched(FRAME, KIND, "!B", 99), "kind: expected one of .*, came 99"),
        (patched(FRAME, FLAGS, "!B", 3), "flags: expected 1 or 0, came 3"),
        (patched(FRAME, BODY, "!I", MAX_BODY_BYTES + 1), f"body: .* came {MAX_BODY_BYTES + 1}"),
        (patched(TWO[1], BODY, "!I", 3), "body: expected it in the first frame"),
        (patched(FRAME, PAYLOAD, "!I", 11), "payload of this frame: expected 10 bytes"),
        (patched(FRAME, PAYLOAD, "!I", 0), "payload of this frame: expected 10 bytes"),
        (patched(TWO[0], PAYLOAD, "!I", FRAGMENT_BYTES + 10), "payload of this frame"),
        (patched(TWO[1], OFFSET, "!I", 1), "offset: expected a multiple"),
        (patched(TWO[1], OFFSET, "!I", 2 * FRAGMENT_BYTES), "offset: expected a multiple"),
    ],
)
def test_headers_that_are_refused(frame: bytes, complaint: str) -> None:
    with pytest.raises(FrameError, match=complaint):
        parse_header(frame[:HEADER_BYTES])


def _claim(total: int) -> Header:
    header = parse_header(TWO[0][:HEADER_BYTES])
    return header._replace(total=total, payload_bytes=min(total, FRAGMENT_BYTES))


def test_claims_are_bounded_before_anything_is_allocated() -> None:
    assembler = Assembler(max_payload_bytes=1000)
    with pytest.raises(FrameError, match="at most 1000 bytes, came a claim of 1001"):
        assembler.begin(_claim(1001))
    with pytest.raises(FrameError, match=f"came a claim of {2**62}"):
        Assembler().begin(_claim(2**62))
    assembler.begin(_claim(1000)._replace(sequence=1))
    assembler.begin(_claim(1000)._replace(sequence=2))
    with pytest.raises(FrameError, match="at most 2000 bytes of payload, came 2001"):
        assembler.begin(_claim(1)._replace(sequence=3))


def test_unfinished_messages_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geojax.wire.frame.MAX_UNFINISHED", 3)
    assembler = Assembler()
    for sequence in range(3):
        assembler.begin(_claim(1)._replace(sequence=sequence))
    with pytest.raises(FrameError, match="unfinished messages: expected at most 3"):
        assembler.begin(_claim(1)._replace(sequence=3))


def test_frames_must_continue_their_message() -> None:
    assembler = Assembler()
    with pytest.raises(FrameError, match="expected its first frame, came offset"):
        feed(assembler, TWO[1])
    feed(assembler, TWO[0])
    with pytest.raises(FrameError, match="came a second first frame"):
        feed(assembler, TWO[0])
    with pytest.raises(FrameError, match="expected its frame at offset"):
        feed(assembler, patched(TWO[1], KIND, "!B", Kind.RESULT))
    with pytest.raises(FrameError, match="expected its frame at offset"):
        feed(assembler, patched(TWO[1], STEPS, "!I", 7))
    assert feed(assembler, TWO[1]) is not None


@pytest.mark.parametrize("position", [10, HEADER_BYTES - 1, HEADER_BYTES + 3])
def test_a_flipped_bit_is_found(position: int) -> None:
    frame = bytearray(FRAME)
    frame[position] ^= 4
    with pytest.raises(FrameError, match="checksum: expected 0x"):
        feed(Assembler(), bytes(frame))


@pytest.mark.parametrize(
    "packed",
    [
        b"\xc1",  # no msgpack
        b"\x93\x01\x02",  # cut off
        b"\x01\x02",  # two values
        b"\xdf\xff\xff\xff\xff",  # a mapping of 2**32 - 1 entries, none of which came
        b"\x81\xa1a\xd4\x05\x00",  # an extension type
        b"\x81\xa1\xff\x01",  # no UTF-8
        b"\x81\x90\x01",  # a list as key
        b"\x91" * 5000 + b"\x01",  # nested without end
        b"\x93\x01\x02\x03",  # no mapping
    ],
)
def test_bodies_that_are_refused(packed: bytes) -> None:
    with pytest.raises(FrameError, match="body: expected"):
        unpack_body(packed)


def test_no_body_is_not_an_empty_body() -> None:
    assert unpack_body(pack_body(None)) is None
    assert unpack_body(pack_body({})) == {}
    assert unpack_body(pack_body({"a": (1, "é", b"\xff")})) == {"a": [1, "é", b"\xff"]}


@given(noise=st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES), keep=st.integers(0, 40))
def test_noise_is_refused_or_bounded(noise: bytes, keep: int) -> None:
    """Whatever stands in a header, the codec answers with FrameError or bounded lengths."""
    raw = FRAME[:keep] + noise[keep:]
    assembler = Assembler(max_payload_bytes=2**20)
    try:
        header = parse_header(raw)
        view = assembler.begin(header)
    except FrameError:
        return
    assert view.nbytes <= FRAGMENT_BYTES
    assert header.total <= 2**20
    assert header.body_bytes <= MAX_BODY_BYTES
