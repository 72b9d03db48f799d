"""How many local steps a round has, decided while it runs: the worker's side, without a network."""

import asyncio

import pytest
from exchange_group import run_virtual

from geojax.hips.roles.local_steps import LocalSteps
from geojax.sync.algorithm import InRound, LocalStepPolicy
from geojax.sync.parts import delta_offer, fixed_steps
from geojax.telemetry.recorder import Recorder


class Clock:
    def __call__(self):
        return asyncio.get_running_loop().time()


class Asks:
    """A service that lets ``steps`` steps pass and needs ``seconds`` for an answer."""

    def __init__(self, steps, seconds=0.0):
        self.steps, self.seconds = steps, seconds
        self.told, self.asked = [], []

    async def request(self, service, question):
        self.asked.append((service, question["taken"]))
        await asyncio.sleep(self.seconds)
        return {"more": question["taken"] < self.steps}

    def tell(self, service, question):
        self.told.append((service, question))


def policy(**options):
    rule = InRound(
        "aligner",
        entered=lambda status: {"entered": status.round, "step_s": status.step_s},
        asked=lambda status: status._asdict(),
        due=lambda answer: answer["more"],
        ended=lambda status: {"ended": status.taken},
        **options,
    )
    return LocalStepPolicy("asked", lambda _: rule.least, rule)


def local_steps(chosen, asks, events=None):
    recorder = Recorder("w", [].append if events is None else events.append, clock=Clock())
    return LocalSteps(chosen, asks=asks, push_s=lambda: 0.25, clock=Clock(), recorder=recorder)


async def a_round(steps, number=0, step_s=1.0):
    """One round with steps of ``step_s`` s; returns how many counted."""
    more, due = steps.begin(number), True
    while due:
        await asyncio.sleep(step_s)
        steps.stepped(step_s)
        due = await more(steps._taken)
    steps.end()
    return steps._taken


def test_fixed_steps_ask_nobody_and_record_nothing():
    async def main():
        asks, events = Asks(9), []
        steps = local_steps(fixed_steps(3), asks, events)
        more = steps.begin(0)
        assert [await more(taken) for taken in (1, 2, 3)] == [True, True, False]
        steps.end()
        assert (asks.asked, asks.told, events, steps.decided) == ([], [], [], False)

    run_virtual(main())


@pytest.mark.parametrize(("least", "most", "expected"), [(1, None, 5), (1, 3, 3), (7, None, 7)])
def test_the_service_decides_between_least_and_most(least, most, expected):
    async def main():
        asks, events = Asks(5), []
        steps = local_steps(policy(least=least, most=most), asks, events)
        assert await a_round(steps) == expected
        assert [taken for _, taken in asks.asked] == [*range(least, min(expected, most or 9) + 1)][
            : None if most is None else -1
        ]
        assert asks.told[0] == ("aligner", {"entered": 0, "step_s": 0.0})
        assert asks.told[1:] == ([("aligner", {"ended": 3})] if most else [])
        assert [(e["round"], e["steps"]) for e in events] == [(0, expected)]

    run_virtual(main())


def test_who_has_nobody_to_align_with_takes_the_least():
    async def main():
        assert await a_round(local_steps(policy(least=2), None)) == 2

    run_virtual(main())


def test_waiting_for_answers_is_a_query_and_takes_its_time():
    async def main():
        steps = local_steps(policy(), Asks(3, seconds=0.5))
        assert await a_round(steps) == 3
        assert Clock()() == pytest.approx(3 * 1.5)
        assert steps._recorder.totals["query_s"] == pytest.approx(1.5)
        assert steps._recorder.totals["queries"] == 3

    run_virtual(main())


def test_in_flight_answers_cost_nothing_until_one_ends_the_round_within_a_step():
    async def main():
        steps = local_steps(policy(in_flight=True), Asks(3, seconds=0.4))
        more, start = steps.begin(0), Clock()()
        for taken in (1, 2, 3):
            await asyncio.sleep(1.0)
            steps.stepped(1.0)
            assert await more(taken)
            assert not steps.given_up.done()
        await steps.given_up  # in the fourth step
        assert Clock()() - start == pytest.approx(3.4)
        steps.stepped(0.4, whole=False)
        assert not await more(4)
        assert steps._taken == 3
        assert "query_s" not in steps._recorder.totals

    run_virtual(main())


def test_an_answer_later_than_a_step_lets_the_steps_before_it_count():
    async def main():
        asks = Asks(1, seconds=2.5)
        steps = local_steps(policy(in_flight=True), asks)
        more = steps.begin(0)
        for taken in (1, 2, 3):  # the answer to the first step comes in the fourth
            await asyncio.sleep(1.0)
            steps.stepped(1.0)
            assert await more(taken)
        await steps.given_up
        steps.stepped(0.5, whole=False)
        assert not await more(4)
        assert steps._taken == 3
        assert asks.asked == [("aligner", 1)], "one question at a time"

    run_virtual(main())


def test_an_error_of_a_question_in_flight_ends_the_round_with_it():
    class Dead(Asks):
        async def request(self, service, question):
            raise RuntimeError("no answer")

    async def main():
        steps = local_steps(policy(in_flight=True), Dead(3))
        more = steps.begin(0)
        steps.stepped(1.0)
        assert await more(1)
        await steps.given_up
        with pytest.raises(RuntimeError, match="no answer"):
            await more(2)

    run_virtual(main())


def test_what_the_next_question_depends_on_is_state():
    async def main():
        one, asks = local_steps(policy(), Asks(1)), Asks(1)
        await a_round(one, step_s=2.0)
        other = local_steps(policy(), asks)
        other.load_state(one.state_dict())
        assert one.state_dict() == other.state_dict() == {"step_s": 2.0, "push_s": 0.25}
        other.begin(1)
        assert asks.told == [("aligner", {"entered": 1, "step_s": 2.0})]

    run_virtual(main())


def test_a_delta_takes_as_many_steps_as_the_answers_say():
    class Trainer:
        taken = 0

        def step(self):
            self.taken += 1

        def vector(self):
            import numpy as np

            return np.full(2, self.taken, np.float32)

    async def main():
        steps, trainer = local_steps(policy(), Asks(4, seconds=0.1)), Trainer()

        async def step(work):
            await asyncio.sleep(1.0)
            steps.stepped(1.0)
            return work()

        base = trainer.vector()
        offered = await delta_offer().collect(trainer, base, 2, steps.begin(0), step)
        assert offered.tolist() == [4.0, 4.0]

    run_virtual(main())
