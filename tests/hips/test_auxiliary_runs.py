"""Whole simulated runs with auxiliary routes: the star's model bit for bit, whatever happens."""

import functools
from collections import Counter
from itertools import pairwise

import pytest
from simulated_runs import kill, simulated, small_config

from geojax.errors import ConfigError
from geojax.overlay.policy.planning import Task
from geojax.overlay.registry import OVERLAYS
from testbed.run import check, run
from testbed.simulated.machine import VirtualMachine

SLOW = {"wan__bandwidth_scale": 0.05, "chunk_elements": 100, "hash_every": 10}
CENTERS = {f"c{number}" for number in range(1, 10)}
DIVERTING = ("netstorm", "packing", "ring", "star", "mlnet", "sharded_star", "tsengine",
             "butterfly", "multigps")  # fmt: skip


def with_routes(name="netstorm", kind="fastest", **settings):
    """Many small chunks at slow links, so that all offers at once make the primary ways busy."""
    if name == "multigps":
        settings["overlay__servers"] = 2
    given = {"wan": "netstorm9_draw", "elements": 1250, "chunk_elements": 50, "rounds": 2,
             "events": "chunk", **settings}  # fmt: skip
    return small_config(overlay__name=name, overlay__auxiliary=kind, **given)


@functools.cache
def star():
    return simulated(with_routes("star", "none")).final.tobytes()


def counted(outcome, name):
    return sum(report["totals"].get(name, 0) for report in outcome.reports.values())


@pytest.mark.parametrize("kind", ["fastest", "paced", "random"])
@pytest.mark.parametrize("name", DIVERTING)
def test_every_overlay_ends_with_the_stars_bits_in_both_directions(name, kind):
    outcome = simulated(with_routes(name, kind))
    assert outcome.final.tobytes() == star()
    assert outcome.finals.keys() == CENTERS
    assert len(set(outcome.finals.values())) == 1
    diverted = outcome.of("auxiliary")
    kinds = {event["kind"] for event in diverted}
    assert kinds == {"OFFER", "RESULT"} or (name == "ring" and kinds)  # its own links are fast
    assert counted(outcome, "auxiliary_chunks") == len(diverted)
    hops = sum(len(event["route"]) - 2 for event in diverted)
    more = counted(outcome, "relayed_chunks") - hops  # where two have no link
    assert more >= counted(outcome, "primary_relayed")
    assert more == 0 or counted(outcome, "primary_relayed")
    assert counted(outcome, "refused_routes") == counted(outcome, "dropped_relays") == 0
    assert {event["node"] for event in diverted} <= {event["route"][0] for event in diverted}


def test_every_overlay_is_among_them():
    assert set(DIVERTING) == set(OVERLAYS)


def test_every_hop_of_a_diverted_chunk_is_counted_on_its_link():
    """So the bytes are those of the run without, and those of the further hops."""
    plain, outcome = (simulated(with_routes(kind=kind)) for kind in ("none", "fastest"))

    def messages(run):
        sent = (link["messages"] for r in run.reports.values() for link in r["sent"].values())
        return sum(link.get(kind, 0) for link in sent for kind in ("2", "3"))

    assert messages(outcome) == messages(plain) + counted(outcome, "relayed_chunks")


@pytest.mark.parametrize("kind", ["fastest", "random"])
def test_runs_are_repeatable(kind):
    one, other = (simulated(with_routes(kind=kind)) for _ in range(2))
    assert one.lines() == other.lines()


def test_without_auxiliary_routes_nothing_changes():
    """Thresholds alone do nothing, byte for byte."""
    one = simulated(with_routes(kind="none"))
    other = simulated(with_routes(kind="none", overlay__primary_busy=0, overlay__auxiliary_queue=9))
    assert one.lines() == other.lines()
    assert not one.of("auxiliary")


@pytest.mark.parametrize(("dead", "kind"), [("c5", "fastest"), ("c6", "paced")])
def test_a_relay_may_die(dead, kind):
    outcome = simulated(with_routes(kind=kind, rounds=8, testbed__faults=[kill(dead, 0.3)], **SLOW))
    assert set(outcome.finals) == CENTERS - {dead}
    assert {number for number, _ in outcome.finals.values()} == {7}
    assert len({digest for _, digest in outcome.finals.values()}) == 1
    assert outcome.of("epoch")
    late = [event for event in outcome.of("auxiliary") if event["t"] > outcome.of("epoch")[-1]["t"]]
    assert late
    assert all(dead not in event["route"] for event in late)


