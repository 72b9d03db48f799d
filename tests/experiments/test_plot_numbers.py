"""The numbers behind pictures: flows of trees, use of links, lanes, bands; by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from plotted_runs import LINKS, add_events, events_of, executed, path_config

from experiments.plot.lanes import LAN, dead_spells, rounds_between
from experiments.plot.lanes import lanes as lanes_of
from experiments.plot.link_use import link_use, windows_with_sends
from experiments.plot.run_events import NodeSpan, RunRecords, Window, read_records
from experiments.plot.series import (
    accuracy_over_bytes,
    bound_spells,
    mean_sync,
    sync_series,
    wan_bytes_until,
)
from experiments.plot.tree_flows import Flow, all_flows, relative_times, tree_flows
from experiments.plot.trees import choose, largest
from geojax.errors import ConfigError, GeojaxError
from geojax.hips.cluster import Cluster, NodeSpec
from geojax.overlay.policy.policy import Policy, Tree
from testbed.wan.build import build_wan

STAR = Tree("a", {"b": "a", "c": "a"})
CHAIN = Tree("c", {"a": "b", "b": "c"}, down={"a": "c", "b": "a"})


@pytest.fixture(scope="module")
def star(tmp_path_factory):
    """A real run; read anew by every test that changes it."""
    return executed(path_config(), tmp_path_factory.mktemp("runs") / "star")


@pytest.fixture
def copied(star, tmp_path):
    """The run's own files, to be changed."""
    target = tmp_path / "copy"
    target.mkdir()
    for name in ("config.yaml", "events.jsonl", "trace.json", "summary.json"):
        (target / name).write_text((star / name).read_text())
    return target


def made_up(events=(), spans=(), **settings) -> RunRecords:
    """Records on the path of three centers without a run."""
    config = path_config(**settings)
    wan = build_wan(config.wan, config.lan, config.seed)
    cluster = Cluster(tuple(NodeSpec(node.name, node.center, node.role) for node in wan.nodes()))
    found = RunRecords(Path("made-up"), config, wan, cluster, events)
    found.__dict__["spans"] = tuple(spans)
    return found


def send(node, peer, number, start, end, nbytes):
    return NodeSpan(node, "send", start, end, {"peer": peer, "round": number, "bytes": nbytes})


def ended(node, number, offered, held):
    told = {"round": number, "offered": offered, "held": held}
    return {"t": held, "node": node, "event": "round", **told}


# ---- trees


def test_a_star_loads_each_link_by_the_members_behind_it(star):
    hops = read_records(star).hops
    assert tree_flows(STAR, 1.0, hops) == {
        ("b", "a"): Flow(2.0, 0.0), ("c", "b"): Flow(1.0, 0.0),
        ("a", "b"): Flow(0.0, 2.0), ("b", "c"): Flow(0.0, 1.0),
    }  # fmt: skip


def test_ways_up_and_down_are_told_apart_and_trees_add_up(star):
    hops = read_records(star).hops
    assert tree_flows(CHAIN, 0.5, hops) == {
        ("a", "b"): Flow(0.5, 0.5), ("b", "c"): Flow(0.5, 0.0),
        ("c", "b"): Flow(0.0, 0.5), ("b", "a"): Flow(0.0, 0.5),
    }  # fmt: skip
    both = all_flows([STAR, CHAIN], [0.5, 0.5], hops)
    assert both["a", "b"] == Flow(0.5, 1.5)
    assert both["b", "a"] == Flow(1.0, 0.5)
    assert sum(flow.total for flow in both.values()) == 0.5 * 6 + 0.5 * 5


def test_times_are_relative_to_the_busiest_link_and_an_outage_is_the_worst():
    flows = {"ab": Flow(1.0, 1.0), "bc": Flow(1.0, 0.0), "cb": Flow(0.1, 0.0)}
    assert relative_times(flows, {"ab": 4.0, "bc": 1.0, "cb": 0.0}) == {
        "ab": 0.5, "bc": 1.0, "cb": 1.0,
    }  # fmt: skip


