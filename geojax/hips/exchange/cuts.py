"""Consistent cuts of an asynchronous run, from which it can be continued.

Nobody stands still for one. The server of chunk 0 begins a cut after every so many merges: it takes
the state of its shards and sends a *marker*. Whoever hears of a cut for the first time does the
same: it takes its own state, and sends markers to all that it pushes to or answers, before anything
later (Chandy and Lamport, *Distributed Snapshots*, ACM TOCS 1985). A center's state is that after
its last whole round, h. So every shard in the cut has taken all of its rounds up to h, and none
after h + 1: what comes later is behind the marker. Messages in flight are not kept. A center that
goes on from h makes round h + 1 again from the same parameters and the same data, so it pushes what
it pushed then; a shard that had taken it only answers (:mod:`geojax.hips.exchange.push_pull`). No
push is lost or counts twice.

A cut lies within one membership epoch, as markers do; one that a change of the membership meets is
never complete, and is not used. No cut begins while a member is dead, after a shard has moved to
another server, or while a center has not answered the last one.

**A LAN of this kind** (:mod:`geojax.hips.exchange.async_lan`) has the same cuts. Its local server
begins one of its workers as soon as it has its own state after round h of the WAN, to which
parameters that came back belong as they are mixed in. Until the answer to round h + 1 every instant
will do: if the offer to that round is made already, it is part of the state, and is made again as
it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from geojax.errors import FrameError


class Cut(NamedTuple):
    """A cut.

    Attributes:
      number: version of the first shard at which it began.
      time: experiment time then, s.
    """

    number: int
    time: float


Keep = Callable[[Cut, int | None, Mapping[str, Any]], None]
"""``keep(cut, held, state)``: keeps a member's part of a cut: what the exchange has in ``state``,
with the rest of the member's state after round ``held`` (None: it has no rounds)."""


class Cuts:
    """One member's view of the cuts of a run.

    Args:
      every: merges of the first shard between two cuts; 0: none begins in this group.
      clock: experiment time.
      centers: all of the run; of a LAN, its members.
      most: merges of the first shard that the run can have: no cut has a higher number.

    Attributes:
      keep: keeps what a cut has of this member; set by who can.
      whole: whether nobody is missing in this member's center; likewise.
      pulled: what this member had pulled when it held its last whole round.
      postponed: a cut for which this member, which comes back, has no round yet.
    """

    def __init__(
        self,
        every: int,
        *,
        clock: Callable[[], float],
        centers: Sequence[str],
        most: int,
    ):
        self._every, self._clock, self._centers = every, clock, frozenset(centers)
        self._most = most
        self.keep: Keep
        self.whole: Callable[[], bool] = lambda: True
        self.pulled: list[dict[str, Any]] = []
        self.postponed: Cut | None = None
        self._homes: tuple[str, ...] = ()
        self._others: frozenset[str] = frozenset()
        self._possible = False
        self._last = -1  # the last cut in which this member takes part
        self._begins = False  # this member begins the cuts
        self._told: set[tuple[str, int]] = set()  # who has told of which cuts in this epoch
        self._awaited: set[str] = set()  # centers that have not heard of the last cut, as it seems

    def resume(self, me: str, members: Sequence[str], homes: tuple[str, ...]) -> None:
        """An epoch begins with these members, and these servers of the chunks."""
        self._homes = self._homes or homes
        self._possible = self._centers == set(members) and self._homes == homes
        self._others, self._begins = self._centers - {me}, me == self._homes[0]
        if not self._begins:  # what was told may not have been true, and cuts begin anew
            self._last = -1
        self._told.clear()
        self._awaited.clear()
        self.postponed = None

    def due(self, version: int) -> Cut | None:
        """The cut that begins now that the first shard has this version, if one does."""
        possible = self._every and self._possible and not self._awaited and self.whole()
        if not possible or version % self._every:
            return None
        self._awaited = set(self._others)
        return Cut(version, self._clock())

    def take(self, cut: Cut) -> None:
        """This member takes its part in a cut: of this one no marker tells it anything new."""
        self._last, self.postponed = cut.number, None

    def hear(self, peer: str, number: int, time: Any) -> Cut | None:
        """The cut that a marker of ``peer`` tells of, if this member is to take part in it now.

        The server of chunk 0 begins them all. Others may tell of any number of cuts before it does:
        it waits until all have answered a cut, not until its own markers have come over a slow
        link. So in an epoch a member may be told of a cut once by each of the others, at any time
        after it began.

        Raises:
          FrameError: there is no such cut, or this peer has told of it already.
        """
        if number < 1 or type(time) not in (int, float) or not math.isfinite(time):
            raise FrameError(f"expected number and time of a cut, came {number}, {time!r:.40}")
        if self._every and number % self._every:
            raise FrameError(f"cut {number}: they begin every {self._every} merges")
        if number > self._most:
            raise FrameError(f"cut {number}: the run has at most {self._most} merges")
        if self._begins and number > self._last:
            raise FrameError(f"cut {number}: the last one that began here is {self._last}")
        if (peer, number) in self._told:
            raise FrameError(f"cut {number}: it told of this one already")
        self._told.add((peer, number))
        if number == self._last:
            self._awaited.discard(peer)
        if number <= self._last:
            return None
        self._last = number
        return Cut(number, float(time)) if self.whole() else None
