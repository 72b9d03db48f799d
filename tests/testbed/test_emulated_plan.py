"""The emulated WAN's commands, names and routes, without running any of them."""

import json
import os
import re
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.config import LanConfig, WanConfig
from testbed.emulated import naming, probe, shaping
from testbed.emulated.cleanup.state import RunState, load
from testbed.emulated.cleanup.teardown import tear_down
from testbed.emulated.interactive import down
from testbed.emulated.layout import Layout
from testbed.emulated.measure import verify
from testbed.emulated.measure.verify import LinkCheck, Target
from testbed.emulated.switch.forwarder import read_path
from testbed.emulated.switch.plan import forwarder_config, netem_change_lines, netem_lines
from testbed.errors import TestbedError
from testbed.pids import Process, alive, identify
from testbed.wan.build import build_wan


def layout(centers, links, rtt=20.0, **lan):
    entries = [{"between": [a, b], "rate": rate} for a, b, rate in links]
    wan = WanConfig(name="test", centers=centers, links=entries, rtt=rtt)
    return Layout(build_wan(wan, LanConfig(**lan), 0), "gtest")


def line_of_three(**lan):
    return layout(["a", "b", "c"], [("a", "b", 10), ("b", "c", 20)], **lan)


def impaired(**there):
    """a -> b with jitter and loss, b -> a with neither."""
    there = {"jitter": {"ms": 2, "distribution": "normal"}, "loss": 0.01, **there}
    links = [
        {"from": "a", "to": "b", "rate": 10, "rtt": 20, **there},
        {"from": "b", "to": "a", "rate": 10, "rtt": 20},
    ]
    wan = WanConfig(name="test", centers=["a", "b"], links=links)
    return Layout(build_wan(wan, LanConfig(), 0), "gtest")


