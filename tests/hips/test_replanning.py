"""Plans follow the WAN while a run goes on: what changes, when, and that nobody waits for it."""

import logging
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.assemble import roles
from geojax.config import OverlayConfig
from geojax.errors import ConfigError
from geojax.hips.control.fields import MOST_BITS
from geojax.hips.control.member import Membership
from geojax.hips.control.messages import Holding, pack, read
from geojax.hips.control.takeovers import TakeOvers
from geojax.overlay.policy.planning import Proposal, propose
from geojax.overlay.view import NetworkView
from testbed.simulated.machine import VirtualMachine

NINE = [f"c{number}" for number in range(1, 10)]
# Links that no control message takes: c1, where the scheduler is, has fewer hops to everybody.
ASIDE = {"between": ["c4", "c5"]}
SLOWER = {"kind": "steps", "steps": [{"at": 0.5, **ASIDE, "factor": 0.05}]}
OUT = {"kind": "outage", "at": 0.6, "duration": 3.0, **ASIDE}


def following(name="packing", **settings):
    """Rounds of about 0.08 s each; the last of them ends well after 0.6 s, when links change."""
    defaults = {"elements": 50_000, "chunk_elements": 10_000, "rounds": 14, "seed": 0}
    defaults["wan"] = "netstorm9_draw"
    return small_config(overlay__name=name, **{**defaults, **settings})


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


@pytest.fixture(scope="module")
def steady():
    """A run on a WAN that never changes."""
    return simulated(following())


def test_nothing_changes_while_the_wan_does_not(steady):
    assert not steady.of("policy")
    assert not steady.of("epoch")


def test_when_a_link_gets_slow_rounds_go_another_way(steady):
    outcome = simulated(following(wan__dynamics=SLOWER))
    stays = simulated(following(wan__dynamics=SLOWER, overlay__replan=False))
    (change,) = outcome.of("policy")
    assert (change["version"], change["reason"]) == (1, "rates")
    assert change["policy"]["version"] == 1
    assert not stays.of("policy")
    assert not outcome.of("epoch"), "nobody stops for it"
    assert outcome.end < stays.end
    assert outcome.finals == stays.finals == steady.finals


def test_a_change_begins_two_rounds_ahead_at_most():
    outcome = simulated(following(wan__dynamics=SLOWER))
    (change,) = outcome.of("policy")
    begun = [e["round"] for e in outcome.of("round") if e["offered"] <= change["t"]]
    assert max(begun) <= change["first"] <= max(begun) + 3


def test_a_plan_may_take_over_the_round_that_is_under_way(steady):
    """A round of some 0.08 s is half over when the link gets slow."""
    settings = {"wan__dynamics": SLOWER, "chunk_elements": 1000, "timeouts__heartbeat": 0.01}
    later = simulated(following(**settings))
    settings["overlay__replan_at"] = "chunk"
    outcome = simulated(following(**settings))
    (change,) = outcome.of("policy")
    held = [event["round"] for event in outcome.of("round") if event["held"] <= change["t"]]
    assert change["first"] == max(held, default=-1) + 1
    assert 0 < change["again"] < 50, "some chunks stay"
    assert not outcome.of("epoch")
    assert not outcome.of("refused")
    assert outcome.end < later.end
    assert outcome.finals == steady.finals
    assert outcome.lines() == simulated(following(**settings)).lines()


def test_a_plan_that_saves_less_than_the_hold_takes_waits_for_the_next_round():
    """Centers are 80 ms apart or more, so what a detour saves is less than a question to all."""
    far = {"wan__dynamics": SLOWER, "chunk_elements": 1000, "wan__rtt": 80.0}
    outcome = simulated(following(overlay__replan_at="chunk", **far))
    (change,) = outcome.of("policy")
    assert "again" not in change
    assert outcome.lines() == simulated(following(overlay__replan_at="round", **far)).lines()


def test_a_scheduler_that_is_far_away_learns_what_holding_results_costs():
    """A round takes 0.1 s, and a question to all centers 0.6 s: it is asked once."""
    turns = [{"at": 0.1 + 0.3 * turn, **ASIDE, "factor": (0.05, 1.0)[turn % 2]}
             for turn in range(20)]  # fmt: skip
    outcome = simulated(following(
        wan__dynamics={"kind": "steps", "steps": turns}, overlay__replan_at="chunk",
        timeouts__heartbeat=0.05, wan__server_center="external",
        wan__external={"rate": 1000, "rtt": 600},
    ))  # fmt: skip
    first, *others = ["again" in event for event in outcome.of("policy")]
    assert first
    assert len(others) > 4
    assert not any(others)


