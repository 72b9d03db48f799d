"""ESync's state server, driven by lists of messages and by a cluster of a few lines."""

import math

import pytest
from esync_by_hand import Clockwork, steps_of_a_round
from hypothesis import given, settings
from hypothesis import strategies as st

from geojax.errors import Refused
from geojax.sync.algorithm import StepStatus
from geojax.sync.esync_state import DONE, QUERY, REPORT, EsyncState, told

FAST, SLOW = 0.0233, 3.5
TWELVE = [f"c{number}" for number in range(1, 13)]


def question(operation, number=0, taken=0, step_s=1.0, push_s=0.1):
    return told(operation, StepStatus(number, taken, step_s, push_s))


class Table:
    """A state server of some members that are in round 1, each with a delay that is known."""

    def __init__(self, step_s, push_s=0.0, **options):
        self.state, self.now = EsyncState(**options), 0.0
        self.state.members([*step_s])
        for name, seconds in step_s.items():
            self.say(name, REPORT, 1, step_s=seconds, push_s=push_s, at=0.0)
            self.state.rows[name].seen = True

    def say(self, name, operation, number=1, taken=0, *, at, **told):
        answer = self.state.answer(name, question(operation, number, taken, **told), at)
        return answer.get("train")


# ---- the rule, message by message


def test_who_would_arrive_after_the_straggler_exchanges():
    table = Table({"fast": 1.0, "slow": 10.0})
    assert [table.say("fast", QUERY, taken=n, at=float(n)) for n in range(1, 10)] == [True] * 9
    assert not table.say("fast", QUERY, taken=10, at=10.0)


def test_the_straggler_takes_one_step_and_then_nobody_takes_another():
    table = Table({"fast": 1.0, "slow": 10.0})
    assert table.say("fast", QUERY, taken=1, at=1.0)
    assert not table.say("slow", QUERY, taken=1, step_s=5.0, at=5.0), "earlier than expected"
    assert not table.say("fast", QUERY, taken=2, at=5.0)


def test_pushes_count_in_the_journal_alone():
    for variant, trains in (("journal", False), ("preprint", True)):
        table = Table({"near": 2.0, "far": 5.0}, variant=variant)
        table.state.rows["near"].push_s = 2.0
        assert table.say("near", QUERY, taken=1, step_s=2.0, push_s=2.0, at=2.0) is trains


def test_a_far_member_may_be_the_straggler():
    table = Table({"near": 3.0, "far": 2.0})
    table.state.rows["far"].push_s = 4.0
    assert table.state.straggler(0.0, 0) == "far"
    assert not table.say("far", QUERY, taken=1, step_s=2.0, at=2.0)


def test_the_guard_keeps_a_distance():
    trains = [
        Table({"fast": 1.0, "slow": 3.0}, guard_s=guard).say("fast", QUERY, taken=1, at=1.0)
        for guard in (0.0, 0.9, 1.1)
    ]
    assert trains == [True, True, False]


def test_a_first_report_of_an_absurd_round_changes_no_answer():
    """Nobody else has entered a round yet, so it cannot be refused."""
    table = Table({"fast": 1.0, "slow": 10.0})
    state = table.state = EsyncState()
    state.members(["liar", "fast", "slow"])
    table.say("liar", REPORT, 2**30, step_s=100.0, at=0.0)
    for name, seconds in (("fast", 1.0), ("slow", 10.0)):
        table.say(name, REPORT, 1, step_s=seconds, at=0.0)
    assert [table.say("fast", QUERY, taken=n, at=float(n)) for n in range(1, 10)] == [True] * 9
    assert not table.say("fast", QUERY, taken=10, at=10.0)


def test_until_the_straggler_has_entered_the_round_everybody_trains():
    table = Table({"fast": 1.0, "slow": 10.0})
    table.say("slow", QUERY, taken=1, step_s=10.0, at=10.0)
    table.say("fast", QUERY, taken=1, at=10.0)
    table.say("fast", REPORT, 2, at=10.1)
    assert table.say("fast", QUERY, 2, 1, at=11.2), "the row of slow is one of the round before"
    table.say("slow", REPORT, 2, at=11.3)
    assert table.say("fast", QUERY, 2, 2, at=12.2)