def filters(lines):
    """(matches, class) of every u32 filter: a match is (bytes, value, mask, offset)."""
    found = []
    for line in lines:
        if line.startswith("filter"):
            matches = [
                (int(bits) // 8, int(value, 16), int(mask, 16), int(offset))
                for bits, value, mask, offset in re.findall(
                    r"match u(\d+) (0x[0-9a-f]+) (0x[0-9a-f]+) at (-?\d+)", line
                )
            ]
            found.append((matches, line.split("flowid ")[1]))
    return found


def classify(lines, target, source):
    """The class that an IP packet in an Ethernet frame falls into, as the kernel would say."""
    frame = bytes.fromhex((target + source).replace(":", "")) + b"\x08\x00" + bytes(20)
    for matches, flow in filters(lines):
        for size, value, mask, offset in matches:
            at = 14 + offset  # offsets count from the network header
            if int.from_bytes(frame[at : at + size]) & mask != value:
                break
        else:
            return flow
    return None


@given(st.sets(st.integers(0, naming.MAX_CENTERS - 1), min_size=2, max_size=9))
def test_egress_classes_are_chosen_by_the_next_hops_mac(indices):
    branches = [
        shaping.Branch(shaping.FIRST_MINOR + number, naming.wan_mac(index), 1e6, 0.01)
        for number, index in enumerate(sorted(indices))
    ]
    lines = shaping.egress("dev0", branches, None)
    for branch in branches:
        flow = classify(lines, branch.mac, "02:67:00:00:ff:ff")
        assert flow == f"1:{branch.minor:x}"
    assert classify(lines, "02:67:00:00:ff:fe", branches[0].mac) is None


def test_egress_commands_in_full():
    branch = shaping.Branch(0x10, "02:67:00:00:00:02", 100e6, 0.04)
    assert shaping.egress("gab-w0", [branch], None) == [
        "qdisc replace dev gab-w0 root handle 1: htb default 0",
        "class add dev gab-w0 parent 1: classid 1:1 htb rate 100000000000bit ceil 100000000000bit"
        " burst 25000000 cburst 25000000 quantum 15140",
        "class add dev gab-w0 parent 1:1 classid 1:10 htb rate 100000000bit ceil 100000000bit"
        " burst 25000 cburst 25000 quantum 15140",
        "qdisc add dev gab-w0 parent 1:10 handle 1010: bfifo limit 500000",
        "filter add dev gab-w0 parent 1: protocol all prio 1 u32 match u16 0x0267 0xffff at -14"
        " match u32 0x00000002 0xffffffff at -12 flowid 1:10",
    ]


def rates_of(line):
    return tuple(int(re.search(rf"\b{key} (\d+)bit", line)[1]) for key in ("rate", "ceil"))


def test_under_a_cap_guarantees_never_exceed_it_and_links_keep_their_rate_as_ceiling():
    rates = (5e6, 40e6, 60e6)
    branches = [
        shaping.Branch(shaping.FIRST_MINOR + n, naming.wan_mac(n), rate, 0.01)
        for n, rate in enumerate(rates)
    ]
    lines = shaping.egress("dev0", branches, cap=30e6)
    root, *leaves = [rates_of(line) for line in lines if line.startswith("class")]
    assert root == (30e6, 30e6)
    assert [ceil for _, ceil in leaves] == list(rates)
    assert [sure for sure, _ in leaves] == [5e6, 10e6, 10e6]


def test_a_change_only_changes():
    branch = shaping.Branch(0x12, "02:67:00:00:00:02", 7e6, 0.2)
    lines = shaping.change("dev0", [branch], cap=None, neighbours=3)
    assert [line.split()[:2] for line in lines] == [["class", "change"], ["qdisc", "change"]]
    assert rates_of(lines[0]) == (7e6, 7e6)
    assert lines[1].endswith("bfifo limit 175000")


def test_netem_delays_by_source_under_the_targets_cap():
    parts = layout(["a", {"name": "b", "ingress": 30}, "c"], [("a", "b", 10), ("b", "c", 20)])
    ports, crossings = parts.ports(), parts.crossings(0)
    lines = netem_lines(ports, crossings)
    at_b = [line for line in lines if f"dev {ports[1].interface} " in line]
    from_a = classify(at_b, ports[1].mac, ports[0].mac)
    from_c = classify(at_b, ports[1].mac, ports[2].mac)
    assert None not in (from_a, from_c)
    assert from_a != from_c
    assert classify(at_b, ports[1].mac, "02:67:00:00:00:99") is None
    assert sum("netem delay 10000us" in line for line in at_b) == 2
    assert rates_of(at_b[1]) == (30e6, 30e6)
    at_a = [line for line in lines if f"dev {ports[0].interface} " in line]
    assert classify(at_a, ports[0].mac, ports[2].mac) is None  # no link c -> a
    assert all(" limit " in line for line in lines if "netem" in line)


def netem_of(lines):
    """What netem is told, by interface."""
    found = {}
    for line in lines:
        if " netem " in line:
            interface = re.search(r" dev (\S+) ", line)[1]
            found[interface] = (line.split()[1], line.split(" netem ")[1])
    return found


def test_netem_is_told_jitter_loss_and_seed_and_keeps_the_order():
    parts = impaired()
    ports, crossings = parts.ports(), parts.crossings(7)
    plain = ("add", "delay 10000us limit 1049")
    random = "delay 10000us 2000us distribution normal loss random 1%"
    ordered = "limit 1088 rate 100000000000bit"  # a rate keeps netem from reordering
    assert netem_of(netem_lines(ports, crossings)) == {
        "gtest-s0": plain,
        "gtest-s1": ("add", f"{random} {ordered}"),
    }
    seeded = netem_of(netem_lines(ports, crossings, seeded=True))
    assert seeded["gtest-s0"] == plain
    assert re.fullmatch(rf"{random} seed \d+ {ordered}", seeded["gtest-s1"][1])
    uniform = impaired(jitter=2, loss=0)
    told = netem_of(netem_lines(uniform.ports(), uniform.crossings(7)))
    assert told["gtest-s1"] == ("add", f"delay 10000us 2000us {ordered}")


def test_netem_drops_all_in_an_outage_and_is_calm_while_it_is_measured():
    parts = impaired()
    ports, crossings = parts.ports(), parts.crossings(7)
    stopped = netem_of(netem_change_lines(ports, crossings, stopped={(1, 0)}))
    assert stopped["gtest-s0"] == ("change", "delay 10000us loss random 100% limit 1049")
    assert "loss random 1% " in stopped["gtest-s1"][1]
    calm = netem_of(netem_change_lines(ports, crossings[:1], impaired=False))
    assert calm == {"gtest-s1": ("change", "delay 10000us limit 1049")}
    before = [line.split(" netem ")[0] for line in netem_lines(ports, crossings) if "netem" in line]
    after = [line.split(" netem ")[0] for line in netem_change_lines(ports, crossings)]
    assert sorted(line.replace("change", "add") for line in after) == sorted(before)


def test_forwarder_is_told_every_link_and_no_other():
    parts = line_of_three()
    config = json.loads(json.dumps(forwarder_config(parts.ports(), parts.crossings(7))))
    assert config["ports"] == ["gtest-s0", "gtest-s1", "gtest-s2"]
    told = [(entry["from"], entry["mac"], entry["to"]) for entry in config["paths"]]
    assert sorted(told) == [
        ("gtest-s0", "02:67:00:00:00:02", "gtest-s1"),
        ("gtest-s1", "02:67:00:00:00:01", "gtest-s0"),
        ("gtest-s1", "02:67:00:00:00:03", "gtest-s2"),
        ("gtest-s2", "02:67:00:00:00:02", "gtest-s1"),
    ]
    assert {entry["delay"] for entry in config["paths"]} == {0.01}
    paths = [read_path(entry, print) for entry in config["paths"]]
    assert all(path.plain and path.delay == 10_000_000 for path in paths)


def test_forwarder_is_told_jitter_and_loss_with_a_stream_of_draws_for_each_link():
    config = forwarder_config(impaired().ports(), impaired().crossings(7))
    there, back = config["paths"]
    assert (there["jitter"], there["normal"], there["loss"]) == (0.002, True, 0.01)
    assert (there["seed"], back["seed"]) == ("7/a>b", "7/b>a")
    assert not read_path(there, print).plain
    assert read_path(back, print).plain


def test_only_senders_over_lossy_links_send_packets_one_by_one():
    parts = impaired()
    ups = [
        [line for line in parts.gateway_lines(center) if line.startswith("link set gtest-w")]
        for center in parts.wan.centers
    ]
    assert ups == [["link set gtest-w0 up gso_max_segs 1"], ["link set gtest-w1 up"]]


def test_class_bytes_are_read_from_tcs_own_output():
    shown = """\
class htb 1:11 parent 1:1 leaf 1011: prio 0 rate 60Mbit ceil 60Mbit burst 15000b cburst 15000b
 Sent 4119200 bytes 1023 pkt (dropped 0, overlimits 330 requeues 0)
 backlog 0b 0p requeues 0
 lended: 1023 borrowed: 0 giants: 0
 tokens: 31250 ctokens: 31250

class htb 1:1 root rate 100Gbit ceil 100Gbit burst 25000000b cburst 25000000b
 Sent 9895096 bytes 2500 pkt (dropped 0, overlimits 0 requeues 0)
"""
    assert shaping.sent_bytes(shown) == {0x11: 4119200, 1: 9895096}


def test_sparse_routes_go_by_the_neighbour_workers_included():
    parts = line_of_three(workers=2)
    lines = parts.gateway_lines(parts.wan.centers[0])
    assert "route add 10.200.0.2/32 dev gtest-w0 scope link" in lines
    assert "route add 10.200.0.3/32 via 10.200.0.2 dev gtest-w0 onlink src 10.200.0.1" in lines
    assert "route add 10.201.2.0/24 via 10.200.0.2 dev gtest-w0 onlink src 10.200.0.1" in lines
    assert not any("neigh add 10.200.0.3" in line for line in lines)
    worker = parts.worker_lines(parts.wan.centers[0], 1)
    assert "addr add 10.201.0.3/24 dev gtest-l0x1" in worker
    assert worker[-1] == "route add default via 10.201.0.1"
    assert parts.rtt(("a", "c")) == pytest.approx(0.04)


def test_every_node_has_an_address_of_its_own_and_the_scheduler_its_centers():
    parts = line_of_three(workers=3)
    addresses = dict(parts.addresses)
    assert set(addresses) == {place.name for place in parts.wan.nodes()}
    assert addresses.pop("scheduler") == addresses["a"]
    assert len(set(addresses.values())) == len(addresses)
    alone = line_of_three().addresses
    assert set(alone) == {"scheduler", "a", "b", "c"}


@given(st.integers(0, naming.MAX_CENTERS - 1), st.integers(0, naming.MAX_WORKERS - 1))
def test_names_fit_linux_and_addresses_fit_ipv4(center, worker):
    for kind in "wslpb":
        for name in (
            naming.interface(naming.tag("some run"), kind, center),
            naming.interface(naming.tag("some run"), kind, center, worker),
        ):
            assert len(name) <= 15
            assert "." not in name  # a dot would split a sysctl's key
    socket.inet_aton(naming.wan_address(center))
    socket.inet_aton(naming.lan_address(center, worker))
    assert naming.lan_mac(center, worker) != naming.lan_mac(center)


def test_a_wan_that_cannot_be_emulated_is_refused():
    with pytest.raises(TestbedError, match=r"link a -> b: 1000 bit/s cannot be emulated"):
        layout(["a", "b"], [("a", "b", 0.001)])
    with pytest.raises(TestbedError, match=r"at most 250 can be emulated; testbed=simulated"):
        layout([f"c{n}" for n in range(251)], [(f"c{n}", f"c{n + 1}", 1) for n in range(250)])


@pytest.mark.parametrize(("capped", "together"), [(False, 8), (True, 4)])
def test_groups_measure_all_links_and_never_two_that_disturb_each_other(capped, together):
    names = [f"c{n}" for n in range(9)]
    pairs = [(a, b) for a in names for b in names if a != b]
    targets = [Target(pair, 50e6, 0.01, "", capped) for pair in pairs]
    parted = verify.groups(targets)
    assert sorted(target for group in parted for target in group) == sorted(targets)
    for group in parted:
        sources, ends = zip(*(target.edge for target in group), strict=True)
        assert len({*sources}) == len({*ends}) == len(group)
        assert not {target.edge for target in group} & {target.edge[::-1] for target in group}
        if capped:
            assert not {*sources} & {*ends}
        assert sum(target.rate for target in group) <= verify.TOGETHER
    assert max(map(len, parted)) == together


@pytest.mark.parametrize(
    ("goodput", "rtt", "good"),
    [
        (95e6, 0.020, True),
        (86e6, 0.020, True),
        (84e6, 0.020, False),
        (107e6, 0.020, False),
        (95e6, 0.0229, True),  # 3 ms are always allowed
        (95e6, 0.0231, False),
        (95e6, 0.0, False),  # the silent failure of tc netem without netem
    ],
)
def test_a_link_that_is_off_is_refused_with_a_table(goodput, rtt, good):
    check = LinkCheck(("a", "b"), 100e6, goodput, 0.02, rtt)
    fine = LinkCheck(("b", "a"), 100e6, 95e6, 0.02, 0.02)
    if good:
        verify.refuse([fine, check], 0.1)
        return
    with pytest.raises(TestbedError, match=r"1 of 2 links .* 10%") as caught:
        verify.refuse([fine, check], 0.1)
    assert "a -> b" in str(caught.value)
    assert "b -> a" not in str(caught.value)
    assert "testbed.verify_tolerance" in str(caught.value)


@pytest.mark.parametrize(
    ("goodput", "rtt", "cause"),
    [
        (50e6, 0.02, "Too slow: .* wan.bandwidth_scale"),
        (95e6, 0.05, "Round trips too long: .* stop other work"),
        (200e6, 0.02, "Too fast, .* testbed check"),
        (95e6, 0.0, "Too fast, or round trips too short: .* testbed check"),
    ],
)
def test_the_remedy_fits_the_cause(goodput, rtt, cause):
    said = verify.remedy([LinkCheck(("a", "b"), 100e6, goodput, 0.02, rtt)], 0.1).splitlines()
    assert len(said) == 2
    assert re.match(cause, said[0])


def test_a_record_survives_and_damaged_ones_are_named(tmp_path):
    me = identify(os.getpid())
    state = RunState("r1", "gabcd", me, folder=tmp_path)
    state.add_shell(os.getpid())
    state.add_other(os.getppid())
    assert load(state.path) == state
    assert state.shells == [me]
    state.forget()
    assert load(state.path) is None
    state.path.write_text("[]")
    with pytest.raises(ValueError, match="no record of an emulated WAN"):
        load(state.path)


def test_a_reused_process_number_and_our_own_namespace_are_left_alone(tmp_path):
    me = identify(os.getpid())
    reused = Process(me.pid, me.start - 1)
    assert alive(me)
    assert not alive(reused)
    state = RunState("r2", "gabcd", reused, shells=[reused], others=[reused], folder=tmp_path)
    state.save()
    assert tear_down(state) == []
    assert not state.path.exists()


def test_down_removes_stale_records_and_spares_living_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("testbed.emulated.cleanup.state.FOLDERS", (tmp_path,))
    me = identify(os.getpid())
    RunState("stale", "gaaaa", Process(me.pid, me.start - 1), folder=tmp_path).save()
    RunState("living", "gbbbb", me, folder=tmp_path).save()
    (tmp_path / "other.json").write_text("{}")
    assert down([]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"living.json", "other.json"}
    said = capsys.readouterr()
    assert "run stale: removed" in said.out
    assert "run living is alive" in said.out
    assert "no record" in said.err
    assert down(["nobody"]) == 1


@pytest.mark.parametrize(
    ("target", "value", "reason"),
    [
        ("sys.platform", "darwin", "needs Linux"),
        ("os.geteuid", lambda: 1000, "needs root"),
        ("shutil.which", lambda _name: None, "apt-get install --no-install-recommends mininet"),
        ("importlib.util.find_spec", lambda _name: None, "pip install mininet"),
    ],
)
def test_why_not_names_the_remedy(target, value, reason, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(target, value)
    said = probe.why_not()
    assert said is not None
    assert reason in said
    assert "\n" not in said


def test_netem_is_preferred_and_else_packet_sockets_are_asked_for(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(probe, "missing_module", lambda: None)
    monkeypatch.setattr(probe, "packet_sockets", lambda: "raw sockets")
    monkeypatch.setattr(probe, "attempt", lambda _tool, _lines: None)
    assert probe.why_not() is None
    monkeypatch.setattr(
        probe, "attempt", lambda _tool, lines: "unknown kind" if lines == probe.NETEM else None
    )
    assert probe.why_not() == "neither netem nor raw sockets"
    monkeypatch.setattr(probe, "attempt", lambda _tool, _lines: "Operation not permitted")
    assert probe.why_not().endswith("Operation not permitted")