def test_policies_come_with_the_shares_that_trees_carry(copied):
    policy = Policy(1, ("a", "b", "c"), (STAR, Tree("b", {"a": "b", "c": "b"}, 3.0))).to_dict()
    epoch = {"policies": {"0": policy | {"version": 2}}, "held": 3, "epoch": 1}
    add_events(
        copied,
        {
            "t": 0.1,
            "event": "policy",
            "version": 1,
            "first": 2,
            "reason": "saves",
            "policy": policy,
        },
        {"t": 0.2, "event": "epoch", **epoch},
        {"t": 0.2, "event": "loads", "elements": {"a": 100, "b": 300 + 600}},
    )
    run = read_records(copied)
    start, replanned, changed = run.planned
    assert (start.first, start.shares, start.reason) == (0, (1.0,), "start")
    assert (replanned.at, replanned.first, replanned.reason) == (0.1, 2, "saves")
    assert replanned.shares == (0.25, 0.75)
    assert (changed.first, changed.shares, changed.reason) == (4, (0.1, 0.9), "members change")
    assert largest(changed, 1) == [1]
    assert choose(run, None) is changed
    assert choose(run, 1) is replanned
    with pytest.raises(ConfigError, match=r"--policy = 7: .* 0, 1, 2"):
        choose(run, 7)


# ---- links


def test_links_carry_all_that_the_run_counted_by_round(star):
    run, summary = read_records(star), json.loads((star / "summary.json").read_text())
    use = link_use(run)
    assert use.links == LINKS
    assert use.rounds == (0, 1, 2, 3, 4)
    assert use.bits.sum() == 8 * summary["wan_bytes"]
    to_b, to_a, to_c, from_c = use.bits
    # what b relays carries its route, in some bytes more
    np.testing.assert_allclose(to_a, 2 * from_c, rtol=0.01)
    np.testing.assert_allclose(to_b, 2 * to_c, rtol=0.01)
    assert 0 < use.share.max() <= 1
    assert use.most_used(2).links == (("a", "b"), ("b", "a"))


def test_shares_of_a_round_are_of_what_the_rates_in_force_allow():
    """Links of 8 Mbit/s; a → b halves its rate 1 s into round 1, and then b → c ends."""
    rates = [
        {"t": 3.0, "event": "rates", "rates": [["a", "b", 4e6]]},
        {"t": 4.0, "event": "rates", "rates": [["b", "c", 0.0]]},
    ]
    rounds = [ended("a", 0, 0.0, 2.0), ended("b", 0, 0.5, 2.0), ended("a", 1, 2.5, 4.0)]
    spans = [
        send("a", "b", 0, 0.5, 1.0, 500_000),
        send("a", "c", 1, 2.0, 4.0, 250_000),
        send("a", "b", 1, 3.0, 3.5, 250_000),
    ]
    run = made_up(sorted([*rates, *rounds], key=lambda event: event["t"]), spans)
    assert windows_with_sends(run) == {0: Window(0.0, 2.0), 1: Window(2.0, 4.0)}
    use = link_use(run)
    assert use.edges == (0.0, 2.0, 4.0)
    assert use.share.tolist() == [[0.25, 4 / 12], [0, 0], [0, 2 / 16], [0, 0]]
    assert use.means.tolist() == [8 / 28, 0, 2 / 32, 0]
    assert run.marks() == {"rates change": [3.0, 4.0], "new policy": []}


def test_probes_count_in_the_round_that_began_last_before_them():
    """Though they are of none."""
    rounds = [ended("a", 0, 1.0, 2.0), ended("a", 1, 1.9, 4.0), ended("a", 2, 4.0, 5.0)]
    sends = [send("a", "b", n, start, 5.0, 250_000) for n, start in enumerate((1.0, 1.9, 4.0))]
    probes = [
        NodeSpan("a", "send", start, start + 0.1, {"peer": "b", "bytes": 1000})
        for start in (0.0, 1.95, 2.5, 4.5)
    ]
    use = link_use(made_up(rounds, [*sends, *probes]))
    assert (use.bits[0] / 8).tolist() == [251_000, 252_000, 251_000]


def test_without_common_rounds_links_are_shown_over_time():
    spans = [send("b", "a", 0, 0.0, 6.0, 3_000_000), send("c", "b", 4, 6.0, 12.0, 1_500_000)]
    applied = {"t": 1.0, "event": "applied", "staleness": 0}
    use = link_use(made_up([applied, ended("b", 0, 0.0, 6.0)], spans))
    assert use.rounds is None
    assert use.edges[-1] == 12.0
    assert use.share[1] == pytest.approx([0.5] * 60 + [0.0] * 60)
    assert use.share[3] == pytest.approx([0.0] * 60 + [0.25] * 60)


def test_a_trace_without_bytes_is_refused_and_a_missing_one_too(copied):
    trace = json.loads((copied / "trace.json").read_text())
    for event in trace["traceEvents"]:
        event["args"].pop("bytes", None)
    (copied / "trace.json").write_text(json.dumps(trace))
    with pytest.raises(GeojaxError, match="older version wrote it; run again"):
        link_use(read_records(copied))
    (copied / "trace.json").unlink()
    with pytest.raises(GeojaxError, match=r"trace.json is written at the end"):
        link_use(read_records(copied))