def test_entering_a_round_takes_back_that_the_straggler_was_done():
    table = Table({"fast": 1.0, "slow": 10.0})
    table.say("slow", QUERY, taken=1, step_s=10.0, at=10.0)
    table.say("fast", QUERY, taken=1, at=10.0)
    for name in ("slow", "fast"):
        table.say(name, REPORT, 2, at=10.1)
    assert table.say("fast", QUERY, 2, 1, at=11.1)


def test_who_becomes_the_straggler_in_a_later_step_is_waited_for_until_that_ends():
    table = Table({"fast": 1.0, "middle": 3.0, "slow": 10.0})
    assert all(table.say("middle", QUERY, taken=n, step_s=3.0, at=3.0 * n) for n in (1, 2))
    assert table.say("slow", QUERY, taken=1, step_s=0.5, at=7.0), "7.5 s is before 6 + 3 s"
    assert table.state.straggler(7.0, 0) == "middle"
    assert table.say("fast", QUERY, taken=1, step_s=1.0, at=8.0)
    assert not table.say("fast", QUERY, taken=2, step_s=1.0, at=9.0)


def test_who_ends_a_round_of_its_own_accord_is_done():
    table = Table({"fast": 1.0, "slow": 10.0})
    assert not table.say("slow", DONE, taken=1, step_s=2.0, at=2.0)
    assert not table.say("fast", QUERY, taken=1, at=2.0)


def test_who_is_told_to_exchange_while_its_last_step_runs_may_end_the_round_itself():
    table = Table({"fast": 1.0, "slow": 10.0})
    assert not table.say("slow", QUERY, taken=1, step_s=10.0, at=10.0)
    before = vars(table.state.rows["slow"]).copy()
    assert table.say("slow", DONE, taken=2, step_s=10.0, at=20.0) is False
    assert vars(table.state.rows["slow"]) == before


def test_h0_steps_of_the_straggler():
    table = Table({"fast": 1.0, "slow": 10.0}, least=3)
    taken = next(n for n in range(3, 99) if not table.say("fast", QUERY, taken=n, at=float(n)))
    assert taken == 30
    assert not table.say("slow", QUERY, taken=3, step_s=10.0, at=30.0)


# ---- what is not believed


ABSURD = [-1.0, -0.001, math.nan, math.inf, -math.inf, 1e7, 1e300, 2**70, "1", None, True, [1]]


@pytest.mark.parametrize("operation", [REPORT, QUERY])
@pytest.mark.parametrize("key", ["step_s", "push_s"])
@pytest.mark.parametrize("value", ABSURD)
def test_absurd_times_are_refused_and_move_no_row(operation, key, value):
    table = Table({"liar": 1.0, "slow": 10.0})
    before = {name: vars(row).copy() for name, row in table.state.rows.items()}
    asked = question(operation, 2 if operation == REPORT else 1, operation == QUERY)
    asked["taken"] = int(asked["taken"])
    with pytest.raises(Refused, match=f"esync.{key}"):
        table.state.answer("liar", {**asked, key: value}, 1.0)
    assert {name: vars(row) for name, row in table.state.rows.items()} == before


@pytest.mark.parametrize(
    ("told_", "why"),
    [
        ({"op": "train"}, "esync.op"), ({"op": 1}, "esync.op"), ({"round": -1}, "esync.round"),
        ({"round": 2**31}, "esync.round"), ({"round": 1.0}, "esync.round"),
        ({"taken": 0}, "esync.taken"), ({"taken": True}, "esync.taken"),
        ({"round": 0}, "is in round 1"), ({"round": 2}, "is in round 1"), ({"more": 1}, "expected"),
    ],
)  # fmt: skip
def test_what_is_no_status_is_refused(told_, why):
    table = Table({"liar": 1.0, "slow": 10.0})
    with pytest.raises(Refused, match=why):
        table.state.answer("liar", {**question(QUERY, 1, 1), **told_}, 1.0)