@pytest.mark.parametrize("at", [0.51, 0.52, 0.53, 0.54, 0.55, 0.56])
def test_a_center_may_die_while_a_plan_takes_over(at):
    """Plans take half of the time that heartbeats do, so one is under way at most instants."""
    faults = [kill("c8", at), {"at": at + 0.3, "kind": "restart", "node": "c8"}]
    outcome = simulated(following(
        wan__dynamics=SLOWER, overlay__replan_at="chunk", pace__plan_s=0.02, testbed__faults=faults,
        rounds=25,
    ))  # fmt: skip
    assert set(outcome.finals) == set(NINE)
    assert len(set(outcome.finals.values())) == 1
    assert outcome.of("back")


def test_a_round_is_taken_over_twice_at_most():
    """Rates change all the time, and any saving counts."""
    turns = [{"at": 0.1 + 0.02 * turn, **ASIDE, "factor": (0.05, 1.0)[turn % 2]}
             for turn in range(60)]  # fmt: skip
    outcome = simulated(following(
        wan__dynamics={"kind": "steps", "steps": turns}, overlay__replan_at="chunk",
        overlay__hysteresis=0.0, timeouts__heartbeat=0.02,
    ))  # fmt: skip
    taken = [event["first"] for event in outcome.of("policy") if event.get("again")]
    assert len(taken) > 4
    assert len(outcome.finals) == 9
    under_way = Counter(
        event["first"] for event in outcome.of("policy")
        if any(e["round"] == event["first"] - 1 and e["held"] < event["t"]
               for e in outcome.of("round"))
    )  # fmt: skip
    assert max(under_way.values()) <= 2


def test_a_round_to_which_nobody_has_offered_goes_by_the_newest_plan_however_many_there_were():
    """Workers compute for two seconds, and links get slow meanwhile, one after the other."""
    links = [["c4", "c5"], ["c6", "c8"], ["c1", "c2"], ["c6", "c7"]]
    slower = [{"at": 0.3 + 0.3 * at, "between": link, "factor": 0.2}
              for at, link in enumerate(links)]  # fmt: skip
    outcome = simulated(following(
        wan__dynamics={"kind": "steps", "steps": slower}, overlay__replan_at="chunk",
        overlay__hysteresis=0.02, timeouts__heartbeat=0.1, model__pace_s=2.0, rounds=1,
        elements=100_000,
    ))  # fmt: skip
    assert [event["first"] for event in outcome.of("policy")] == [0] * 4
    assert not outcome.of("refused")


def test_who_says_that_it_has_begun_a_round_that_nobody_was_granted_is_broken(monkeypatch):
    """Else a policy would hold from a round on that no message has room for."""
    hold = Membership._on_hold

    def lie(self, peer, told):
        if self.me != "c5":
            hold(self, peer, told)
            return
        self._say(Holding(told.epoch, told.version, 2**31 - 2, (), False))

    monkeypatch.setattr(Membership, "_on_hold", lie)
    turns = [{"at": 0.1 + 0.02 * turn, **ASIDE, "factor": (0.05, 1.0)[turn % 2]}
             for turn in range(60)]  # fmt: skip
    outcome = simulated(following(
        wan__dynamics={"kind": "steps", "steps": turns}, overlay__replan_at="chunk",
        overlay__hysteresis=0.0, timeouts__heartbeat=0.02, timeouts__dead=1.0,
    ))  # fmt: skip
    assert [event["nodes"] for event in outcome.of("dead")] == [["c5"]]
    assert {*outcome.finals} == {*NINE} - {"c5"}


@pytest.mark.parametrize("more", [0, 1])
def test_no_round_is_taken_over_of_more_chunks_than_a_message_has_room_for(more):
    chunks = MOST_BITS + more
    task = SimpleNamespace(cut=((1,) * chunks, (chunks,)))
    unused = dict.fromkeys(("epochs", "grants", "tables", "recorder"))
    take_overs = TakeOvers(None, policies=task, hysteresis=0.1, **unused)
    view = NetworkView(("c1",), {}, {})
    assert take_overs.pays(Proposal(None, 1.0, (2.0,)), view) == (not more)
    if not more:
        said = Holding(0, 1, -1, tuple(range(chunks)), True)
        assert read(pack(said, 0), "server") == said


def test_a_plan_that_saves_too_little_is_not_taken():
    outcome = simulated(following(wan__dynamics=SLOWER, overlay__hysteresis=0.9))
    assert not outcome.of("policy")


