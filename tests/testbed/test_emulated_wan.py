"""The emulated WAN itself: rates, delays, routes and LANs as configured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from geojax.config import LanConfig, WanConfig
from testbed.emulated import EmulatedWan, TestbedError, shaping
from testbed.emulated.commands import inside, run
from testbed.emulated.measure.verify import GOODPUT_FACTOR
from testbed.emulated.switch.plan import netem_lines
from testbed.pids import alive, identify, namespace
from testbed.wan.build import build_wan, load_preset

pytestmark = pytest.mark.emulated

ROOT = Path(__file__).resolve().parents[2]
SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as peer:
    peer.sendall(bytes(int(sys.argv[3])))
    peer.shutdown(socket.SHUT_WR)
    sys.exit(peer.recv(1) != b"k")
"""
RECEIVE = """
import socket
with socket.create_server(("0.0.0.0", 0)) as server:
    print(server.getsockname()[1], flush=True)
    peer, _ = server.accept()
    with peer:
        count = 0
        while size := len(peer.recv(1 << 16)):
            count += size
        peer.sendall(b"k")
        print(count, peer.getpeername()[0], flush=True)
"""


def write(source, target, size, emulated):
    """Sends bytes over TCP; returns (received, sender's address as the receiver saw it)."""
    receiver = emulated.popen(
        target, [sys.executable, "-S", "-c", RECEIVE], stdout=subprocess.PIPE, text=True
    )
    port = receiver.stdout.readline().strip()
    argv = [sys.executable, "-S", "-c", SEND, emulated.address(target), port, str(size)]
    assert emulated.popen(source, argv).wait(timeout=20) == 0
    count, address = receiver.stdout.readline().split()
    receiver.wait(timeout=5)
    receiver.stdout.close()
    return int(count), address


def interfaces():
    return {path.name for path in Path("/sys/class/net").iterdir()}


@pytest.fixture(scope="module")
def three():
    wan = build_wan(load_preset("three_centers"), LanConfig(), 0)
    with EmulatedWan(wan) as emulated:
        yield emulated


@pytest.fixture(scope="module")
def sparse():
    """a - b - c, two workers each, the scheduler in c, an ingress cap at c."""
    wan = WanConfig(
        name="line",
        centers=["a", "b", {"name": "c", "ingress": 30}],
        links=[
            {"between": ["a", "b"], "rate": 50, "rtt": 10},
            {"between": ["b", "c"], "rate": 100, "rtt": 20},
        ],
        server_center="c",
    )
    with EmulatedWan(build_wan(wan, LanConfig(workers=2), 0)) as emulated:
        yield emulated


def test_rates_and_round_trips_are_as_configured_and_change_in_place(three):
    checks = {check.edge: check for check in three.verify(0.1)}
    assert set(checks) == set(three.wan.edges)
    assert checks["c1", "c3"].rate_configured == 60e6
    assert checks["c1", "c3"].rtt_configured == pytest.approx(0.04)
    assert checks["c2", "c3"].rtt_measured == pytest.approx(0.06, abs=3e-3)
    before = three.link_bytes()
    three.change({("c1", "c2"): 20e6, ("c3", "c2"): 80e6})
    edges = [("c1", "c2"), ("c2", "c1"), ("c3", "c2")]
    again = {check.edge: check for check in three.verify(0.1, edges)}
    assert again["c1", "c2"].rate_measured == pytest.approx(20e6 * GOODPUT_FACTOR, rel=0.1)
    assert again["c2", "c1"].rate_measured == pytest.approx(100e6 * GOODPUT_FACTOR, rel=0.1)
    assert again["c3", "c2"].rate_measured == pytest.approx(80e6 * GOODPUT_FACTOR, rel=0.1)
    grown = {edge: count - before[edge] for edge, count in three.link_bytes().items()}
    assert grown["c3", "c2"] > 1e6  # counters go on: the classes were changed, not replaced
    assert all(count >= 0 for count in grown.values())
    three.change({("c1", "c2"): 100e6, ("c3", "c2"): 40e6})