def test_steps_and_rounds_only_grow_and_who_exchanges_asks_no_more():
    table = Table({"a": 1.0, "b": 9.0})
    table.say("a", QUERY, taken=2, at=2.0)
    with pytest.raises(Refused, match="had taken 2 steps, and tells 2"):
        table.say("a", QUERY, taken=2, at=2.5)
    with pytest.raises(Refused, match="is in round 1, and enters 0"):
        table.say("a", REPORT, 0, at=2.5)
    table.say("b", QUERY, taken=1, at=3.0)
    with pytest.raises(Refused, match="told to exchange"):
        table.say("b", QUERY, taken=2, at=4.0)
    with pytest.raises(Refused, match="in round none"):
        EsyncState().answer("a", question(QUERY, 0, 1), 0.0)


def test_a_told_duration_counts_no_more_than_what_was_observed():
    table = Table({"liar": 1.0, "other": 2.0})
    table.say("liar", QUERY, taken=1, step_s=9e5, push_s=9e5, at=1.0)
    assert table.state.rows["liar"].step_s == pytest.approx(1.1)
    table.say("liar", REPORT, 2, step_s=9e5, push_s=9e5, at=1.5)
    assert table.state.rows["liar"].push_s == pytest.approx(0.55)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([REPORT, QUERY, DONE]), st.integers(-1, 4), st.integers(-1, 5),
            st.floats(), st.floats(), st.floats(0, 5),
        ),
        max_size=30,
    )
)  # fmt: skip
def test_whatever_one_member_says_the_rows_of_others_stay(messages):
    table, now = Table({"liar": 1.0, "a": 2.0, "b": 3.0}), 0.0
    before = [vars(table.state.rows[name]).copy() for name in "ab"]
    for operation, number, taken, step_s, push_s, later in messages:
        now += later
        try:
            table.say("liar", operation, number, taken, step_s=step_s, push_s=push_s, at=now)
        except Refused:
            continue
        row = table.state.rows["liar"]
        assert row.step_s is None or 0 <= row.step_s <= max(1.0, 1.1 * now)
    assert [vars(table.state.rows[name]) for name in "ab"] == before


# ---- silence


def test_a_silent_straggler_is_left_out_after_a_while_and_readmitted_when_it_is_heard():
    table = Table({"fast": 1.0, "frozen": 4.0}, evict_after_s=10.0)
    for name in ("frozen", "fast"):
        table.say(name, QUERY, taken=1, step_s=4.0 if name == "frozen" else 1.0, at=4.0)
    table.say("fast", REPORT, 2, at=4.5)  # the frozen one does not enter this round
    taken = next(n for n in range(1, 99) if not table.say("fast", QUERY, 2, n, at=4.5 + n))
    assert 4.5 + taken == pytest.approx(4.0 + 3 * 4.0 * 1.0, abs=1.0), "3 d_k, as that is more"
    assert table.state.straggler(4.5 + taken, 2) == "fast"
    table.say("frozen", REPORT, 3, at=30.0)
    table.say("fast", REPORT, 3, at=30.0)
    assert table.state.straggler(30.0, 3) == "frozen"


def test_a_first_push_that_nobody_saw_allows_no_silence():
    table = Table({"fast": 1.0}, least=2)
    table.state.members(["fast", "liar"])
    table.say("liar", REPORT, push_s=1e6, at=0.0)
    table.say("liar", QUERY, taken=1, at=1.0)
    assert all(table.say("fast", QUERY, taken=n, at=float(n)) for n in range(1, 12))
    assert not table.say("fast", QUERY, taken=12, at=12.0), "the liar has been silent for 11 s"