@pytest.mark.parametrize("name", ["packing", "netstorm"])
def test_a_round_whose_link_is_out_runs_again_on_other_links(name, steady):
    outcome = simulated(following(name, wan__dynamics=OUT))
    waits = simulated(following(name, wan__dynamics=OUT, overlay__replan=False))
    (change,) = [event for event in outcome.of("policy") if event["reason"] == "outage"]
    (epoch,) = outcome.of("epoch")
    assert epoch["members"] == NINE, "nobody is dead"
    assert change["first"] == epoch["held"] + 1
    assert change["t"] < 0.6 + 0.2, "it is noticed with the next heartbeats"
    links = {
        frozenset((node, change["policy"]["nodes"][up]))
        for tree in change["policy"]["trees"]
        for ways in (tree["up"], tree.get("down", tree["up"]))
        for node, up in zip(change["policy"]["nodes"], ways, strict=True)
        if up >= 0
    }
    assert frozenset(("c4", "c5")) not in links
    assert outcome.end < 3.6 < waits.end
    assert outcome.finals == waits.finals == steady.finals
    np.testing.assert_array_equal(outcome.final, steady.final)


ONE_WAY = {"kind": "outage", "at": 0.6, "duration": 30.0, "links": [{"from": "c2", "to": "c3"}]}


@pytest.mark.parametrize("awareness", ["oracle", "measured"])
@pytest.mark.parametrize("name", ["netstorm", "packing", "ring", "tsengine", "butterfly"])
def test_a_link_that_is_out_in_one_direction_holds_nobody_up(name, awareness, steady):
    """A tree's results go down the way that its sums came up, and what comes is acknowledged."""
    settings = {"wan__dynamics": ONE_WAY, "overlay__awareness": awareness}
    outcome = simulated(following(name, **settings))
    assert outcome.end < 15.0
    assert len(outcome.of("epoch")) <= 1, "nobody is dead, and one change is enough"
    assert outcome.finals == steady.finals
    np.testing.assert_array_equal(outcome.final, steady.final)


@pytest.mark.parametrize("name", ["netstorm", "packing", "ring", "tsengine", "butterfly"])
def test_a_run_waits_for_links_that_nothing_can_replace(name):
    """Nobody reaches c3 for three seconds: there is no better plan, and no epoch is begun."""
    cut = [{"from": center, "to": "c3"} for center in ("c1", "c2")]
    outage = {"kind": "outage", "at": 0.4, "duration": 3.0, "links": cut}
    settings = {"overlay__name": name, "timeouts__dead": 20.0}
    steady = simulated(small_config(**settings))
    outcome = simulated(small_config(wan__dynamics=outage, **settings))
    assert steady.end > 0.4
    assert not outcome.of("epoch")
    assert outcome.end > 3.4
    assert outcome.finals == steady.finals
    forever = {**outage, "duration": 1000.0}
    failed = simulated(
        small_config(wan__dynamics=forever, timeouts__round=5.0, **settings), fails=True
    )
    assert not failed.of("epoch")
    assert failed.end < 7.0
    assert "within 5 s" in str(failed.error)


def test_an_overlay_that_ignores_rates_never_plans_for_them():
    outcome = simulated(following("mlnet", wan__dynamics=SLOWER))
    assert not outcome.of("policy")


def test_who_comes_back_goes_by_the_policy_that_is_in_force(steady):
    faults = [kill("c8", 0.8), {"at": 0.9, "kind": "restart", "node": "c8"}]
    outcome = simulated(following(wan__dynamics=SLOWER, testbed__faults=faults, rounds=25))
    assert set(outcome.finals) == set(NINE)
    assert len(set(outcome.finals.values())) == 1
    assert outcome.of("back")


def test_rounds_go_on_while_a_plan_takes_its_time(monkeypatch):
    """A plan of half a second: several rounds pass, none of them longer than the others."""
    outcome = simulated(following(wan__dynamics=SLOWER, pace__plan_s=0.5, rounds=20))
    (change,) = outcome.of("policy")
    began = 0.5
    passed = {e["round"] for e in outcome.of("round") if began < e["offered"] < change["t"]}
    assert change["t"] - began >= 0.5
    assert len(passed) >= 2


def test_a_plan_that_comes_when_its_epoch_is_over_is_dropped():
    """c9 dies while a plan for nine is made; what is taken is a plan for eight."""
    faults = [kill("c9", 0.8)]
    outcome = simulated(
        following(wan__dynamics=SLOWER, pace__plan_s=1.0, testbed__faults=faults, rounds=25)
    )
    for event in outcome.of("policy"):
        assert event["policy"]["nodes"] == NINE[:-1]
    (epoch,) = outcome.of("epoch")
    assert epoch["policies"]["0"]["nodes"] == NINE[:-1]
    assert set(outcome.finals) == set(NINE[:-1])