def test_a_link_that_is_not_as_configured_stops_the_run(three):
    shown = three.popen("c1", ["tc", "qdisc", "show"], stdout=subprocess.PIPE, text=True)
    device = next(line.split()[4] for line in shown.communicate()[0].splitlines() if "htb" in line)
    slower = ["class", "change", "dev", device, "parent", "1:1", "classid", "1:10", "htb"]
    assert three.popen("c1", ["tc", *slower, "rate", "50mbit"]).wait() == 0
    try:
        with pytest.raises(TestbedError, match=r"1 of 1 links") as caught:
            three.verify(0.15, [("c1", "c2")])
        assert "c1 -> c2" in str(caught.value)
    finally:
        three.change({("c1", "c2"): 100e6})


def test_choices_are_recorded(three):
    facts = json.loads(json.dumps(three.facts))
    assert facts["sysctl"]["net.ipv4.tcp_slow_start_after_idle"] == "0"
    assert facts["congestion_control"] == "cubic"
    assert "cubic" in facts["congestion_controls_available"]
    assert facts["delay"]["kind"] in {"netem", "delay switch"}


def test_wrong_nodes_links_and_rates_are_refused(three):
    with pytest.raises(TestbedError, match=r"no node 'c4'; nodes: scheduler, c1, c2, c3"):
        three.address("c4")
    with pytest.raises(TestbedError, match="no link c1 -> c4"):
        three.change({("c1", "c4"): 1e6})
    for rate in (-1.0, 1e12, float("nan")):
        with pytest.raises(TestbedError, match=r"link c1 -> c2: .* cannot be emulated; give 0 to"):
            three.change({("c1", "c2"): rate})
    with pytest.raises(TestbedError, match="already up"):
        three.start()


def test_netems_filters_tell_sources_apart_in_this_kernel(three):
    """With plain queues in netem's place, so that it runs on kernels without netem too."""
    ports, crossings = three._layout.ports(), three._layout.crossings(0)
    into = ports[1].interface  # towards c2
    lines = [line for line in netem_lines(ports, crossings) if f"dev {into} " in line]
    lines = [line.split(" netem ")[0] + " bfifo" if " netem " in line else line for line in lines]
    switch = three._fabric.wan_switch.pid
    run(inside(switch, ["tc", "-batch", "-"]), lines)
    for source, count in (("c1", "3"), ("c3", "5")):
        ping = ["ping", "-q", "-c", count, "-i", "0.01", "-s", "1000", three.address("c2")]
        assert three.popen(source, ping, stdout=subprocess.DEVNULL).wait() == 0
    sent = shaping.sent_bytes(run(inside(switch, ["tc", "-s", "class", "show", "dev", into])))
    run(inside(switch, ["tc", "qdisc", "del", "dev", into, "root"]))
    for minor, count in ((shaping.FIRST_MINOR, 3), (shaping.FIRST_MINOR + 2, 5)):
        assert count * 1042 <= sent[minor] < (count + 1) * 1042  # a stray small packet is no matter


def test_sparse_traffic_crosses_the_center_between(sparse):
    before = sparse.link_bytes()
    size = 300_000
    assert write("a", "c", size, sparse) == (size, sparse.address("a"))
    carried = {edge: count - before[edge] for edge, count in sparse.link_bytes().items()}
    for hop in (("a", "b"), ("b", "c")):
        assert size < carried[hop] < 1.2 * size
    for back in (("b", "a"), ("c", "b")):
        assert 0 < carried[back] < 0.2 * size


def test_caps_bound_the_links_below_them(sparse):
    check = sparse.verify(0.1, [("b", "c")])[0]
    assert check.rate_configured == 30e6
    assert check.rate_measured == pytest.approx(30e6 * GOODPUT_FACTOR, rel=0.1)


