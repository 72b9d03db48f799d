"""The figures of a run, on events made by hand, against numbers worked out by hand."""

import math

import pytest

from geojax.config import RunConfig
from geojax.telemetry.summary import TARGET_OVER, summarize, sync_times, time_to_target

OFFER, CONTROL = 2, 1


def round_event(node, number, offered, held):
    return {"t": held, "node": node, "event": "round", "round": number, "offered": offered,
            "held": held}  # fmt: skip


def evaluation(t, accuracy, number=0):
    return {"t": t, "node": "c1", "event": "evaluation", "round": number, "accuracy": accuracy}


# Two rounds of three centers. Round 0: last offer at 1.5, last held at 3.0, so 1.5 s; round 1:
# last offer at 4.5, last held at 5.0, so 0.5 s.
ROUNDS = [
    round_event("c1", 0, 1.0, 2.0), round_event("c2", 0, 1.5, 2.5), round_event("c3", 0, 1.2, 3.0),
    round_event("c1", 1, 4.0, 4.8), round_event("c2", 1, 4.5, 5.0), round_event("c3", 1, 4.1, 4.9),
]  # fmt: skip


def node_report(*, compute=0.0, wait=0.0, samples=0, sent=None, steps=0, violations=0):
    return {
        "totals": {"compute_s": compute, "wait_s": wait, "samples": samples},
        "sent": {peer: {"bytes": kinds} for peer, kinds in (sent or {}).items()},
        "steps": steps,
        "pace_violations": violations,
    }


HOPS = {
    ("c1", "c2"): [("c1", "c2")],
    ("c2", "c1"): [("c2", "c1")],
    ("c1", "c3"): [("c1", "c2"), ("c2", "c3")],  # c2 lies in between
    ("c3", "c1"): [("c3", "c2"), ("c2", "c1")],
    ("c1", "scheduler"): [],  # the scheduler sits in c1
    ("scheduler", "c1"): [],
    ("scheduler", "c3"): [("c1", "c2"), ("c2", "c3")],
    ("c1", "c1/w0"): [],
}


def summary(events=ROUNDS, reports=None, **options):
    settings = {"trainers": ("c1", "c2", "c3"), "hops": HOPS, "target": 0.8, "train_samples": 600}
    return summarize(events, reports or {}, data_kinds={OFFER}, **{**settings, **options})


def test_sync_time_is_from_the_last_offer_to_the_last_whole_result():
    assert sync_times(ROUNDS) == {0: 1.5, 1: 0.5}
    assert sync_times(list(reversed(ROUNDS))) == {0: 1.5, 1: 0.5}


def test_sync_times_are_summed_up():
    found = summary()["sync_s"]
    assert found["mean"] == found["p50"] == 1.0
    assert found["p95"] == pytest.approx(0.5 + 0.95)


def test_warm_up_rounds_leave_sync_times_and_the_rate_of_samples():
    busy = {name: node_report(samples=40) for name in ("c1", "c2", "c3")}
    whole, later = summary(reports=busy), summary(reports=busy, warmup_rounds=1)
    assert (whole["sync_s"]["mean"], later["sync_s"]["mean"]) == (1.0, 0.5)
    assert whole["samples_per_s"] == pytest.approx(120 / 5.0)
    assert later["samples_per_s"] == pytest.approx(60 / 2.0)  # round 1, from 3.0 to 5.0
    assert (later["rounds"], later["time_s"]) == (whole["rounds"], whole["time_s"]) == (2, 5.0)


def test_what_fast_centers_did_in_the_warm_up_of_a_slow_one_is_in_no_rate():
    """c1 holds a round a second, c2 one in fifty: from 50 s to 100 s they make 50 rounds and 1."""
    rounds = [round_event("c1", number, number + 0.5, number + 1.0) for number in range(100)]
    rounds += [round_event("c2", 0, 49.0, 50.0), round_event("c2", 1, 99.0, 100.0)]
    reports = {"c1": node_report(samples=1000), "c2": node_report(samples=20)}
    for warmup_rounds in (0, 1):
        found = summary(rounds, reports, trainers=("c1", "c2"), warmup_rounds=warmup_rounds)
        assert found["samples_per_s"] == pytest.approx(10.2)