def test_a_run_waits_for_its_first_plan_and_for_that_of_a_new_membership():
    faults = [kill("c9", 0.3)]
    outcome = simulated(following(pace__plan_s=0.7, testbed__faults=faults))
    (epoch,), (dead,) = outcome.of("epoch"), outcome.of("dead")
    assert epoch["t"] - dead["t"] >= 0.7
    assert not outcome.of("dead")[1:], "heartbeats are answered all the while"


def test_a_plan_that_takes_too_long_ends_the_run_before_it_starts():
    outcome = simulated(following(pace__plan_s=1000.0, timeouts__start=20.0), fails=True)
    assert "no plan of epoch 0 for 9 members within 20 s" in str(outcome.error)


def test_the_wait_for_the_plan_of_a_new_membership_is_logged(caplog):
    caplog.set_level(logging.WARNING, logger="geojax.hips")
    faults = [kill("c9", 0.3)]
    simulated(following(pace__plan_s=5.0, testbed__faults=faults, timeouts__warn=4.0))
    said = [record.getMessage() for record in caplog.records]
    assert "waiting for plan of epoch 0 for 9 members since 4.0 s" in said
    assert "waiting for plan of epoch 1 for 8 members since 4.0 s" in said


@pytest.mark.parametrize(
    ("wan", "behind"), [("three_centers", ["c2"]), ("netstorm9_draw", ["c2", "c5", "c7", "c8"])]
)
def test_who_is_heard_but_does_not_hear_of_a_new_epoch_is_dead(wan, behind):
    """From c1, where the scheduler is, nothing gets to c2; what c2 says comes to it."""
    one_way = {"kind": "outage", "at": 0.6, "duration": 100.0, "from": "c1", "to": "c2"}
    outcome = simulated(following(wan=wan, wan__dynamics=one_way, rounds=20))
    [dead] = outcome.of("dead")
    assert dead["nodes"] == behind
    began = min(event["t"] for event in outcome.of("rates"))
    assert 5.0 <= dead["t"] - began <= 5.0 + 2 * 0.5 + 0.2
    assert {*behind}.isdisjoint(outcome.finals)
    assert {last for last, _ in outcome.finals.values()} == {19}


def test_one_plan_is_made_at_a_time_and_for_the_newest_view(monkeypatch):
    under_way, most, views = 0, 0, []
    plan = VirtualMachine.plan

    async def counted(self, work, *args, **options):
        nonlocal under_way, most
        if not hasattr(args[-1], "view"):  # the paths of a plan that is there
            return await plan(self, work, *args, **options)
        under_way += 1
        most = max(most, under_way)
        views.append(args[-1].view)
        result = await plan(self, work, *args, **options)
        under_way -= 1
        return result

    monkeypatch.setattr(VirtualMachine, "plan", counted)
    steps = [{"at": 0.5 + 0.1 * n, **ASIDE, "factor": 0.5**n} for n in range(8)]
    outcome = simulated(following(wan__dynamics={"kind": "steps", "steps": steps}, rounds=20,
                                  pace__plan_s=0.3))  # fmt: skip
    assert most == 1
    assert 3 <= len(views) < 8
    assert len({id(view) for view in views}) == len(views)
    assert outcome.of("policy")


def test_a_round_that_is_fetched_takes_no_link_that_is_out(monkeypatch):
    """Whenever the link goes out: the run does not wait for it to come back."""
    for at in np.arange(0.35, 0.75, 0.04):
        outage = {"kind": "outage", "at": float(at), "duration": 50.0, **ASIDE}
        outcome = simulated(following("netstorm", wan__dynamics=outage, rounds=10))
        assert outcome.end < 10.0, at
        assert len(set(outcome.finals.values())) == 1


def test_an_error_of_a_plan_ends_the_run(monkeypatch):
    def broken(config, centers, sites, task):
        if task.present:
            raise ZeroDivisionError("in the plan")
        return propose(config, centers, sites, task)

    monkeypatch.setattr(roles, "propose", broken)
    with pytest.raises(ZeroDivisionError, match="in the plan"):
        simulated(following(wan__dynamics=SLOWER))


def test_servers_that_hold_parameters_keep_their_policy():
    config = following(
        "multigps", sync__name="mixed_sync", wan__dynamics=SLOWER, overlay__servers=2, elements=10,
        rounds=20,
    )  # fmt: skip
    outcome = simulated(config)
    assert outcome.end > 1.0, "the link has long been slow"
    assert not outcome.of("policy")


def test_a_hysteresis_below_zero_is_refused():
    with pytest.raises(ConfigError, match=r"overlay\.hysteresis"):
        simulated(following(overlay__hysteresis=-0.1))


def test_by_default_plans_follow_the_wan():
    assert (OverlayConfig().replan, OverlayConfig().awareness) == (True, "oracle")