def test_workers_reach_their_server_each_other_and_the_scheduler_far_away(sparse):
    before = sparse.link_bytes()
    size = 200_000
    worker = sparse.address("a/w1")
    for target in ("a", "a/w0"):
        assert write("a/w1", target, size, sparse) == (size, worker)
    grown = [count - before[edge] for edge, count in sparse.link_bytes().items()]
    assert max(grown) < size / 10  # what stays in a center is no WAN traffic
    assert write("a/w1", "scheduler", size, sparse) == (size, worker)
    assert write("c", "a/w0", size, sparse) == (size, sparse.address("c"))
    assert sparse.link_bytes()["a", "b"] > before["a", "b"] + size


def test_nothing_is_left_after_stop_even_of_stubborn_processes():
    around = interfaces()
    emulated = EmulatedWan(
        build_wan(load_preset("uniform", centers=2), LanConfig(workers=2), 0), run_id="leaves.none"
    )
    emulated.start()
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True);"
    process = emulated.popen(
        "c1/w0", [sys.executable, "-S", "-c", f"{stubborn} time.sleep(600)"], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    child = emulated.popen("c1", ["setsid", "--fork", "sleep", "617"])
    assert child.wait(timeout=5) == 0  # its child lives on, in the namespace but not on record
    state = emulated._state
    made = [*state.shells, *state.others]
    assert state.path.exists()
    assert namespace(process.pid) != namespace(1)
    emulated.stop()
    emulated.stop()  # harmless
    assert process.returncode is not None
    process.stdout.close()
    assert not [entry for entry in made if alive(entry)]
    left = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    commands = {(entry / "cmdline").read_bytes() for entry in left if identify(int(entry.name))}
    assert b"sleep\x00617\x00" not in commands
    assert interfaces() == around
    assert not state.path.exists()
    with pytest.raises(TestbedError, match="is not up"):
        emulated.popen("c1", ["true"])


def test_a_failing_start_leaves_nothing(monkeypatch):
    emulated = EmulatedWan(build_wan(load_preset("three_centers"), LanConfig(), 0))
    monkeypatch.setattr(shaping, "SMALLEST_QUEUE", -1)
    monkeypatch.setattr(shaping, "queue_bytes", lambda _rate, _rtt: "nonsense")
    with pytest.raises(TestbedError, match=r"tc -batch - failed .*nonsense|(?s:.*)nonsense"):
        emulated.start()
    assert emulated._state is None
    with pytest.raises(TestbedError, match="is not up"):
        emulated.link_bytes()


def test_the_command_line_gives_a_wan_to_try(tmp_path):
    script = "c1 ping -q -c2 -i0.2 eu-west\neu-west/w1 ping -c1 -q c1\nexit\n"
    wan = tmp_path / "two.yaml"
    wan.write_text(
        "centers: [c1, {name: eu-west, workers: 2}]\n"
        "links: [{between: [c1, eu-west], rate: 50, rtt: 10}]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "testbed", "up", f"wan={wan}", "wan.bandwidth_scale=0.5"],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr  # Mininet writes what hosts say to its log
    assert "2 packets transmitted, 2 received" in said
    assert "1 packets transmitted, 1 received" in said
    assert "WAN two is down" in done.stdout


def test_check_says_that_emulation_works_here():
    argv = [sys.executable, "-m", "testbed", "check", "--format", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["emulation"]
    assert found["delay_by"] in {"netem", "delay switch"}


def test_the_longest_names_work_although_interfaces_have_15_characters():
    names = ["ap-northeast-1", "a" * 40]
    links = [{"between": names, "rate": 20, "rtt": 10}]
    wan = WanConfig(name="long", centers=names, links=links)
    before = interfaces()
    with EmulatedWan(build_wan(wan, LanConfig(workers=2), 0)) as emulated:
        assert all(len(name) <= 15 for name in interfaces() - before)
        assert write(f"{names[1]}/w1", f"{names[0]}/w0", 1000, emulated)[0] == 1000
        assert set(emulated.link_bytes()) == {(names[0], names[1]), (names[1], names[0])}
    assert interfaces() == before