def test_a_run_that_ended_in_its_warm_up_has_neither():
    busy = {name: node_report(samples=40) for name in ("c1", "c2", "c3")}
    assert not {"sync_s", "samples_per_s"} & set(summary(reports=busy, warmup_rounds=2))


def test_rounds_and_time():
    found = summary()
    assert (found["rounds"], found["time_s"]) == (2, 5.0)


def test_what_was_not_measured_is_absent():
    found = summary(events=[], train_samples=None)
    absent = {
        "sync_s", "samples_per_s", "balance", "blocking_share", "wan_bytes_per_epoch",
        "final_accuracy", "best_accuracy", "time_to_target_s", "rounds_to_target", "staleness",
    }  # fmt: skip
    assert not absent & set(found)
    assert (found["rounds"], found["time_s"]) == (0, 0.0)


def test_staleness_is_that_of_all_applied_pushes():
    applied = [
        {"t": t, "node": "c1", "event": "applied", "center": center, "round": number,
         "staleness": staleness}
        for t, center, number, staleness in (
            (1.0, "c2", 0, 0), (3.0, "c2", 1, 0), (3.5, "c1", 1, 1), (4.5, "c2", 7, 3)
        )
    ]  # fmt: skip
    whole = summary(events=[*ROUNDS, *applied])
    found = whole["staleness"]
    assert "sync_s" not in whole, "centers at paces of their own have none"
    assert (found["mean"], found["max"]) == (1.0, 3)
    assert found["p95"] == pytest.approx(1 + 2 * 0.85)
    # since 0, since c2 and c1 held round 0 (2.5 and 2.0); nobody knows since when in round 7
    assert (found["mean_s"], found["max_s"]) == (pytest.approx((1.0 + 0.5 + 1.5) / 3), 1.5)


# ---- time to target


def test_the_target_is_reached_by_the_mean_of_three():
    seen = [evaluation(5.0 * k, accuracy, 10 * k) for k, accuracy in
            enumerate([0.1, 0.9, 0.7, 0.79, 0.92, 0.5])]  # fmt: skip
    # means of three: 0.567 at 10 s, 0.797 at 15 s, 0.803 at 20 s
    assert time_to_target(seen, 0.8) == (20.0, 41)
    assert time_to_target(seen, 0.79) == (15.0, 31)
    assert time_to_target(seen, 0.81) == (None, None)


def test_a_model_that_is_evaluated_again_may_count_once():
    seen = [evaluation(5.0 * k, accuracy, number) for k, (number, accuracy) in
            enumerate([(0, 0.7), (1, 0.9), (1, 0.9), (1, 0.9), (2, 0.8), (3, 0.6)])]  # fmt: skip
    assert time_to_target(seen, 0.8, "evaluations") == (10.0, 2)
    assert time_to_target(seen, 0.8) == time_to_target(seen, 0.8, "models") == (20.0, 3)
    alone = [evaluation(at, accuracy, number) for number, (at, accuracy) in
             enumerate([(0.0, 0.7), (1.0, 0.9), (2.0, 0.8)])]  # fmt: skip
    assert time_to_target(alone, 0.8, "evaluations") == time_to_target(alone, 0.8) == (2.0, 3)
    assert "time_to_target_s" not in summary([*ROUNDS, *seen[:4]])
    assert RunConfig().target_over == TARGET_OVER[0] == "models"


def test_the_target_s_standard_error_stands_beside_it():
    found = summary([*ROUNDS, evaluation(1.0, 0.5)], target=0.8, test_samples=1000)
    assert (found["test_samples"], found["target_standard_error"]) == (1000, math.sqrt(0.16 / 1000))
    assert "target_standard_error" not in summary([*ROUNDS, evaluation(1.0, 0.5)])


