"""Who is silent or owes an answer for too long, on virtual time."""

import asyncio

from exchange_group import run_virtual

from geojax.config import TimeoutsConfig
from geojax.hips.control.failure_detector import FailureDetector

DEAD, BEAT = 5.0, 0.5


class Watched:
    """c1 and c2; c1 is heard all the time, c2 where ``heard``; who is buried is alive no more."""

    def __init__(self, heard=("c1", "c2")):
        self.loop = asyncio.get_running_loop()
        self.alive, self.buried, self.heard = ["c1", "c2"], [], heard
        self.silence = FailureDetector(
            TimeoutsConfig(dead=DEAD, heartbeat=BEAT), lambda: self.alive, self.declare_dead
        )
        for name in self.alive:
            self.silence.hear(name)
        self.silence.watch()
        self.beat()

    def declare_dead(self, names, reason):
        self.buried += [(name, reason, self.loop.time()) for name in names]
        self.alive = [name for name in self.alive if name not in names]
        return bool(self.alive) and self.loop.time() < 60

    def beat(self):
        for name in self.heard:
            self.silence.hear(name)
        if self.loop.time() < 60:
            self.loop.call_later(BEAT, self.beat)


def test_who_is_silent_is_buried():
    async def main():
        watched = Watched(heard=("c1",))
        await asyncio.sleep(50)
        assert watched.buried == [("c2", "silent for 5 s", DEAD + BEAT)]

    run_virtual(main())


def test_who_is_heard_but_owes_an_answer_is_buried_too():
    async def main():
        watched = Watched()
        await asyncio.sleep(9.75)
        watched.silence.ask(watched.alive, "report for epoch 1")
        watched.silence.answered("c1")
        await asyncio.sleep(40)
        [(name, reason, at)] = watched.buried
        assert (name, reason) == ("c2", "heard, but no report for epoch 1 within 5 s")
        assert DEAD < at - 9.75 <= DEAD + BEAT

    run_virtual(main())


def test_another_question_does_not_put_off_the_first():
    async def main():
        watched = Watched()
        for number in range(9):
            watched.silence.ask(watched.alive, f"report for epoch {number}")
            watched.silence.answered("c1")
            await asyncio.sleep(1.0)
        [(name, reason, at)] = watched.buried
        assert (name, at) == ("c2", DEAD + BEAT)
        assert "epoch 5" in reason

    run_virtual(main())
