"""TiFL's server, driven by lists of messages: the profile, the tiers, the credits."""

import json
import zlib

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from tifl_by_hand import adaptive

from geojax.errors import ConfigError, Refused
from geojax.sync.tifl_policy import changed, probabilities
from geojax.sync.tifl_state import DONE, ENTER, JUDGED, TiflState

FOUR = ("c1", "c2", "c3", "c4")


class Cluster:
    """Workers that answer at constant paces, each round as a barrier; no network."""

    def __init__(self, seconds, push_s=None, right=None, **options):
        self.seconds, self.push_s = dict(seconds), dict(push_s or {})
        self.right = right or (lambda _round, _center: 50)
        self.state = TiflState(**{"policy": "uniform", "count": 2, **options})
        self.now, self.round, self.names = 0.0, 0, tuple(seconds)
        self.dead = set()
        self.state.members(self.names)
        self.records = []

    def ask(self, name, question):
        answer = self.state.answer(name, question, self.now)
        self.records += self.state.records()
        return answer

    def enter(self, name, number, push_s=None):
        pushed = self.push_s.get(name, 0.0) if push_s is None else push_s
        return self.ask(name, {"op": ENTER, "round": number, "push_s": pushed})

    def play(self):
        """One round; returns its contributors."""
        living = [name for name in self.names if name not in self.dead]
        answers = {name: self.enter(name, self.round) for name in living}
        begun = self.now
        for name, answer in answers.items():
            if answer["judges"]:
                right = self.right(self.round, name)
                self.ask(name, {"op": JUDGED, "round": self.round, "right": right, "of": 100})
        chosen = [name for name in living if answers[name]["contributes"]]
        for name in sorted(chosen, key=lambda name: self.seconds[name]):
            self.now = begun + self.seconds[name]
            self.ask(name, {"op": DONE, "round": self.round})
        self.now += max(self.push_s.values(), default=0.0) + 0.1
        self.round += 1
        return chosen

    def kill(self, name):
        self.dead.add(name)
        self.state.members([n for n in self.names if n not in self.dead])

    def revive(self, name):
        self.dead.discard(name)
        self.state.members([n for n in self.names if n not in self.dead])


# ---- the profile


def test_all_contribute_until_the_last_times_are_in_and_then_a_tier():
    cluster = Cluster({"c1": 4.0, "c2": 1.0, "c3": 2.0, "c4": 3.0}, profiling_rounds=2)
    assert [cluster.play() for _ in range(3)] == [list(FOUR)] * 3
    chosen = [tuple(cluster.play()) for _ in range(40)]
    assert set(chosen) == {("c2", "c3"), ("c1", "c4")}
    assert cluster.state.policy.tiers == [["c2", "c3"], ["c4", "c1"]], "measured, the fastest first"
    assert cluster.state.latency == pytest.approx(cluster.seconds)
    json.dumps(cluster.records)  # they are events


def test_pushes_count_and_are_believed_up_to_what_was_seen():
    cluster = Cluster(dict.fromkeys(FOUR, 1.0), {"c1": 3.0, "c3": 2.0}, profiling_rounds=1)
    cluster.play()
    cluster.enter("c2", 1, push_s=1e5)  # entered 3.1 s after its offer
    for name in ("c1", "c3", "c4"):
        cluster.enter(name, 1)
    cluster.round = 2
    cluster.play()
    assert cluster.state.latency == pytest.approx({"c1": 4.0, "c2": 4.41, "c3": 3.0, "c4": 1.0})


def test_a_center_is_as_slow_as_its_slowest_worker():
    cluster = Cluster({"a": 0.0, "a/w0": 1.0, "a/w1": 5.0, "b": 0.0, "b/w0": 2.0, "b/w1": 2.0})
    workers = [name for name in cluster.names if "/" in name]
    for number in range(5):
        for name in workers:
            if cluster.enter(name, number)["contributes"]:
                cluster.now += cluster.seconds[name]
                cluster.ask(name, {"op": DONE, "round": number})
                cluster.now -= cluster.seconds[name]
        cluster.now += 6.0
    assert cluster.state.latency == pytest.approx({"a": 5.0, "b": 2.0})
    assert cluster.state.policy.tiers == [["b"], ["a"]]