def test_one_lucky_evaluation_or_two_are_not_enough():
    assert time_to_target([evaluation(0, 1.0), evaluation(5, 1.0)], 0.5) == (None, None)


def test_a_target_is_reached_exactly():
    three = [evaluation(5.0 * k, 0.75, k) for k in range(3)]
    assert time_to_target(three, 0.75) == (10.0, 3)


def test_accuracies_in_the_summary_go_by_time_not_by_order_of_writing():
    seen = [evaluation(10.0, 0.7, 2), evaluation(0.0, 0.1, -1), evaluation(5.0, 0.9, 1),
            evaluation(15.0, 0.85, 3)]  # fmt: skip
    found = summary([*ROUNDS, *seen])
    assert (found["final_accuracy"], found["best_accuracy"]) == (0.85, 0.9)
    assert (found["time_to_target_s"], found["rounds_to_target"]) == (15.0, 4)
    assert found["target_accuracy"] == 0.8


def test_a_missed_target_is_absent():
    assert "time_to_target_s" not in summary([*ROUNDS, evaluation(1.0, 0.5)])


# ---- shares


def test_balance_is_the_mean_busy_share_over_the_largest():
    busy = {"c1": 1.0, "c2": 2.0, "c3": 4.0}
    reports = {name: node_report(compute=seconds) for name, seconds in busy.items()}
    assert summary(reports=reports)["balance"] == pytest.approx((1 + 2 + 4) / 3 / 4)


def test_equal_work_is_perfectly_balanced():
    reports = {name: node_report(compute=3.0) for name in ("c1", "c2", "c3")}
    assert summary(reports=reports)["balance"] == 1.0


def test_blocking_share_is_the_mean_share_of_time_spent_waiting():
    waits = {"c1": 1.0, "c2": 2.0, "c3": 3.0}  # of 5 s
    reports = {name: node_report(wait=wait) for name, wait in waits.items()}
    assert summary(reports=reports)["blocking_share"] == pytest.approx(0.4)


def test_samples_steps_and_violations_are_those_of_the_workers_that_lived():
    reports = {
        "c1": node_report(samples=300, steps=10, violations=1),
        "c2": node_report(samples=200, steps=7),
        "scheduler": node_report(samples=10_000, steps=10_000),
    }
    found = summary(reports=reports)
    assert found["samples_per_s"] == 100.0
    assert (found["steps"], found["pace_violations"]) == (17, 1)
    assert (found["workers"], found["centers"]) == (3, 3)


def test_workers_are_counted_apart_from_their_centers():
    found = summary(trainers=("c1/w0", "c1/w1", "c2/w0"))
    assert (found["workers"], found["centers"]) == (3, 2)


# ---- bytes


def traffic(**sent_by):
    names = {name.replace("_", "/"): sent for name, sent in sent_by.items()}
    return summary(reports={name: node_report(sent=sent) for name, sent in names.items()})


def test_wan_bytes_count_every_hop():
    found = traffic(c1={"c2": {OFFER: 100}, "c3": {OFFER: 10}}, c3={"c1": {OFFER: 1}})
    assert found["wan_bytes"] == 100 + 2 * 10 + 2 * 1
    assert found["lan_bytes"] == 0


def test_traffic_inside_a_center_is_lan_traffic():
    found = traffic(c1={"c1/w0": {OFFER: 70, CONTROL: 3}})
    assert (found["lan_bytes"], found["lan_control_bytes"]) == (70, 3)
    assert found["wan_bytes"] == found["wan_control_bytes"] == 0


def test_control_bytes_are_kept_apart():
    found = traffic(c1={"c2": {OFFER: 100, CONTROL: 5}, "scheduler": {CONTROL: 7}},
                    scheduler={"c3": {CONTROL: 4}})  # fmt: skip
    assert found["wan_bytes"] == 100
    assert found["wan_control_bytes"] == 5 + 2 * 4
    assert found["lan_control_bytes"] == 7


