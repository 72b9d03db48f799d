"""The delaying switch's scheduling, on a clock of its own and ports made of lists."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from testbed.emulated.switch.forwarder import (
    BUSY_FRAMES,
    LATE_NS,
    ORPHAN_CHECK_S,
    REST_NS,
    TURN,
    Flight,
    Forwarder,
)
from testbed.emulated.switch.paths import Path

MS = 1_000_000  # ns


def frame(target: int, text: bytes = b"") -> bytes:
    """A frame as the kernel gives it: virtio-net header, then Ethernet."""
    return bytes(10) + mac(target) + bytes(8) + text


def mac(number: int) -> bytes:
    return bytes([2, 0x67, 0, 0, 0, number])


class Clock:
    def __init__(self):
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Port:
    """Frames that wait to be read; reading more would block."""

    def __init__(self):
        self.waiting = []

    def recv_into(self, view) -> int:
        if not self.waiting:
            raise BlockingIOError
        data = self.waiting.pop(0)
        view[: len(data)] = data
        return len(data)


def switch(delays):
    """A forwarder with one port per source, and what each target got: (time, frame)."""
    clock, got = Clock(), defaultdict(list)
    ports = {source: Port() for source, _ in delays}
    paths = defaultdict(dict)
    for (source, target), delay in delays.items():
        deliver = lambda data, target=target: got[target].append((clock.now, data))  # noqa: E731
        paths[ports[source]][mac(target)] = Path(delay, deliver)
    return Forwarder(dict(paths), clock), ports, clock, got


def test_a_frame_is_held_for_its_paths_delay_and_unchanged():
    forwarder, ports, clock, got = switch({(1, 2): 10 * MS, (1, 3): 30 * MS})
    ports[1].waiting = [frame(3, b"far"), frame(2, b"near")]
    forwarder.take(ports[1])
    clock.now = 10 * MS - 1
    forwarder.give()
    assert not got
    clock.now = 10 * MS
    forwarder.give()
    assert got == {2: [(10 * MS, frame(2, b"near"))]}
    clock.now = 30 * MS
    forwarder.give()
    assert got[3] == [(30 * MS, frame(3, b"far"))]
    assert forwarder.forwarded == 2
    assert forwarder.bytes == len(frame(3, b"far")) + len(frame(2, b"near")) - 20


@given(st.lists(st.tuples(st.sampled_from([2, 3, 4]), st.integers(0, 5 * MS)), max_size=60))
def test_every_flow_keeps_its_order_and_nothing_is_lost(arrivals):
    forwarder, ports, clock, got = switch({(1, 2): 20 * MS, (1, 3): 5 * MS, (1, 4): 0})
    for number, (target, pause) in enumerate(arrivals):
        clock.now += pause
        ports[1].waiting.append(frame(target, number.to_bytes(2)))
        forwarder.take(ports[1])
        forwarder.give()
    clock.now += 20 * MS
    forwarder.give()
    for target in (2, 3, 4):
        sent = [frame(target, n.to_bytes(2)) for n, (to, _) in enumerate(arrivals) if to == target]
        assert [data for _, data in got[target]] == sent
    assert forwarder.wait_s() == ORPHAN_CHECK_S


@given(st.lists(st.integers(0, 1000)))
def test_frames_land_by_time_and_equal_times_by_arrival(releases):
    flight = Flight()
    for number, release in enumerate(releases):
        flight.depart(release, print, number.to_bytes(4))
    landed = [(release, int.from_bytes(data)) for release, _, data in flight.land(500)]
    landed += [(release, int.from_bytes(data)) for release, _, data in flight.land(1000)]
    assert landed == sorted((release, number) for number, release in enumerate(releases))
    assert flight.next_landing() is None


def test_frames_without_a_link_are_dropped_and_counted():
    forwarder, ports, clock, got = switch({(1, 2): 0})
    ports[1].waiting = [frame(9), bytes(10) + b"\xff" * 6 + bytes(8), frame(2)]
    forwarder.take(ports[1])
    forwarder.give()
    assert list(got) == [2]
    assert forwarder.unknown == 2
    assert clock.now == 0


def test_one_busy_port_does_not_starve_the_others():
    forwarder, ports, _, _ = switch({(1, 2): MS, (3, 2): MS})
    ports[1].waiting = [frame(2)] * (TURN + 5)
    forwarder.take(ports[1])
    assert len(ports[1].waiting) == 5


def test_it_sleeps_exactly_until_the_next_release():
    forwarder, ports, clock, _ = switch({(1, 2): 7 * MS})
    assert forwarder.wait_s() == ORPHAN_CHECK_S
    ports[1].waiting = [frame(2)]
    forwarder.take(ports[1])
    clock.now = 3 * MS
    assert forwarder.wait_s() == 0.004
    clock.now = 8 * MS
    assert forwarder.wait_s() == 0


def test_a_full_queue_drops_the_frame_and_goes_on():
    clock = Clock()
    port = Port()

    def full(_data):
        raise OSError(105, "No buffer space available")

    forwarder = Forwarder({port: {mac(2): Path(0, full)}}, clock)
    port.waiting = [frame(2), frame(2)]
    forwarder.take(port)
    forwarder.give()
    assert (forwarder.dropped, forwarder.forwarded) == (2, 0)


def test_a_busy_forwarder_gives_frames_that_are_due_within_its_lead():
    forwarder, ports, clock, got = switch({(1, 2): 10 * MS})
    for number in range(BUSY_FRAMES):
        assert not forwarder.busy()
        ports[1].waiting = [frame(2, number.to_bytes(2))]
        forwarder.take(ports[1])
        clock.now += MS // 10
    assert forwarder.busy()
    clock.now = 10 * MS - REST_NS
    assert forwarder.give() == 0
    assert forwarder.give(REST_NS) == 1
    clock.now = 11 * MS
    assert forwarder.give(REST_NS) == 12
    assert [data for _, data in got[2]] == [frame(2, n.to_bytes(2)) for n in range(13)]


def test_late_frames_are_counted():
    forwarder, ports, clock, _ = switch({(1, 2): MS})
    for lateness in (LATE_NS, LATE_NS + 1):
        ports[1].waiting = [frame(2)]
        forwarder.take(ports[1])
        clock.now += MS + lateness
        forwarder.give()
    assert forwarder.late == 1
