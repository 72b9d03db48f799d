"""Finds members that are silent or owe an answer for too long, or send what cannot be true."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from geojax.config import TimeoutsConfig


class FailureDetector:
    """Notes when members were heard, and looks for silent ones again and again.

    Args:
      timeouts: ``dead``: a member that is silent, or owes an answer, for so long is dead;
        ``heartbeat``: between two looks.
      alive: the members that should be heard.
      declare_dead: called with those that are dead, why, and whether that is for what they sent;
        returns whether to go on looking.
    """

    def __init__(
        self,
        timeouts: TimeoutsConfig,
        alive: Callable[[], Sequence[str]],
        declare_dead: Callable[[Sequence[str], str, bool], bool],
    ):
        self._timeouts, self._alive, self._declare_dead = timeouts, alive, declare_dead
        self._loop = asyncio.get_running_loop()
        self._heard: dict[str, float] = {}
        self._lied: dict[str, tuple[float, str]] = {}  # since when, and how
        self._refused_in: dict[str, int] = {}  # the first epoch in which others refused a message
        self._accusers: dict[str, set[str]] = {}  # who refused messages of a member
        self._asked: dict[str, float] = {}  # who owes an answer, and since when
        self._what = ""  # that answer
        self._looked = 0.0

    def begin(self, name: str) -> None:
        """A member begins, or comes back, now."""
        self.hear(name)
        self._lied.pop(name, None)
        self._refused_in.pop(name, None)
        self._accusers.pop(name, None)

    def hear(self, name: str) -> None:
        """A member was heard now."""
        self._heard[name] = self._loop.time()

    def distrust(self, name: str, reason: str) -> None:
        """A member has sent what cannot be true.

        It is broken, and some messages are sent only once: if a refused one was among them, the
        run may wait for ever. So the member is declared dead after ``dead``, as if it were silent.
        """
        self._lied.setdefault(name, (self._loop.time(), reason))

    def refused(self, accuser: str, name: str, epoch: int) -> str | None:
        """``accuser`` refused what a member sent in ``epoch``.

        Returns:
          Who is broken, if that is clear now: the member, if messages of it were refused in an
          epoch before, too; but ``accuser``, if it is the only one to accuse two members or more.
          So one member that accuses all others costs the run at most one of them.
        """
        self._accusers.setdefault(name, set()).add(accuser)
        if self._refused_in.setdefault(name, epoch) >= epoch:
            return None
        alone = [accused for accused, by in self._accusers.items() if by == {accuser}]
        return accuser if len(alone) > 1 else name

    def ask(self, names: Sequence[str], what: str) -> None:
        """These members owe an answer; for one that owes another already, its older time counts."""
        now = self._loop.time()
        self._asked, self._what = {name: self._asked.get(name, now) for name in names}, what

    def answered(self, name: str) -> None:
        """A member has given its answer."""
        self._asked.pop(name, None)

    def watch(self) -> None:
        """Begins to look."""
        self._looked = self._loop.time()
        self._look()

    def _look(self) -> None:
        now, timeouts = self._loop.time(), self._timeouts
        if now - self._looked > 2 * timeouts.heartbeat:  # this process stood still itself:
            self._heard = dict.fromkeys(self._heard, now)  # what was said is yet to be read
            self._asked = dict.fromkeys(self._asked, now)
        self._looked = now
        limit = now - timeouts.dead
        silent = tuple(name for name in self._alive() if self._heard[name] < limit)
        if not self._declare_dead(silent, f"silent for {timeouts.dead:g} s", False):
            return
        lying = [n for n in self._alive() if n in self._lied and self._lied[n][0] < limit]
        said = "; ".join(self._lied[name][1] for name in lying)
        if not self._declare_dead(lying, f"sent what cannot be true: {said}", True):
            return
        owing = tuple(n for n in self._alive() if self._asked.get(n, now) < limit)
        unanswered = f"heard, but no {self._what} within {timeouts.dead:g} s"
        if self._declare_dead(owing, unanswered, False):
            self._loop.call_later(timeouts.heartbeat, self._look)
