"""The meter, on arrivals made by hand."""

import itertools

import numpy as np
import pytest

from geojax.awareness.link_meter import LEAST_BYTES, LEAST_S, LinkMeter
from geojax.wire.frame import Assembler, frames_of, parse_header
from geojax.wire.message import FRAGMENT_BYTES, HEADER_BYTES, Kind, Message
from geojax.wire.transport import LinkCounters, Received

MB = 1_000_000


class Ends:
    """A transport that only says what was counted and what is stalled."""

    def __init__(self):
        self.sent = {}
        self.standing = {}

    def stalled(self, peer):
        return self.standing.get(peer, 0.0)


@pytest.fixture
def ends():
    return Ends()


@pytest.fixture
def meter(ends):
    return LinkMeter(ends, ["c2", "c3"])


def arrive(meter, *arrivals, peer="c2"):
    """Arrivals as (bytes, when, follows)."""
    for nbytes, at, follows in arrivals:
        meter.arrived(Received(peer, Message(Kind.OFFER), nbytes, at, follows))


def test_a_train_is_timed_from_the_end_of_its_first_message(meter):
    arrive(meter, (5 * MB, 10.0, False), (MB, 10.5, True), (MB, 11.0, True), (2 * MB, 12.0, True))
    assert meter.links() == (("c2", 4 * MB, 2.0),)
    assert meter.links() == ()


def test_gaps_between_trains_count_nothing(meter):
    arrive(meter, (MB, 1.0, False), (MB, 1.5, True), (MB, 9.0, False), (MB, 9.5, True))
    assert meter.links() == (("c2", 2 * MB, 1.0),)


def test_single_messages_time_nothing(meter):
    arrive(meter, (MB, 1.0, False), (MB, 2.0, False), (MB, 3.0, False))
    assert meter.links() == ()


def test_a_train_goes_on_over_a_report(meter):
    arrive(meter, (MB, 1.0, False), (MB, 1.5, True))
    assert meter.links() == (("c2", MB, 0.5),)
    arrive(meter, (MB, 2.0, True))
    assert meter.links() == (("c2", MB, 0.5),)


def test_what_follows_a_message_that_was_never_seen_is_not_timed(meter):
    arrive(meter, (MB, 1.0, True), (MB, 1.5, True))
    assert meter.links() == (("c2", MB, 0.5),)


def test_little_is_kept_until_there_is_more(meter):
    arrive(meter, (1000, 1.0, False), (LEAST_BYTES - 1, 1.25, True))
    assert meter.links() == ()
    arrive(meter, (1, 1.5, True))
    assert meter.links() == (("c2", LEAST_BYTES, 0.5),)


def test_what_was_read_in_one_go_is_kept_until_it_lasted_longer(meter):
    arrive(meter, (MB, 1.0, False), (MB, 1.0, True), (MB, 1.0 + LEAST_S / 2, True))
    assert meter.links() == ()
    arrive(meter, (MB, 2.0, True))
    assert meter.links() == (("c2", 3 * MB, 1.0),)


def test_peers_are_apart_and_others_count_nothing(meter):
    arrive(meter, (MB, 1.0, False), peer="c2")
    arrive(meter, (MB, 1.2, False), peer="c3")
    arrive(meter, (MB, 1.3, False), (MB, 1.4, True), peer="c1/w0")
    arrive(meter, (MB, 2.0, True), peer="c2")
    arrive(meter, (MB, 2.2, True), peer="c3")
    assert meter.links() == (("c2", MB, 1.0), ("c3", MB, pytest.approx(1.0)))


def test_datagrams_neither_count_nor_break_a_train(meter):
    arrive(meter, (MB, 1.0, False), (MB, None, False), (MB, 2.0, True))
    assert meter.links() == (("c2", MB, 1.0),)


def test_a_slow_event_loop_changes_nothing(meter):
    """Messages that are handled late, and all at once, carry the times at which they were read."""
    late = [(MB, 1.0, False), *((MB, 1.0 + 0.1 * k, True) for k in range(1, 6))]
    arrive(meter, *late)
    [[peer, nbytes, seconds]] = meter.links()
    assert (peer, nbytes / seconds) == ("c2", pytest.approx(10 * MB))


def test_where_nothing_moves_is_told_with_no_bytes(meter, ends):
    ends.standing["c3"] = 2.5
    assert meter.links() == (("c3", 0, 2.5),)


def test_sent_bytes_are_those_of_chunks_to_these_peers(meter, ends):
    ends.sent["c2"] = LinkCounters()
    ends.sent["c2"].add(Kind.OFFER, 5 * MB)  # in the part of the run that a checkpoint ended
    assert meter.sent() == 0
    for peer in ("c2", "c3", "scheduler", "c1/w0"):
        ends.sent.setdefault(peer, LinkCounters())
        for kind in Kind:
            ends.sent[peer].add(kind, 10 ** int(kind))
    chunks = (Kind.OFFER, Kind.RESULT, Kind.AGGREGATE, Kind.STATE, Kind.LATE)
    assert meter.sent() == 2 * sum(10 ** int(kind) for kind in chunks)


def test_interleaved_fragments_are_all_counted_wherever_their_messages_end(meter):
    """Two large messages whose frames alternate, as a connection reads them: 1 s for each frame."""
    frames = [frames_of(Message(Kind.OFFER, chunk=n, payload=_zeros(3)), n) for n in (0, 1)]
    clock, gathered, follows = itertools.count(1.0), 0, True
    assembler = Assembler()
    for number, index in enumerate((0, 1, 0, 1, 1, 0)):
        frames[index].follows = number > 0
        head, payload = next(frames[index])
        header = parse_header(head[:HEADER_BYTES])
        assembler.begin(header)[:] = payload
        whole = assembler.finish(header, bytearray(head), b"")
        gathered, follows, at = (
            gathered + header.frame_bytes,
            follows and header.follows,
            next(clock),
        )
        if whole is not None:
            meter.arrived(Received("c2", whole, gathered, at, follows))
            gathered, follows = 0, True
    assert meter.links() == (("c2", FRAGMENT_BYTES + HEADER_BYTES, 1.0),)


def _zeros(frames):
    return np.zeros(frames * FRAGMENT_BYTES, np.uint8)
