"""What happens to the packets of emulated links: outages, jitter, loss, a dead forwarder."""

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from geojax.config import LanConfig, RunConfig, WanConfig
from geojax.models.registry import SyntheticConfig
from testbed.emulated import EmulatedWan, TestbedError
from testbed.emulated.measure.verify import Agent
from testbed.run import run as start_run
from testbed.wan.build import build_wan, load_preset

pytestmark = pytest.mark.emulated

SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as peer:
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
    while True:
        peer.sendall(bytes(1 << 16))
"""
RECEIVE = """
import os, socket
with socket.create_server(("0.0.0.0", 0)) as server:
    os.write(1, b"%d\\n" % server.getsockname()[1])
    peer, _ = server.accept()
    with peer:
        while size := len(peer.recv(1 << 16)):
            os.write(1, b"." * (size // 1000 + 1))
"""


def wan_of_two(**links):
    """a and b, the way from a to b with these settings."""
    there = {"from": "a", "to": "b", "rate": 50, "rtt": 20, **links}
    back = {"from": "b", "to": "a", "rate": 50, "rtt": 20}
    wan = WanConfig(name="two", centers=["a", "b"], links=[there, back])
    return build_wan(wan, LanConfig(), 0)


@pytest.fixture
def two():
    with EmulatedWan(wan_of_two()) as emulated:
        yield emulated


@pytest.fixture
def delaying(monkeypatch):
    """The same with the delaying switch, also where the kernel has netem."""
    monkeypatch.setattr("testbed.emulated.probe.has_netem", lambda: False)
    with EmulatedWan(wan_of_two()) as emulated:
        yield emulated


@contextmanager
def tcp_flow(emulated):
    """A bulk transfer from a to b; gives the pipe on which the receiver writes a dot a kilobyte."""
    python = [sys.executable, "-S", "-c"]
    receiver = emulated.popen("b", [*python, RECEIVE], stdout=subprocess.PIPE, bufsize=0)
    port = receiver.stdout.readline().decode().strip()
    sender = emulated.popen("a", [*python, SEND, emulated.address("b"), port])
    try:
        yield receiver.stdout.fileno()
    finally:
        for process in (sender, receiver):
            process.kill()
            process.wait()
        receiver.stdout.close()


def progress(pipe, seconds):
    """Kilobytes that come in within so many seconds."""
    count, end = 0, time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([pipe], (), (), left)[0]:
            count += len(os.read(pipe, 1 << 16))
    return count


def first_progress(pipe, seconds):
    """After how many seconds something comes in."""
    begin = time.monotonic()
    assert select.select([pipe], (), (), seconds)[0], f"nothing within {seconds} s"
    return time.monotonic() - begin


@pytest.mark.parametrize("rates", [{("a", "b"): 0.0}, {("a", "b"): 0.0, ("b", "a"): 1000.0}])
def test_nothing_passes_in_an_outage_and_the_flow_goes_on_at_once_afterwards(two, rates):
    with tcp_flow(two) as pipe:
        assert progress(pipe, 0.5) > 500
        two.change(rates)
        progress(pipe, 0.1)  # what was under way
        assert progress(pipe, 1.5) == 0
        two.change(dict.fromkeys(rates, 0.0))  # changes nothing
        assert progress(pipe, 0.1) == 0
        two.change(dict.fromkeys(rates, 20e6))
        assert first_progress(pipe, 2) < 0.5
        progress(pipe, 0.5)
        assert progress(pipe, 1.0) == pytest.approx(0.95 * 20e6 / 8000, rel=0.25)
    counters = two.switch_counters()
    assert not counters or counters["held"] == 0


def echoes(emulated, source, target, count):
    """What datagrams from source to target, and their echoes, experience."""
    agents = {center: Agent(center, emulated.popen) for center in (source, target)}
    try:
        for agent in agents.values():
            agent.begin()
        port = agents[target].ports["echo"]
        agents[source].order(do="echo", host=emulated.address(target), port=port, count=count)
        return agents[source].answer()
    finally:
        for agent in agents.values():
            agent.end()


def test_jitter_and_loss_are_as_configured_and_order_is_kept():
    wan = wan_of_two(jitter=1.5, loss=0.1)  # a span of 3 ms, as the echoes' spacing
    with EmulatedWan(wan, seed=3) as emulated:
        checks = emulated.verify(0.15)  # of the bare link
        assert len(checks) == 2
        count = 500
        found = echoes(emulated, "a", "b", count)
        assert len(found["delays"]) / count == pytest.approx(0.9, abs=0.05)
        low, middle, high = statistics.quantiles(found["delays"], n=4)
        assert middle == pytest.approx(0.010, abs=0.5e-3)
        assert high - low == pytest.approx(1.5e-3, abs=0.5e-3)
        assert min(found["delays"]) > 0.008
        back = [rtt - delay for rtt, delay in zip(found["rtts"], found["delays"], strict=True)]
        assert statistics.median(back) == pytest.approx(0.010, abs=1e-3)
        if not (before := emulated.switch_counters()):
            return  # netem counts for itself
        with tcp_flow(emulated) as pipe:
            # A tenth lost may well silence TCP for a second or two.
            assert any(progress(pipe, 0.7) > 10 for _ in range(8))
        after = emulated.switch_counters()
        frames = after["forwarded"] - before["forwarded"]
        assert (after["bytes"] - before["bytes"]) / frames <= 1514  # no super-packets
        assert after["lost"] > before["lost"]


def test_links_in_an_outage_are_not_measured(two):
    two.change({("a", "b"): 0.0})
    assert two.measure(0.15, [("a", "b")]) == []
    assert two.verify(0.15, [("a", "b")]) == []


def test_a_dead_forwarder_is_noticed_and_named(delaying):
    delaying.check_alive()
    switch = delaying._fabric.wan_switch
    os.kill(switch.forwarder.pid, signal.SIGKILL)
    switch.forwarder.wait()
    for touch in (
        delaying.check_alive,
        delaying.switch_counters,
        lambda: delaying.change({("a", "b"): 0.0}),
    ):
        with pytest.raises(TestbedError, match=r"was killed by signal 9, so nothing passes"):
            touch()


def test_a_run_ends_at_once_when_the_forwarder_dies(tmp_path, monkeypatch):
    monkeypatch.setattr("testbed.emulated.probe.has_netem", lambda: False)
    start = EmulatedWan.popen

    def popen(self, node, argv, **settings):
        if "geojax.node" in argv and node == "c3":
            os.kill(self._fabric.wan_switch.forwarder.pid, signal.SIGKILL)
        return start(self, node, argv, **settings)

    monkeypatch.setattr(EmulatedWan, "popen", popen)
    config = RunConfig(wan=load_preset("three_centers"), rounds=1000)
    config.model = SyntheticConfig(bytes=1000)
    config.testbed.name = "emulated"
    with pytest.raises(TestbedError, match="was killed by signal 9, so nothing passes"):
        start_run(config, tmp_path)
    measured = json.loads((tmp_path / "wan.json").read_text())  # written before the nodes start
    assert measured["tolerance"] == config.testbed.verify_tolerance
    assert len(measured["links"]) == 6
    assert measured["testbed"]["delay"]["kind"] == "delay switch"


def test_a_cut_stops_the_rounds_for_as_long_as_the_simulator_says(tmp_path):
    ends = {}
    for testbed in ("simulated", "emulated"):
        config = RunConfig(wan=load_preset("three_centers"), rounds=6)
        config.model = SyntheticConfig(bytes=2_000_000)
        config.testbed.name = testbed
        config.model.pace_s = 0.1
        config.testbed.faults = [{"at": 0.9, "kind": "cut", "between": ["c1", "c2"], "duration": 2}]
        start_run(config, tmp_path / testbed)
        lines = (tmp_path / testbed / "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        rates = [event["rates"] for event in events if event["event"] == "rates"]
        assert [{rate for _, _, rate in change} for change in rates] == [{0.0}, {100e6}]
        held = {}  # by all
        for event in events:
            if event["event"] == "round":
                held[event["round"]] = max(held.get(event["round"], 0.0), event["held"])
        assert not [at for at in held.values() if 1.0 < at < 2.9]
        ends[testbed] = held[5]
    assert ends["emulated"] == pytest.approx(ends["simulated"], rel=0.15)


def test_a_run_whose_links_are_off_keeps_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("testbed.emulated.measure.verify.GOODPUT_FACTOR", 1.9)
    config = RunConfig(wan=load_preset("three_centers", centers=["c1", "c2"]), rounds=1)
    config.wan.links = [{"between": ["c1", "c2"], "rate": 50, "rtt": 10}]
    config.model = SyntheticConfig(bytes=1000)
    config.testbed.name = "emulated"
    with pytest.raises(TestbedError, match=r"2 of 2 links .*tolerance 15%") as caught:
        start_run(config, tmp_path)
    assert "c2 -> c1" in str(caught.value)
    assert "raise testbed.verify_tolerance" in str(caught.value)
    links = json.loads((tmp_path / "wan.json").read_text())["links"]
    assert [link["rate_configured"] for link in links] == [50e6, 50e6]
    assert links[0]["rate_measured"] == pytest.approx(0.95 * 50e6, rel=0.2)


def test_what_ended_the_forwarder_is_told(delaying):
    switch = delaying._fabric.wan_switch
    with pytest.raises(
        TestbedError, match=r"status 1, .* its last words: ValueError: no such order: 'dance'"
    ):
        switch._ask({"do": "dance"})


def test_a_center_alone_has_no_links_to_change():
    wan = build_wan(WanConfig(name="one", centers=["a"], links=[]), LanConfig(), 0)
    with EmulatedWan(wan) as emulated:
        emulated.check_alive()
        assert emulated.switch_counters() == {}
        with pytest.raises(TestbedError, match="no link a -> b"):
            emulated.change({("a", "b"): 0.0})
