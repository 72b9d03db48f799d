"""Questions to services: both ends, and both together over a network that loses and floods."""

import asyncio
import logging
from itertools import pairwise

import pytest
from exchange_group import run_virtual

from geojax.config import TimeoutsConfig
from geojax.errors import Refused, WaitTimeout
from geojax.hips.control.messages import Answer, Request
from geojax.hips.control.requests import GAP_S, MOST_WAITING, Requests, ServiceHost
from geojax.telemetry.recorder import Recorder

TIMEOUTS = TimeoutsConfig(dead=5.0, round=30.0, warn=100.0)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


class Adder:
    """Remembers every member's sum; refuses what is negative."""

    def __init__(self):
        self.sums, self.asked, self.told = {}, [], []

    def members(self, names):
        self.sums = {name: self.sums.get(name, 0) for name in names}

    def answer(self, sender, question, now):
        self.asked.append((sender, question["add"], now))
        if question["add"] < 0:
            raise Refused("add: expected at least 0")
        self.sums[sender] += question["add"]
        self.told.append({"sum": self.sums[sender]})
        return {"sum": self.sums[sender]}

    def records(self):
        told, self.told = self.told, []
        return told


class Played:
    """A host of one service, and what it said; to be made in a loop."""

    def __init__(self, *names):
        self.service, self.said, self.refused, self.events = Adder(), [], [], []
        self.host = ServiceHost(
            {"adder": self.service},
            say=lambda peer, said: self.said.append((peer, said)),
            refuse=lambda peer, kind, why: self.refused.append((peer, kind, why)),
            recorder=Recorder("host", self.events.append),
        )
        self.host.members(names, 0)

    def take(self, sender, number, add, *, wanted=True, service="adder"):
        self.host.take(sender, Request(service, number, {"add": add}, wanted))


def test_a_question_is_answered_and_what_the_service_records_is_an_event():
    async def main():
        played = Played("a", "b")
        played.take("a", 0, 3)
        played.take("b", 7, 5)
        assert played.said == [("a", Answer(0, {"sum": 3})), ("b", Answer(7, {"sum": 5}))]
        assert [(e["event"], e["sum"]) for e in played.events] == [("adder", 3), ("adder", 5)]

    run_virtual(main())


def test_what_is_told_is_not_answered():
    async def main():
        played = Played("a")
        played.take("a", 0, 3, wanted=False)
        assert (played.service.sums, played.said) == ({"a": 3}, [])

    run_virtual(main())


def test_a_repeated_request_is_answered_again_and_counts_once():
    async def main():
        played = Played("a")
        for number in (0, 0, 1, 0, 1):
            played.take("a", number, 3)
            await asyncio.sleep(1)
        answers = [said.number for _, said in played.said]
        assert (played.service.sums, answers) == ({"a": 6}, [0, 0, 1, 1])

    run_virtual(main())


