"""Who is silent or owes an answer for too long, on virtual time."""

import asyncio

from exchange_group import run_virtual

from geojax.config import TimeoutsConfig
from geojax.hips.control.failure_detector import FailureDetector

DEAD, BEAT = 5.0, 0.5


class Watched:
    """c1 and c2; those in ``heard`` are heard all the time; the dead are alive no more."""

    def __init__(self, heard=("c1", "c2")):
        self.loop = asyncio.get_running_loop()
        self.alive, self.dead, self.heard = ["c1", "c2"], [], heard
        self.broken = []
        self.detector = FailureDetector(
            TimeoutsConfig(dead=DEAD, heartbeat=BEAT), lambda: self.alive, self.declare_dead
        )
        for name in self.alive:
            self.detector.hear(name)
        self.detector.watch()
        self.beat()

    def declare_dead(self, names, reason, broken):
        self.broken += names if broken else []
        self.dead += [(name, reason, self.loop.time()) for name in names]
        self.alive = [name for name in self.alive if name not in names]
        return bool(self.alive) and self.loop.time() < 60

    def beat(self):
        for name in self.heard:
            self.detector.hear(name)
        if self.loop.time() < 60:
            self.loop.call_later(BEAT, self.beat)


def test_who_is_silent_is_declared_dead():
    async def main():
        watched = Watched(heard=("c1",))
        await asyncio.sleep(50)
        assert watched.dead == [("c2", "silent for 5 s", DEAD + BEAT)]
        assert not watched.broken

    run_virtual(main())


def test_who_is_heard_but_owes_an_answer_is_declared_dead_too():
    async def main():
        watched = Watched()
        await asyncio.sleep(9.75)
        watched.detector.ask(watched.alive, "report for epoch 1")
        watched.detector.answered("c1")
        await asyncio.sleep(40)
        [(name, reason, at)] = watched.dead
        assert (name, reason) == ("c2", "heard, but no report for epoch 1 within 5 s")
        assert DEAD < at - 9.75 <= DEAD + BEAT

    run_virtual(main())


def test_another_question_does_not_put_off_the_first():
    async def main():
        watched = Watched()
        for number in range(9):
            watched.detector.ask(watched.alive, f"report for epoch {number}")
            watched.detector.answered("c1")
            await asyncio.sleep(1.0)
        [(name, reason, at)] = watched.dead
        assert (name, at) == ("c2", DEAD + BEAT)
        assert "epoch 5" in reason

    run_virtual(main())


def test_who_sends_what_cannot_be_true_is_declared_dead_unless_it_begins_anew():
    async def main():
        watched = Watched()
        await asyncio.sleep(9.75)
        watched.detector.distrust("c1", "a first lie")
        watched.detector.distrust("c2", "round 9")
        await asyncio.sleep(1.0)
        watched.detector.distrust("c2", "round 10")
        watched.detector.begin("c1")
        await asyncio.sleep(30)
        [(name, reason, at)] = watched.dead
        assert (name, reason) == ("c2", "sent what cannot be true: round 9")
        assert watched.broken == ["c2"]
        assert DEAD < at - 9.75 <= DEAD + BEAT

    run_virtual(main())


def test_who_is_refused_in_a_second_epoch_is_broken():
    async def main():
        detector = Watched().detector
        assert detector.refused("c1", "c2", 3) is None
        assert detector.refused("c1", "c2", 3) is None, "the same epoch"
        assert detector.refused("c1", "c2", 4) == "c2"

    run_virtual(main())


def test_who_alone_accuses_several_is_broken():
    async def main():
        detector = Watched().detector
        for accused in ("c1", "c2", "c4"):
            assert detector.refused("c3", accused, 3) is None
        assert detector.refused("c3", "c1", 4) == "c3"
        assert detector.refused("c4", "c2", 4) == "c2", "not c3 alone"
        detector.begin("c1")
        detector.begin("c2")
        assert detector.refused("c3", "c1", 5) is None, "it has begun anew"

    run_virtual(main())


def test_one_after_the_other_costs_one():
    async def main():
        detector = Watched().detector
        assert detector.refused("c3", "c1", 1) is None
        assert detector.refused("c3", "c1", 2) == "c1"
        assert detector.refused("c3", "c2", 2) is None
        assert detector.refused("c3", "c2", 3) == "c3"

    run_virtual(main())