@pytest.mark.parametrize("number", [1, 0, 3, 2**31 - 1])
def test_who_reports_again_or_out_of_order_holds_nobody_up(number):
    """Between any two questions of the others it says that it enters a round, as it need not."""
    honest, table = (Table({"fast": 1.0, "liar": 10.0}, evict_after_s=10.0) for _ in range(2))
    before = {name: vars(row).copy() for name, row in table.state.rows.items()}
    for at in range(1, 99):
        with pytest.raises(Refused, match=f"esync: liar .*enters (round )?{number}"):
            table.say("liar", REPORT, number, step_s=10.0, at=at - 0.5)
        assert vars(table.state.rows["liar"]) == before["liar"]
        trains = [each.say("fast", QUERY, taken=at, at=float(at)) for each in (honest, table)]
        assert trains[0] == trains[1]
        if not trains[1]:
            break
    assert at == 10, "the straggler was expected 10 s after it had entered the round"


def test_a_member_that_enters_rounds_and_takes_no_step_holds_nobody_up_beyond_the_bound():
    table = Table({"fast": 1.0, "liar": 10.0, "slow": 3.0}, evict_after_s=10.0)
    table.say("liar", REPORT, 2, step_s=10.0, at=0.5)  # too early, but others could be late
    last = next(at for at in range(1, 99) if not table.say("fast", QUERY, taken=at, at=float(at)))
    assert last == 1, "nobody waits for who is in a later round"
    table.say("fast", REPORT, 2, at=2.0)
    table.say("slow", REPORT, 2, step_s=3.0, at=2.0)
    with pytest.raises(Refused, match="is in round 2, and enters 2"):
        table.say("liar", REPORT, 2, step_s=10.0, at=2.0)
    taken = next(n for n in range(1, 99) if not table.say("fast", QUERY, 2, n, at=2.0 + n))
    assert 2.0 + taken <= 0.5 + 3 * 10.0 + 1.0


def test_within_both_levels_a_worker_enters_the_first_round_after_the_exchange_of_centers():
    table = Table({"a": 1.0, "b": 2.0}, lan_rounds=100)
    table.say("a", REPORT, 100, at=3.0)
    with pytest.raises(Refused, match="b enters round 201, others are in 100"):
        table.say("b", REPORT, 201, at=3.0)
    table.say("b", REPORT, 200, at=3.0)


def test_an_observed_push_allows_three_times_as_long_a_silence():
    table = Table({"fast": 1.0, "far": 1.0})
    assert not table.say("far", DONE, taken=1, at=1.0)
    table.say("far", REPORT, 2, push_s=5.0, at=6.0)
    assert table.state.straggler(24.0, 1) == "far"  # 3 · (1 s + 5 s) after it was heard
    assert table.state.straggler(24.1, 1) is None


def test_the_dead_have_no_row():
    table = Table({"fast": 1.0, "dead": 10.0, "slow": 3.0})
    table.state.members(["fast", "slow"])
    assert table.state.straggler(0.0, 0) == "slow"
    table.state.members(["fast", "dead", "slow"])
    assert table.state.straggler(0.0, 0) == "slow", "who is back has no past"


# ---- whole clusters


def test_half_fast_half_slow_as_in_the_journal():
    played = Clockwork(
        EsyncState(), lambda name, now: FAST if name in TWELVE[:6] else SLOW, TWELVE
    ).play(6)  # fmt: skip
    by_rule = steps_of_a_round([FAST] * 6 + [SLOW] * 6, [0.05] * 12, [0.002] * 12)
    assert by_rule == [138] * 6 + [1] * 6
    assert played.steps[0] == dict.fromkeys(TWELVE, 1), "no step has been timed yet"
    for taken, waits in zip(played.steps[1:], played.waits[1:], strict=True):
        assert [*taken.values()] == pytest.approx(by_rule, abs=2)
        assert set([*taken.values()][6:]) == {1}
        assert max(waits.values()) <= FAST + 2 * 0.002
    first = Clockwork(played.state.__class__(), played.pace, TWELVE).play(1)
    busy = {name: played.busy[name] - first.busy[name] for name in TWELVE}
    assert sum(busy.values()) / 12 / max(busy.values()) >= 0.95