# ---- timelines


def test_lanes_are_a_node_s_own_work_and_then_its_peers_clipped():
    spans = [
        send("b", "c", 1, 3.0, 9.0, 1), send("b", "a", 1, 1.0, 3.0, 1),
        NodeSpan("b", "compute", 0.0, 2.5, {}), NodeSpan("a", "wait", 9.0, 10.0, {}),
    ]  # fmt: skip
    found = lanes_of(made_up(spans=spans), Window(2.0, 8.0))
    assert [(lane.node, lane.peer, [tuple(bar) for bar in lane.bars]) for lane in found] == [
        ("a", "", []),  # it did something at another time
        ("b", "", [("compute", 2.0, 2.5)]),
        ("b", "a", [("send", 2.0, 3.0)]),
        ("b", "c", [("send", 3.0, 8.0)]),
    ]


def test_a_node_has_its_lane_when_it_lived_and_when_it_was_dead():
    events = [
        {"t": 1.0, "node": "b", "event": "fault", "kind": "kill"},
        {"t": 2.0, "node": "scheduler", "event": "dead", "nodes": ["b", "c"]},
        {"t": 3.0, "node": "scheduler", "event": "back", "nodes": ["b"]},
    ]
    run = made_up(events, [NodeSpan("b", "compute", 0.0, 1.0, {})])
    assert dead_spells(run) == [("b", 1.0, 3.0), ("c", 2.0, math.inf)]
    found = [[tuple(bar) for bar in lane.bars] for lane in lanes_of(run, Window(0.0, 4.0))]
    assert found == [[("dead", 1.0, 3.0), ("compute", 0.0, 1.0)], [("dead", 2.0, 4.0)]]
    late = lanes_of(run, Window(3.5, 4.0))
    assert [(lane.node, len(lane.bars)) for lane in late] == [("b", 0), ("c", 1)]


def test_what_stays_within_a_center_has_one_lane():
    spans = [send("b/w0", "b", 0, 0.0, 1.0, 1), send("b", "b/w1", 0, 0.0, 1.0, 1)]
    found = lanes_of(made_up(spans=spans, workers=2), Window(0.0, 1.0))
    assert [(lane.node, lane.peer) for lane in found] == [
        ("b", ""), ("b", LAN), ("b/w0", ""), ("b/w0", LAN),
    ]  # fmt: skip
    assert found[0].bars == ()


def test_three_rounds_in_the_middle_are_shown_or_those_that_are_named():
    run = made_up([ended("a", n, 2.0 * n + 1, 2.0 * n + 2) for n in range(5)])
    assert rounds_between(run, None) == Window(2.0, 8.0)
    assert rounds_between(run, (0, 0)) == Window(0.0, 2.0)
    assert rounds_between(run, (4, 99)) == Window(8.0, 10.0)
    with pytest.raises(ConfigError, match="has the rounds 0:4"):
        rounds_between(run, (7, 9))


# ---- series


def test_bytes_are_counted_on_every_link_as_they_leave():
    run = made_up(spans=[send("a", "c", 0, 1.0, 3.0, 100), send("b", "a", 0, 4.0, 4.0, 7)])
    times = np.array([0.0, 2.0, 3.0, 5.0])
    assert wan_bytes_until(run, times).tolist() == [0.0, 100.0, 200.0, 207.0]


def test_all_bytes_of_a_run_are_those_of_its_summary(copied):
    events = events_of(copied)
    end = max(event["t"] for event in events)
    evaluation = {"event": "evaluation", "round": 1, "accuracy": 0.5}
    add_events(copied, {"t": 0.0, **evaluation}, {"t": end, **evaluation})
    found = accuracy_over_bytes(read_records(copied))
    assert found.x.tolist() == [0, json.loads((copied / "summary.json").read_text())["wan_bytes"]]


def test_sync_times_and_their_bound_are_those_of_the_summary(star):
    run, summary = read_records(star), json.loads((star / "summary.json").read_text())
    assert mean_sync(run) == pytest.approx(summary["sync_s"]["mean"])
    assert bound_spells(run) == [(0.0, pytest.approx(summary["bound_s"]))]
    by_round, by_time = (sync_series(run, over_time=over_time) for over_time in (False, True))
    assert by_round.x.tolist() == [0, 1, 2, 3, 4]
    assert by_time.x[-1] == summary["time_s"]
    run.config.warmup_rounds = 4
    assert mean_sync(run) == by_round.y[4] == by_time.y[4]