@pytest.mark.parametrize(
    ("timeout_s", "tiers"),
    [
        (None, [["c1", "c2"], ["c3", "c4"]]),
        (10.0, [["c1", "c2"], ["c3"]]),
        (4.0, [["c1"], ["c2"]]),
        (2.5, [["c1", "c2"]]),
        (1.5, [["c1"]]),
    ],
)
def test_who_takes_as_long_as_the_timeout_drops_out(timeout_s, tiers):
    seconds = {"c1": 1.0, "c2": 2.0, "c3": 4.0, "c4": 10.0}
    count = 1 if timeout_s == 2.5 else 2
    cluster = Cluster(seconds, timeout_s=timeout_s, count=count, profiling_rounds=2)
    chosen = [cluster.play() for _ in range(40)][3:]
    assert cluster.state.policy.tiers == tiers
    assert {name for names in chosen for name in names} == {n for tier in tiers for n in tier}


def test_a_missed_round_counts_the_timeout():
    seconds = dict.fromkeys(FOUR, 1.0)
    cluster = Cluster(seconds, timeout_s=9.0, profiling_rounds=3)
    cluster.play()
    cluster.play()
    cluster.kill("c2")  # before it has told how long it was pushing
    cluster.play()
    cluster.revive("c2")
    cluster.play()
    cluster.play()
    assert cluster.state.latency == pytest.approx({**seconds, "c2": (1 + 9 + 9) / 3})


def test_a_timeout_that_nobody_meets_is_named():
    cluster = Cluster({"c1": 3.0, "c2": 4.0}, timeout_s=2.0, profiling_rounds=1)
    cluster.play()
    cluster.play()
    with pytest.raises(ConfigError, match=r"sync\.timeout_s = 2\.0: no center has answered"):
        cluster.play()


# ---- the draw


def test_dead_centers_are_not_drawn_and_a_dead_tier_is_passed_over():
    cluster = Cluster({"c1": 1.0, "c2": 2.0, "c3": 3.0}, policy="slow", profiling_rounds=1)
    cluster.play()
    cluster.play()
    assert cluster.play() == ["c3"]
    cluster.kill("c3")
    assert cluster.play() == ["c1", "c2"]
    cluster.kill("c1")
    assert cluster.play() == ["c2"]
    cluster.revive("c3")
    assert cluster.play() == ["c3"], "it has kept its tier"


def test_some_of_a_tier():
    options = {"policy": "fast", "clients": 1, "profiling_rounds": 0}
    cluster = Cluster(dict.fromkeys(FOUR, 1.0), tier_of={"c1": 0, "c2": 0, "c3": 1}, **options)
    assert {tuple(cluster.play()) for _ in range(30)} == {("c1",), ("c2",)}


@pytest.mark.parametrize(("count", "left"), [(5, 1.0), (3, 0.9), (1, 0.7)])
def test_policies_of_five_tiers_are_scaled_where_there_are_fewer(count, left):
    published = (0.7, 0.1, 0.1, 0.05, 0.05)[:count]
    assert probabilities("random", count) == pytest.approx([each / left for each in published])


# ---- the adaptive policy


@pytest.mark.parametrize(
    ("accuracy", "credit", "chances"),
    [
        ([0.9, 0.5, 0.7, 0.6, 0.8], [1, 1, 1, 1, 1], [0, 0.4, 0.2, 0.3, 0.1]),
        ([0.9, 0.5, 0.7, 0.6, 0.8], [1, 0, 1, 1, 1], [0, 0, 1 / 3, 1 / 2, 1 / 6]),
        ([0.9, 0.5, 0.7], [3, 3, 0], [0, 1, 0]),
        ([0.9, 0.5, 0.7], [0, 3, 0], [0, 1, 0]),
        ([0.5, 0.5], [3, 3], [1, 0]),
        ([0.5, None, 0.4], [3, 3, 3], [0, 2 / 3, 1 / 3]),
        ([0.5], [2], [1]),
    ],
)
def test_the_worse_a_tier_the_likelier_it_is(accuracy, credit, chances):
    assert changed(accuracy, credit) == pytest.approx(chances)


