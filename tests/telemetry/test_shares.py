"""Where time went, on events made by hand, and that no share ever leaves its bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    found = questions({"c1": node_report(), "scheduler": node_report(requests=20)}, asked, 10.0)
    assert found == pytest.approx({"served": 20, "per_s": 2.0, "mean_s": 0.2, "p99_s": 0.298})
    assert questions({"c1": node_report()}, [], 10.0) is None


def test_predictions_are_averaged():
    events = [
        {"event": "esync", "round": 1, "straggler": "c1", "error": 0.1, "wrong": False},
        {"event": "esync", "round": 2, "straggler": "c1", "error": 0.3, "wrong": True},
    ]
    assert predictions(events) == pytest.approx({"error": 0.2, "wrong": 0.5, "rounds": 2})
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