@pytest.mark.parametrize(
    ("sender", "settings", "why"),
    [
        ("c", {}, "c takes no part"),
        ("a", {"service": "subtracter"}, "there is no 'subtracter' here"),
        ("a", {"add": -1}, "at least 0"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(sender, settings, why):
    async def main():
        played = Played("a", "b")
        with pytest.raises(Refused, match=why):
            played.take(sender, 0, **{"add": 1, **settings})
        assert (played.service.sums, played.said) == ({"a": 0, "b": 0}, [])

    run_virtual(main())


def test_a_flood_is_named_once_a_second_and_delays_nobody_else():
    async def main():
        played, named = Played("a", "b"), []
        for number in range(10_000):
            try:
                played.take("a", number, 1)
            except Refused as error:
                named.append(str(error))
        played.take("b", 0, 5)
        assert played.said[-1] == ("b", Answer(0, {"sum": 5})), "at once"
        assert named == [f"request: {MOST_WAITING} of a wait already"]
        await asyncio.sleep(1.0)
        assert played.service.sums["a"] == 1 + MOST_WAITING
        times = [now for sender, _, now in played.service.asked if sender == "a"]
        assert min(b - a for a, b in pairwise(times)) >= GAP_S * 0.999

    run_virtual(main())


def test_what_waits_and_turns_out_wrong_is_named_too():
    async def main():
        played = Played("a")
        played.take("a", 0, 1)
        played.take("a", 1, -1)
        played.take("a", 2, 1)
        await asyncio.sleep(1.0)
        assert [(peer, kind) for peer, kind, _ in played.refused] == [("a", "request")]
        assert played.service.sums == {"a": 2}

    run_virtual(main())


@pytest.mark.parametrize("waits", [False, True])
def test_what_was_refused_is_refused_again_and_not_asked_again(waits):
    """Else who asks in vain would wait for ever, and be in no second epoch's complaint."""

    async def main():
        played = Played("a")
        if waits:
            played.take("a", 0, 1)
            played.take("a", 1, -1)
            await asyncio.sleep(1.0)
        else:
            with pytest.raises(Refused, match="add: expected at least 0"):
                played.take("a", 1, -1)
        for _ in range(2):
            with pytest.raises(Refused, match="add: expected at least 0"):
                played.take("a", 1, -1)
        assert [add for _, add, _ in played.service.asked].count(-1) == 1
        await asyncio.sleep(1.0)
        played.take("a", 2, 5)
        assert played.service.sums["a"] == 5 + waits

    run_virtual(main())


def test_who_is_back_begins_anew_although_it_was_there_before():
    async def main():
        played = Played("a", "b")
        for name in "ab":
            played.take(name, 0, 1)
        played.host.members(("a", "b"), 1, back=("b",))
        assert played.service.sums == {"a": 1, "b": 0}

    run_virtual(main())


def test_who_is_back_may_ask_before_the_host_hears_of_it_and_what_it_asked_before_is_forgotten():
    async def main():
        played = Played("a", "b")
        played.take("b", 0, 1)
        played.host.members(("a",), 1)
        played.take("b", 1, 2)  # it was frozen, and does not know yet that it was declared dead
        played.take("b", 2 << 32, 5)
        played.take("b", (2 << 32) + 1, -1)
        assert played.service.sums == {"a": 0}
        played.host.members(("a", "b"), 2)
        played.take("b", 2, 7)
        await asyncio.sleep(1.0)
        assert played.service.sums == {"a": 0, "b": 5}
        assert [(peer, why) for peer, _, why in played.refused] == [
            ("b", "add: expected at least 0")
        ]

    run_virtual(main())


def test_who_asks_for_epochs_that_do_not_begin_is_refused():
    async def main():
        played = Played("a")
        for number in range(MOST_WAITING):
            played.take("a", (9 << 32) + number, 1)
        with pytest.raises(Refused, match="of a wait for an epoch"):
            played.take("a", 10 << 32, 1)
        with pytest.raises(Refused, match="stranger takes no part"):
            played.take("stranger", 9 << 32, 1)

    run_virtual(main())


def test_who_is_gone_is_not_served_any_more():
    async def main():
        played = Played("a", "b")
        for number in range(3):
            played.take("a", number, 1)
        played.host.members(("b",), 1)
        await asyncio.sleep(1.0)
        played.take("a", 9, 1)
        assert played.service.sums == {"b": 0}

    run_virtual(main())


# ---- the asking end


def asking(lose=0, delay=1.0):
    """Requests to a host that loses the first ``lose`` messages; what was sent, and when."""
    sent, played = [], Played("a")

    def say(asked):
        loop = asyncio.get_running_loop()
        sent.append((loop.time(), asked))
        if len(sent) > lose:
            loop.call_later(delay, deliver, asked)

    def deliver(asked):
        before = len(played.said)
        played.host.take("a", asked)
        for _, said in played.said[before:]:
            requests.take("host", said)

    requests = Requests("host", say, TIMEOUTS)
    return requests, sent, played


def test_a_member_gets_its_answer():
    async def main():
        requests, _, _ = asking()
        assert await requests.request("adder", {"add": 2}) == {"sum": 2}
        requests.tell("adder", {"add": 2})
        assert await requests.request("adder", {"add": 2}) == {"sum": 6}

    run_virtual(main())


def test_a_lost_request_is_sent_again():
    async def main():
        requests, sent, played = asking(lose=2)
        assert await requests.request("adder", {"add": 2}) == {"sum": 2}
        assert [time for time, _ in sent] == pytest.approx([0.0, 5.0, 10.0])
        assert len({asked.number for _, asked in sent}) == 1
        await asyncio.sleep(60)
        assert (len(sent), played.service.sums) == (3, {"a": 2})

    run_virtual(main())


def test_the_wait_is_bounded_and_names_host_and_service():
    async def main():
        requests, sent, _ = asking(lose=10**6)
        with pytest.raises(WaitTimeout, match="answer of service 'adder' from host"):
            await requests.request("adder", {"add": 2})
        assert asyncio.get_running_loop().time() == pytest.approx(TIMEOUTS.round)
        count = len(sent)
        await asyncio.sleep(60)
        assert len(sent) == count

    run_virtual(main())


def test_answers_of_others_and_to_nothing_are_refused_and_late_ones_forgotten():
    async def main():
        requests, _, _ = asking()
        with pytest.raises(Refused, match="nothing was asked"):
            requests.take("host", Answer(0, {}))
        asked = asyncio.ensure_future(requests.request("adder", {"add": 2}))
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="nothing was asked of c2"):
            requests.take("c2", Answer(0, {"sum": 9}))
        asked.cancel()
        await asyncio.sleep(0)
        requests.take("host", Answer(0, {"sum": 9}))
        assert await requests.request("adder", {"add": 2}) == {"sum": 4}

    run_virtual(main())


def test_who_comes_back_in_a_later_epoch_is_not_taken_for_a_repetition():
    async def main():
        requests, _, played = asking()
        for _ in range(5):
            await requests.request("adder", {"add": 1})
        again, _, _ = asking()
        again.begin(3)
        seen = []
        again._say = seen.append
        again.tell("adder", {"add": 1})
        await asyncio.sleep(1.0)
        played.host.members(("a",), 3)
        played.host.take("a", seen[0])
        assert played.service.sums == {"a": 6}

    run_virtual(main())