@examples(30)
@given(
    interval=st.integers(1, 4), tiers=st.integers(1, 4), credit=st.integers(8, 20),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_it_equals_its_plain_loop(interval, tiers, credit, seed):
    names = [f"c{at}" for at in range(tiers)]

    def right(number, name):
        return int(np.random.default_rng([seed, number, names.index(name)]).integers(0, 100))

    def draw(number, chances):
        stream = np.random.default_rng([seed, zlib.crc32(b"tifl"), number])
        total = sum(chances)
        chances = np.array(chances) / total if total else None
        return int(stream.choice(tiers, p=chances))

    cluster = Cluster(
        dict.fromkeys(names, 1.0), right=right, policy="adaptive", count=tiers, seed=seed,
        profiling_rounds=0, interval=interval, credit=credit,
        tier_of={name: at for at, name in enumerate(names)},
    )  # fmt: skip
    rounds = credit  # so no tier runs out of credits
    found = [names.index(*cluster.play()) for _ in range(rounds)]

    def accuracy(number):
        return [right(number, name) / 100 for name in names]

    expected = adaptive(
        rounds, accuracy, draw, tiers=tiers, interval=interval, credit=credit
    )  # fmt: skip
    assert found == expected


def test_a_tier_that_gets_no_better_gives_way_to_the_worst():
    accuracy = {"c1": 80, "c2": 20}
    cluster = Cluster(
        {"c1": 1.0, "c2": 2.0}, right=lambda _, name: accuracy[name], policy="adaptive",
        profiling_rounds=1, interval=3, credit=100,
    )  # fmt: skip
    chosen = [cluster.play() for _ in range(30)]
    assert chosen[:2] == [["c1", "c2"]] * 2
    assert len({tuple(names) for names in chosen[2:6]}) == 2
    assert chosen[6:] == [["c2"]] * 24, "from the round after the second look on"


def test_a_tier_that_improves_is_left_alone():
    cluster = Cluster(
        {"c1": 1.0, "c2": 2.0}, right=lambda number, _: 10 + number, policy="adaptive",
        profiling_rounds=1, interval=2, credit=100,
    )  # fmt: skip
    for _ in range(30):
        cluster.play()
    assert cluster.state.policy.chances == (0.5, 0.5)


def test_credits_end_a_tiers_rounds_and_begin_anew_when_all_are_spent():
    cluster = Cluster(
        {"c1": 1.0, "c2": 2.0}, right=lambda _, name: 80 if name == "c1" else 20,
        policy="adaptive", profiling_rounds=0, tier_of={"c1": 0, "c2": 1}, interval=1, credit=6,
    )  # fmt: skip
    chosen = [cluster.play()[0] for _ in range(24)]
    for half in (chosen[:12], chosen[12:]):
        assert half.count("c1") == half.count("c2") == 6


# ---- predictions


def test_a_slower_center_than_expected_is_the_wrong_straggler():
    cluster = Cluster({"c1": 1.0, "c2": 2.0}, count=1, profiling_rounds=1)
    for _ in range(4):
        cluster.play()
    cluster.seconds["c1"] = 3.0
    for _ in range(4):
        cluster.play()
    told = [r for r in cluster.records if "error" in r]
    assert [(r["round"], r["straggler"], r["wrong"]) for r in told] == [
        (2, "c2", False), (3, "c2", False), (4, "c2", True), (5, "c2", True),
    ]  # fmt: skip
    assert [r["error"] for r in told] == pytest.approx([0.0, 0.0, 0.5, 0.5])


# ---- what cannot be true


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"op": "query", "round": 1}, r"tifl\.op: expected enter, done, judged"),
        ({"op": ENTER, "round": 1}, r"tifl: expected op, push_s, round"),
        ({"op": DONE, "round": True}, r"tifl\.round: expected 0 to"),
        ({"op": ENTER, "round": -1, "push_s": 0.0}, r"tifl\.round: expected 0 to"),
        ({"op": ENTER, "round": 1, "push_s": -1.0}, r"tifl\.push_s: expected 0 to"),
        ({"op": ENTER, "round": 1, "push_s": 1e9}, r"tifl\.push_s: expected 0 to"),
        ({"op": ENTER, "round": 2, "push_s": 0.0}, r"c1 enters round 2, c2 is not in 1"),
        ({"op": ENTER, "round": 3, "push_s": 0.0}, r"c1 enters round 3, and others are in 0"),
        ({"op": ENTER, "round": 0, "push_s": 0.0}, r"c1 is in round 1, and enters 0"),
        ({"op": DONE, "round": 2}, r"c1 is in round 1, and tells of 2"),
        ({"op": JUDGED, "round": 1, "right": 3, "of": 4}, r"c1 was not asked to judge round 1"),
        ({"op": JUDGED, "round": 1, "right": 5, "of": 4}, r"tifl\.right: .* came 5 of 4"),
        ({"op": JUDGED, "round": 1, "right": 0, "of": 0}, r"tifl\.right: .* came 0 of 0"),
    ],
)
def test_it_is_refused_and_nothing_has_changed(question, message):
    cluster = Cluster({"c1": 1.0, "c2": 2.0})
    cluster.play()
    cluster.enter("c1", 1)
    before = repr(vars(cluster.state))
    with pytest.raises(Refused, match=message):
        cluster.ask("c1", question)
    assert repr(vars(cluster.state)) == before