@pytest.mark.parametrize(
    ("h", "steps"), [(1, 1), (1.9, 1), (10, 9), (50, 46), (150, 138), (300, 276)]
)
def test_steps_by_heterogeneity(h, steps):
    pace = [FAST if name in TWELVE[:6] else FAST * h for name in TWELVE]
    played = Clockwork(EsyncState(), lambda name, now: pace[TWELVE.index(name)], TWELVE).play(3)
    assert [*played.steps[-1].values()] == steps_of_a_round(pace, [0.05] * 12, [0.002] * 12)
    assert (played.steps[-1]["c1"], played.steps[-1]["c12"]) == (steps, 1)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0.02, 3.0), min_size=2, max_size=8))
def test_with_constant_paces_nobody_waits_longer_than_its_own_step_and_two_queries(paces):
    names = [f"w{index}" for index in range(len(paces))]
    played = Clockwork(EsyncState(), lambda name, now: paces[names.index(name)], names).play(4)
    expected = steps_of_a_round(paces, [0.05] * len(names), [0.002] * len(names))
    slowest = max(paces)
    for taken, waits in zip(played.steps[1:], played.waits[1:], strict=True):
        for name, pace, steps in zip(names, paces, expected, strict=True):
            assert abs(taken[name] - steps) <= 1
            assert taken[name] == 1 or pace < slowest
            assert waits[name] <= pace + 2 * 0.002 + 1e-9 or pace == slowest


@pytest.mark.parametrize("variant", ["journal", "preprint"])
def test_a_sudden_slow_down_costs_exactly_one_bad_round(variant):
    slow_from = 16.0
    names = ["changing", "fast", "slow"]

    def pace(name, now):
        return {"fast": 0.1, "slow": 3.5, "changing": 7.0 if now > slow_from else 0.1}[name]

    played = Clockwork(EsyncState(variant=variant), pace, names).play(10)
    assert played.steps[2]["fast"] == pytest.approx(34, abs=1)
    assert played.steps[-1]["fast"] == pytest.approx(68, abs=1)
    bad = [n for n, waits in enumerate(played.waits) if n and waits["fast"] > 0.1 + 2 * 0.002]
    assert len(bad) == 1
    assert played.waits[bad[0]]["fast"] < 7.0
    wrong = [record["wrong"] for record in played.state.records()]
    assert sum(wrong) == 1


def test_a_speed_up_is_absorbed_in_its_round():
    names = ["changing", "fast", "slow"]

    def pace(name, now):
        return {"fast": 0.1, "slow": 3.5, "changing": 7.0 if now < 16.0 else 0.1}[name]

    played = Clockwork(EsyncState(), pace, names).play(8)
    assert max(waits["fast"] for waits in played.waits[1:]) <= 3.6
    assert played.steps[-1]["fast"] == pytest.approx(34, abs=1)


def test_predictions_are_right_with_constant_paces():
    pace = {"a": 0.2, "b": 0.7, "c": 2.0}
    played = Clockwork(EsyncState(), lambda name, now: pace[name], [*pace]).play(6)
    records = played.state.records()
    assert [record["round"] for record in records] == [1, 2, 3, 4]
    assert {record["straggler"] for record in records} == {"c"}
    assert not any(record["wrong"] for record in records)
    assert max(record["error"] for record in records) <= 0.002


def test_a_straggler_that_stops_for_good_holds_others_up_no_longer_than_the_bound():
    names = ["fast", "slow"]
    pace = {"fast": 0.1, "slow": 2.0}
    state = EsyncState(evict_after_s=5.0)
    played = Clockwork(
        state, lambda name, now: pace[name], names, stops={"slow": 7.0}
    ).play(9)  # fmt: skip
    assert played.now <= 7.0 + max(5.0, 3 * 2.1) + 1.0
    assert state.rows["fast"].sync