def test_a_link_of_routes_alone_may_be_out_for_ever():
    """The star has no use for it; what was on it runs again, and no route leads over it."""
    outage = {"kind": "outage", "between": ["c2", "c3"], "at": 0.3, "duration": 1e6}
    changed = {"wan": "three_centers", "rounds": 8, "wan__dynamics": [outage], **SLOW}
    outcome = simulated(with_routes("star", **changed))
    assert {number for number, _ in outcome.finals.values()} == {7}
    assert len(set(outcome.finals.values())) == 1
    (epoch,) = outcome.of("epoch")
    assert 0.3 <= epoch["t"] < 2.0
    assert {event["t"] < epoch["t"] for event in outcome.of("auxiliary")} == {True}


@pytest.mark.parametrize("at", [0.3, 0.8])
def test_no_chunk_waits_for_a_link_that_went_out_while_routes_were_planned(at):
    """At 0.3 s the first tables are being planned; at 0.8 s they have been told."""
    outage = {"kind": "outage", "between": ["c8", "c9"], "at": at, "duration": 40.0}
    outcome = simulated(
        with_routes(overlay__roots=1, pace__plan_s=1.0, wan__dynamics=[outage], rounds=40, **SLOW)
    )
    done = sorted(event["t"] for event in outcome.of("round"))
    assert max(b - a for a, b in pairwise(done)) < 2.5
    assert done[-1] < 10.0
    assert len(set(outcome.finals.values())) == 1
    assert outcome.of("auxiliary")


def test_plans_of_policies_do_not_starve_behind_those_of_routes(monkeypatch):
    """Measured rates that are drawn anew every second: the view changes with every heartbeat."""
    made = Counter()
    plan = VirtualMachine.plan

    async def counted_plan(self, work, *args, **options):
        made["policy" if isinstance(args[0], Task) else "tables"] += 1
        return await plan(self, work, *args, **options)

    monkeypatch.setattr(VirtualMachine, "plan", counted_plan)
    redraw = {"kind": "redraw", "period_s": 1.0, "low": 20, "high": 155}
    outcome = simulated(
        with_routes(pace__plan_s=0.5, overlay__awareness="measured", wan__dynamics=[redraw],
                    timeouts__heartbeat=0.1, rounds=40, elements=2500, chunk_elements=100,
                    wan__bandwidth_scale=0.1, hash_every=10)
    )  # fmt: skip
    assert made["policy"] >= 4
    assert made["tables"] <= made["policy"] + 1
    assert len(set(outcome.finals.values())) == 1


def test_routes_follow_the_belief_between_rounds():
    """When the link in the middle of a route gets slow, another one is the fastest."""
    slow = {"kind": "steps", "steps": [{"at": 0.5, "between": ["c6", "c7"], "factor": 0.01}]}
    outcome = simulated(
        with_routes("star", rounds=10, wan__dynamics=[slow], overlay__root="c5", **SLOW)
    )
    assert len(set(outcome.finals.values())) == 1
    assert not outcome.of("epoch")
    told = {
        tuple(event["route"])
        for event in outcome.of("auxiliary")
        if event["node"] == "c6" and event["kind"] == "OFFER"
    }
    assert len(told) > 1


def test_a_center_may_come_back():
    faults = [kill("c5", 0.3), {"at": 2.0, "kind": "restart", "node": "c5"}]
    outcome = simulated(with_routes(rounds=25, testbed__faults=faults, **SLOW))
    assert set(outcome.finals) == CENTERS
    assert len(set(outcome.finals.values())) == 1
    assert outcome.of("back")


def test_workers_of_a_center_are_no_part_of_it():
    plain, outcome = (simulated(with_routes(kind=kind, workers=2)) for kind in ("none", "fastest"))
    assert outcome.final.tobytes() == plain.final.tobytes()
    assert {event["node"] for event in outcome.of("auxiliary")} <= CENTERS
    assert counted(outcome, "auxiliary_chunks") > 0


@pytest.mark.parametrize("channel", ["tcp", "udp"])
def test_late_parts_go_the_primary_way(channel):
    settings = {"compression__name": "dgt", "compression__k": 0.5, "compression__channel": channel,
                "compression__block_bytes": 64, "chunk_elements": 100}  # fmt: skip
    outcome = simulated(with_routes(**settings))
    assert len(set(outcome.finals.values())) == 1
    assert counted(outcome, "auxiliary_chunks") > 0
    assert counted(outcome, "late_parts") > 0


def test_servers_with_parameters_refuse_auxiliary_routes():
    with pytest.raises(ConfigError) as caught:
        check(with_routes("star", sync__name="mixed_sync"))
    assert (caught.value.key, caught.value.value) == ("overlay.auxiliary", "fastest")


def test_real_processes_end_with_the_same_bits(tmp_path):
    models, diverted = [], []
    for testbed in ("simulated", "local"):
        config = with_routes(wan="three_centers", elements=2500, testbed__name=testbed)
        summary = run(config, tmp_path / testbed)
        models.append((tmp_path / testbed / "models" / "final.npy").read_bytes())
        diverted.append(summary["auxiliary_chunks"])
    assert models[0] == models[1]
    assert min(diverted) > 0