@pytest.mark.parametrize("first", [0, 500])
@pytest.mark.parametrize("number", [1, 499, 501, 2**31 - 1])
def test_the_very_first_question_is_about_the_round_that_the_run_begins_with(first, number):
    cluster = Cluster(dict.fromkeys(FOUR, 1.0), profiling_rounds=1, first=first)
    with pytest.raises(Refused, match=rf"tifl\.round: c1 enters round {number}, .* with {first}$"):
        cluster.enter("c1", number)
    cluster.round = first
    assert [cluster.play() for _ in range(2)] == [list(FOUR)] * 2, "nobody was held up"
    assert len(cluster.play()) == 2


def test_who_runs_ahead_is_refused_and_decides_nothing_for_the_others():
    """Neither before the profile, nor as the only one that contributes."""
    cluster = Cluster({"a": 2.0, "b": 1.0, "c": 3.0}, profiling_rounds=1)
    for name in cluster.names:
        cluster.enter(name, 0)
    cluster.now = 0.5
    cluster.ask("b", {"op": DONE, "round": 0})
    cluster.enter("b", 1)
    with pytest.raises(Refused, match="b enters round 2, a is not in 1"):
        cluster.enter("b", 2)
    assert cluster.state.policy.tiers == []
    cluster.now = 3.0
    for name in ("a", "c"):
        cluster.ask(name, {"op": DONE, "round": 0})
    for name in ("a", "c"):
        assert cluster.enter(name, 1)["contributes"]
    cluster.state.members(("a", "c"))  # it was refused
    cluster.round = 2
    assert {tuple(cluster.play()) for _ in range(20)} == {("a",), ("c",)}


def test_who_contributes_alone_may_be_ahead_but_the_others_keep_what_they_need():
    cluster = Cluster(
        {"a": 1.0, "b": 2.0}, policy="fast", profiling_rounds=0, tier_of={"a": 0, "b": 1}
    )
    cluster.enter("b", 0)
    for number in range(64):
        cluster.enter("a", number)
    with pytest.raises(Refused, match="a enters round 64, and another is in 0"):
        cluster.enter("a", 64)
    with pytest.raises(Refused, match="b contributes nothing more to round 0"):
        cluster.ask("b", {"op": DONE, "round": 0})
    assert not cluster.enter("b", 1)["contributes"]
    cluster.enter("a", 64)


def test_nobody_waits_for_one_that_died_and_is_back():
    cluster = Cluster({"a": 1.0, "b": 2.0}, profiling_rounds=1)
    cluster.play()
    cluster.kill("b")
    cluster.revive("b")
    cluster.enter("a", 1)
    cluster.enter("b", 1)


def test_an_offer_is_told_once_and_by_contributors_only():
    cluster = Cluster(
        {"c1": 1.0, "c2": 2.0}, policy="fast", profiling_rounds=0, tier_of={"c1": 0, "c2": 1}
    )
    assert cluster.play() == ["c1"]
    for name in ("c1", "c2"):
        with pytest.raises(Refused, match=f"{name} contributes nothing more to round 0"):
            cluster.ask(name, {"op": DONE, "round": 0})