def test_probes_are_data_of_the_wan_and_told_on_their_own():
    sent = {"c2": {str(OFFER): 100, "7": 9}, "c3": {"7": 1}}
    settings = {"trainers": ("c1",), "hops": HOPS, "target": 0.8, "train_samples": None}
    found = summarize(
        [], {"c1": node_report(sent=sent)}, data_kinds={OFFER, 7}, probe_kind=7, **settings
    )
    assert (found["wan_bytes"], found["probe_bytes"]) == (100 + 9 + 2, 9 + 2)
    assert "probe_bytes" not in traffic(c1=sent)


def test_kinds_may_be_numbers_in_text_as_in_json():
    assert traffic(c1={"c2": {str(OFFER): 100, str(CONTROL): 5}})["wan_bytes"] == 100


def test_bytes_per_epoch_are_scaled_from_the_samples_seen():
    reports = {
        "c1": node_report(samples=100, sent={"c2": {OFFER: 1000}}), "c2": node_report(samples=50)
    }  # fmt: skip
    assert summary(reports=reports)["wan_bytes_per_epoch"] == 1000 * 600 / 150


# ---- devices behind base stations


def divergence(node, number, values):
    return {"t": 1.0, "node": node, "event": "divergence", "round": number, "values": values}


def test_internal_traffic_is_summed_and_its_time_is_the_mean_over_base_stations():
    reports = {name: node_report(compute=1.0, samples=10) for name in ("c1", "c2", "c3")}
    for name, (nbytes, seconds) in zip(reports, [(100, 1.0), (300, 2.0), (200, 6.0)], strict=True):
        reports[name]["totals"] |= {"internal_bytes": nbytes, "internal_s": seconds}
    found = summary(reports=reports)
    assert (found["internal_bytes"], found["internal_s"]) == (600, 3.0)
    assert found["wan_bytes"] == found["lan_bytes"] == 0


def test_divergence_is_over_all_steps_of_all_base_stations():
    told = [divergence("c1", 0, [0.05, 0.1, 0.15]), divergence("c2", 0, [0.5])]
    reports = {"c1": node_report(), "c2": node_report()}
    reports["c1"]["totals"] |= {"choice_s": 0.006, "choices": 4}
    found = summary([*ROUNDS, *told], reports=reports)
    assert found["divergence"] == {
        "mean": pytest.approx(0.2), "median": pytest.approx(0.125), "max": 0.5, "min": 0.05,
        "std": pytest.approx((0.125 / 4) ** 0.5),
    }  # fmt: skip
    assert found["choice_ms"] == pytest.approx(1.5)


def test_without_devices_there_is_nothing_of_them():
    reports = {name: node_report(samples=10) for name in ("c1", "c2", "c3")}
    assert not {"internal_bytes", "internal_s", "divergence"} & set(summary(reports=reports))


def test_what_disturbed_a_run_is_told():
    assert "incidents" not in summary()
    told = [
        {"t": 1.0, "node": "scheduler", "event": "dead", "nodes": ["c3", "c3/w0"]},
        {"t": 1.1, "node": "scheduler", "event": "back", "nodes": ["c3"]},
        {"t": 1.2, "node": "c2", "event": "fault", "kind": "kill"},
        {"t": 1.3, "node": "wan", "event": "fault", "kind": "partition", "duration": 1.0},
        {"t": 1.3, "node": "wan", "event": "rates", "rates": [["c1", "c2", 0], ["c2", "c1", 5e6]]},
        {"t": 1.4, "node": "scheduler", "event": "resumed"},
    ]
    assert summary([*ROUNDS, *told])["incidents"] == {
        "deaths": {"c3": 1, "c3/w0": 1},
        "returns": {"c3": 1},
        "faults": {"partition": 1},
        "links_out": 1,
        "resumes": 1,
    }
