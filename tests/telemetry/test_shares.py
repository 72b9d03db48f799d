"""Where time went, on events made by hand, and that no share ever leaves its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated_runs import simulated, small_config

from geojax.telemetry.recorder import Span
from geojax.telemetry.shares import SHARES, balance, predictions, questions, shares_of_time
from geojax.telemetry.summary import summarize


def round_event(node, number, offered, held):
    return {"t": held, "node": node, "event": "round", "round": number, "offered": offered,
            "held": held}  # fmt: skip


def node_report(**totals):
    return {"totals": totals, "sent": {}, "steps": 0, "pace_violations": 0}


# c1 computes for 3 s, asks for 1 s, waits for c2 until 8 s and holds the result at 9 s; then its
# server works for half a second, and the run ends at 10 s.
EVENTS = [round_event("c1", 0, 4.0, 9.0), round_event("c2", 0, 8.0, 10.0)]
REPORTS = {
    "c1": node_report(compute_s=3.0, query_s=0.75, given_up_s=0.25, server_s=0.5),
    "c2": node_report(compute_s=8.0),
}


def test_the_shares_of_a_barrier():
    found = shares_of_time(EVENTS, REPORTS, ("c1", "c2"), 10.0)
    assert found["c1"] == pytest.approx(
        {"compute": 0.3, "query": 0.1, "server": 0.05, "transfer": 0.1, "wait": 0.45}
    )
    assert found["c2"] == pytest.approx(
        {"compute": 0.8, "query": 0.0, "server": 0.0, "transfer": 0.2, "wait": 0.0}
    )


def test_without_a_barrier_nobody_waits_for_the_last_offer():
    applied = {"t": 1.0, "node": "c1", "event": "applied", "staleness": 0}
    found = shares_of_time([*EVENTS, applied], REPORTS, ("c1",), 10.0)
    assert found["c1"]["transfer"] == pytest.approx(0.5)


def test_what_a_server_waits_for_other_centers_is_no_transfer():
    told = {"t": 7.0, "node": "c2", "event": "applied", "staleness": 0}
    held_back = [
        {"t": 8.0, "node": "c2", "event": "held_back", "center": "c1", "round": number,
         "seconds": seconds, "chunk": chunk}
        for number, chunk, seconds in ((0, 0, 2.0), (0, 1, 3.0), (1, 0, 1.0))
    ]  # fmt: skip
    found = shares_of_time([*EVENTS, told, *held_back], REPORTS, ("c1",), 10.0)
    assert found["c1"] == pytest.approx(
        {"compute": 0.3, "query": 0.1, "server": 0.05, "transfer": 0.2, "wait": 0.35}
    )


def test_what_is_under_way_at_the_end_counts_up_to_it():
    """At 8.5 s c1 is receiving since 8; at 4.5 s it waits for c2, also where a server tells so."""
    found = shares_of_time(EVENTS, {"c1": node_report()}, ("c1",), 8.5)["c1"]
    assert found["transfer"] == pytest.approx(0.5 / 8.5)
    told = {"t": 7.0, "node": "c2", "event": "applied", "staleness": 0}
    back = {"t": 8.0, "node": "c2", "event": "held_back", "center": "c1", "round": 0,
            "seconds": 3.0}  # fmt: skip
    for end, moving in ((4.5, 0.5), (6.0, 1.0), (8.5, 1.5)):
        found = shares_of_time([*EVENTS, told, back], {"c1": node_report()}, ("c1",), end)["c1"]
        assert found["transfer"] == pytest.approx(moving / end)


def test_an_asynchronous_center_is_a_barrier_to_its_own_workers():
    events = [
        {"t": 1.0, "node": "c2", "event": "applied", "staleness": 0},
        round_event("c1/w0", 0, 1.0, 9.0), round_event("c1/w1", 0, 6.0, 9.0),
        round_event("c2", 0, 8.0, 9.0),
    ]  # fmt: skip
    reports = {"c1/w0": node_report(compute_s=1.0)}
    found = shares_of_time(events, reports, ("c1/w0",), 10.0)["c1/w0"]
    assert (found["transfer"], found["wait"]) == pytest.approx((0.3, 0.6))


def test_judging_for_a_service_is_not_training():
    reports = {"c1": node_report(compute_s=3.0, judge_s=1.0, server_s=0.5)}
    found = shares_of_time(EVENTS, reports, ("c1",), 10.0)["c1"]
    assert (found["compute"], found["server"]) == pytest.approx((0.3, 0.15))


def test_the_work_of_a_local_server_lies_within_the_transfer_of_its_workers():
    events = [round_event("c1/w0", 0, 4.0, 9.0)]
    reports = {"c1/w0": node_report(compute_s=4.0), "c1": node_report(server_s=2.0)}
    found = shares_of_time(events, reports, ("c1/w0",), 10.0)["c1/w0"]
    assert (found["server"], found["transfer"]) == pytest.approx((0.2, 0.3))


numbers = st.floats(0, 1e6)


@given(
    st.lists(st.tuples(st.sampled_from(["c1", "c2"]), st.integers(0, 3), numbers, numbers)),
    st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=2, max_size=2),
    st.floats(1e-3, 1e6),
)
def test_shares_sum_to_one_and_no_figure_exceeds_its_bound(rounds, totals, time_s):
    events = [round_event(node, number, offered, held) for node, number, offered, held in rounds]
    reports = {
        name: node_report(compute_s=a, query_s=b, server_s=c, given_up_s=d)
        for name, (a, b, c, d) in zip(("c1", "c2"), totals, strict=True)
    }
    for shares in shares_of_time(events, reports, ("c1", "c2"), time_s).values():
        assert set(shares) == set(SHARES)
        assert all(0 <= share <= 1 for share in shares.values())
        assert sum(shares.values()) == pytest.approx(1.0)
    fair = balance([busy for busy, *_ in totals])
    assert fair is None or 0 < fair <= 1


def test_questions_a_second_and_their_slowest():
    asked = [Span("query", 0.0, 0.1, {}), Span("query_in_flight", 0, 0.3, {})]
    reports = {"c1": node_report(), "scheduler": node_report(requests=20)}
    found = questions(reports, {"c1": asked, "c2": [Span("query", 9.0, 11.0, {})]}, 10.0)
    assert found == pytest.approx({"served": 20, "per_s": 2.0, "mean_s": 0.2, "p99_s": 0.298})
    assert questions({"c1": node_report()}, {}, 10.0) is None


def test_predictions_are_averaged():
    events = [
        {"event": "esync", "round": 1, "straggler": "c1", "error": 0.1, "wrong": False},
        {"event": "esync", "round": 2, "straggler": "c1", "error": 0.3, "wrong": True},
        {"event": "esync_centers", "round": 2, "straggler": "c1", "error": 0.9, "wrong": True},
    ]
    assert predictions(events) == pytest.approx({"error": 0.2, "wrong": 0.5, "compared": 2})
    centers = summary([*EVENTS, *({"t": 1.0, "node": "scheduler", **e} for e in events)])
    assert centers["prediction"] == predictions(events), "those of centers are apart"
    assert centers["center_prediction"] == {"error": 0.9, "wrong": 1.0, "compared": 1}
    assert predictions(EVENTS) is None


def summary(events, **options):
    settings = {"trainers": ("c1", "c2"), "hops": {("c1", "c2"): [("c1", "c2")]}, "target": 0.8,
                "train_samples": 100, "data_kinds": {2, 3}}  # fmt: skip
    return summarize(events, options.pop("reports", REPORTS), **{**settings, **options})


def test_the_rate_of_samples_goes_by_the_steps_of_each_round():
    events = [round_event(n, r, at, at + 1) for r, at in ((0, 1.0), (1, 9.0)) for n in ("c1", "c2")]
    taken = [
        {"t": 1.0, "node": "c1", "event": "steps", "round": number, "steps": steps}
        for number, steps in ((0, 1), (1, 9))
    ]
    reports = {"c1": node_report(samples=100.0), "c2": node_report()}
    found = summary([*events, *taken], reports=reports, warmup_rounds=1)
    assert found["samples_per_s"] == pytest.approx(0.9 * 100 / 8.0)


def test_offers_alone_are_the_other_convention_of_bytes_per_epoch():
    sent = {"c2": {"bytes": {"2": 300, "3": 500}}}
    reports = {"c1": {**node_report(samples=200.0), "sent": sent}}
    found = summary(EVENTS, reports=reports, offer_kind=2)
    assert (found["wan_bytes_per_epoch"], found["wan_offer_bytes_per_epoch"]) == (400.0, 150.0)


BARRIERS = {
    "ssp": ("fsa", {"sync__s": 0}),
    "quorum": ("local_steps", {"sync__local_steps": 5, "sync__quorum": 3}),
    "fedat": ("local_steps", {"sync__local_steps": 5, "sync__tiers": 1}),
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sync", BARRIERS)
def test_waiting_for_other_centers_at_a_server_is_waiting_as_at_a_barrier(sync, workers):
    """A bound of 0, a quorum of all and one tier are barriers; one center is ten times slower."""
    twin, settings = BARRIERS[sync]
    common = {"workers": workers, "rounds": 8, "model__pace_s": 0.2, "overlay__root": "c3",
              "pace__centers": {"c3": 10.0}}  # fmt: skip
    steps = {key: value for key, value in settings.items() if key == "sync__local_steps"}
    found = []
    for algorithm in ({"sync__name": sync, **settings}, {"sync__name": twin, **steps}):
        outcome = simulated(small_config(**common, **algorithm))
        trainers = sorted({event["node"] for event in outcome.of("round")})
        time_s = max(event["held"] for event in outcome.of("round"))
        found.append(shares_of_time(outcome.events, outcome.reports, trainers, time_s))
    served, barrier = found
    assert served.keys() == barrier.keys()
    for name, shares in served.items():
        assert sum(shares.values()) == pytest.approx(1.0)
        for kind, share in shares.items():
            assert share == pytest.approx(barrier[name][kind], abs=0.03), (name, kind)
        assert shares["wait"] > 0.7 or name.startswith("c3")


def test_judging_takes_no_part_of_tifls_computing():
    config = small_config(
        sync__name="tifl", sync__policy="adaptive", sync__interval=2, sync__held_out=64,
        sync__local_steps=1, sync__profiling_rounds=1, rounds=8, model__name="mlp",
        data__name="digits", batch_size=16,
    )  # fmt: skip
    outcome = simulated(config)
    for name, report in outcome.reports.items():
        if name != "scheduler":
            steps, spans = report["steps"], outcome.spans[name]
            judged = sum(s.end - s.start for s in spans if s.name == "judge")
            assert judged > 0
            assert report["totals"]["judge_s"] == pytest.approx(judged)
            computed = [s.end - s.start for s in spans if s.name == "compute"]
            assert len(computed) == steps
            assert report["totals"]["compute_s"] == pytest.approx(sum(computed))
