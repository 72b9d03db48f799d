"""ESync's state server: a table of what members told, and the rule by which they arrive together.

All instants are those at which the server handles a message, so no clock is synchronized: the delay
of a message shifts a member's row as much as it shifts its decisions (reconstructed; the papers
mix the workers' time stamps with the server's clock).

Nothing here reads a clock or sends anything; see :mod:`geojax.sync.service`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geojax.errors import Refused
from geojax.sync.algorithm import StepStatus

MOST_S = 1e6  # of a step or a push: nobody takes longer than eleven days
_MOST = 2**31 - 1  # of rounds and steps
_BELIEVED = 1.1  # times what was observed here, a told duration is believed
_EVICT_STEPS = 3.0  # times its delay, a member may be silent
_CLOSE = 0.05  # of the straggler's delay: who is later than it by more was the real one

REPORT, QUERY, DONE = "report", "query", "done"
KEYS = {"op", "round", "taken", "step_s", "push_s"}


@dataclass
class Row:
    """What is known of a member: S[k] of the journal, without its rank.

    Attributes:
      round: r_k, the round that it is in.
      taken: i_k, local steps in it when it told last.
      step_s: c_k, duration of its last local step, s; None: none is known.
      push_s: m_k, time for which its last offer was being sent, s.
      stamp: t_k, when it entered the round or ended its last step, by the server's clock.
      heard: when it was heard last.
      sync: a_k: it was told to exchange, and has not entered another round since.
      seen: whether ``step_s`` was compared with what was observed here.
      pushed: whether ``push_s`` was.
    """

    round: int
    taken: int = 0
    step_s: float | None = None
    push_s: float = 0.0
    stamp: float = 0.0
    heard: float = 0.0
    sync: bool = False
    seen: bool = False
    pushed: bool = False


class EsyncState:
    """The state server; see :func:`geojax.sync.esync.esync` for the rules.

    Args:
      variant: ``journal`` or ``preprint``.
      least: h0, local steps of the straggler in a round.
      guard_s: a member that would arrive by so much too late does not train; also ε of the
        preprint.
      evict_after_s: a member that is silent for so long, and for three times what was observed of
        its delay, is left out of the search for the straggler until it is heard again.
      lan_rounds: rounds of the table in a round of the WAN, which some may leave out.
    """

    def __init__(
        self,
        *,
        variant: str = "journal",
        least: int = 1,
        guard_s: float = 0.0,
        evict_after_s: float = 10.0,
        lan_rounds: int = 1,
    ):
        self._pushes = variant == "journal"  # whether a delay has the time of the push in it
        self._least, self._guard_s, self._evict_after_s = least, guard_s, evict_after_s
        self._lan_rounds = lan_rounds
        self._names: tuple[str, ...] = ()
        self.rows: dict[str, Row] = {}
        self._predicted: dict[int, tuple[str, float, float]] = {}  # round: straggler, t̂_s, d_s
        self._synced: dict[int, dict[str, float]] = {}  # round: when members were told SYNC
        self._arrived: dict[int, dict[str, float]] = {}  # round: when their offers were sent
        self._records: list[dict[str, Any]] = []

    # ---- as a service

    def members(self, names: Sequence[str]) -> None:
        """See :class:`geojax.sync.service.Service`: rows of members that are gone are forgotten."""
        self._names = tuple(names)
        self.rows = {name: self.rows[name] for name in names if name in self.rows}
        self._close_rounds()

    def answer(self, sender: str, question: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Takes REPORT, QUERY or DONE; the answer says whether one more local step is due."""
        operation, told = read_status(question)
        row = self.rows.get(sender)
        if operation == REPORT:
            self._enter(sender, row, told, now)
            return {}
        if row is None or told.round != row.round:
            entered = "none" if row is None else row.round
            raise Refused(f"esync: {sender} is in round {entered}, and asks for {told.round}")
        if told.taken <= row.taken:
            raise Refused(f"esync: {sender} had taken {row.taken} steps, and tells {told.taken}")
        if row.sync and operation == DONE:
            return {"train": False}  # its last step had begun before it was told so
        if row.sync:
            raise Refused(f"esync: {sender} was told to exchange in round {row.round}")
        row.step_s = min(told.step_s, _BELIEVED * (now - row.stamp))
        row.taken, row.seen, row.stamp, row.heard = told.taken, True, now, now
        row.sync = operation == DONE or not self._trains(sender, row, now)
        if row.sync:
            self._synced.setdefault(row.round, {})[sender] = now
        return {"train": not row.sync}

    def records(self) -> list[dict[str, Any]]:
        """Of every round that all members have left: who was expected to be last, and who was."""
        found, self._records = self._records, []
        return found

    # ---- the rule

    def delay(self, row: Row) -> float:
        """d_k: from the beginning of a round to the arrival of the least offer, s.

        With one step that is c_k + m_k in the journal (equation 1) and c_k in the preprint.
        """
        assert row.step_s is not None
        return self._least * row.step_s + (row.push_s if self._pushes else 0.0)

    def straggler(self, now: float, number: int) -> str | None:
        """The s = argmax d_k (equation 1) of the heard members; of equal ones the first.

        Who asks is in round ``number``. A member that says it is further ahead than the next one
        counts for nobody: nobody waits for it, or exchanges because of it.
        """
        known = [name for name in self._names if name in self.rows]
        live = [name for name in known if self._is_live(self.rows[name], now, number)]
        return max(live, key=lambda name: self.delay(self.rows[name]), default=None)

    def _is_live(self, row: Row, now: float, number: int) -> bool:
        if row.step_s is None or row.round > number + self._lan_rounds:
            return False
        delay = self.delay(row) if row.pushed else self._least * row.step_s
        observed = _EVICT_STEPS * delay if row.seen else 0.0
        return now - row.heard <= max(self._evict_after_s, observed)

    def _trains(self, name: str, row: Row, now: float) -> bool:
        """QUERY: whether the member takes one more local step (Algorithm 1)."""
        assert row.step_s is not None
        slowest = self.straggler(now, row.round)
        last = self.rows[slowest] if slowest is not None else row
        if row.taken < self._least or row.round > last.round:
            return True  # it has just entered, or the straggler has not: its row is an old one
        done = last.sync or (self._pushes and last.taken == self._least)  # i_s = 1 in Algorithm 1
        if name == slowest or done or row.round < last.round:
            return False
        reaches = last.stamp + self._left(last)  # t̂_s, equation 2
        self._predicted.setdefault(row.round, (str(slowest), reaches, self.delay(last)))
        return now + self._left(row) + self._guard_s <= reaches  # equation 3

    def _left(self, row: Row) -> float:
        """From a row's time stamp until the arrival of an offer that its next step ends, s.

        One that has told no step in this round has all of the least ones before it.
        """
        assert row.step_s is not None
        if row.taken < self._least:
            return self.delay(row)
        return row.step_s + (row.push_s if self._pushes else 0.0)

    def _enter(self, name: str, row: Row | None, told: StepStatus, now: float) -> None:
        """REPORT: the member enters a round, once, and not before others have entered the last one.

        So no report keeps a member the straggler, or has others wait, for longer than its silence
        would. That it trains from now on is reconstructed: without it the straggler of the round
        before would count as done in this one.
        """
        if row is not None and told.round <= row.round:
            raise Refused(f"esync: {name} is in round {row.round}, and enters {told.round}")
        others = [each.round for other, each in self.rows.items() if other != name]
        if others and told.round > max(others) + self._lan_rounds:
            raise Refused(f"esync: {name} enters round {told.round}, others are in {max(others)}")
        if row is None:
            known = told.step_s if told.step_s > 0 else None
            row = self.rows[name] = Row(told.round, step_s=known, push_s=told.push_s)
        else:
            synced = self._synced.get(row.round, {}).get(name)
            if synced is not None:
                row.push_s = min(told.push_s, _BELIEVED * (now - synced))
                row.pushed = True
                self._arrived.setdefault(row.round, {})[name] = synced + row.push_s
        row.round, row.taken, row.sync = told.round, 0, False
        row.stamp = row.heard = now
        self._close_rounds()

    # ---- how good the predictions were

    def _close_rounds(self) -> None:
        """Compares predictions and arrivals in rounds that all rows have left."""
        open_from = min((row.round for row in self.rows.values()), default=0)
        for number in sorted(n for n in self._synced if n < open_from):
            del self._synced[number]
            arrived, predicted = self._arrived.pop(number, {}), self._predicted.pop(number, None)
            if predicted is None or predicted[0] not in arrived:
                continue
            name, reaches, delay = predicted
            late = max(arrived.values()) - arrived[name]
            self._records.append(
                {
                    "round": number // self._lan_rounds,
                    "straggler": name,
                    "error": round(abs(reaches - arrived[name]) / delay, 6) if delay else 0.0,
                    "wrong": late > _CLOSE * delay,
                }
            )


def read_status(question: Mapping[str, Any]) -> tuple[str, StepStatus]:
    """What a member tells, checked.

    Raises:
      Refused: it is not of this form, or its numbers are negative, not finite or absurdly large.
    """
    if set(question) != KEYS:
        raise Refused(f"esync: expected {', '.join(sorted(KEYS))}, came {sorted(question)!s:.100}")
    operation = question["op"]
    if operation not in (REPORT, QUERY, DONE):
        raise Refused(f"esync.op: expected {REPORT}, {QUERY} or {DONE}, came {operation!r:.40}")
    least = 0 if operation == REPORT else 1
    for key, lowest, most in (("round", 0, _MOST), ("taken", least, _MOST)):
        value = question[key]
        if type(value) is not int or not lowest <= value <= most:
            raise Refused(f"esync.{key}: expected {lowest} to {most}, came {value!r:.40}")
    for key in ("step_s", "push_s"):
        value = question[key]
        number = type(value) in (int, float) and math.isfinite(value)
        if not number or not 0 <= value <= MOST_S:
            raise Refused(f"esync.{key}: expected 0 to {MOST_S:g} s, came {value!r:.40}")
    if operation == REPORT and question["taken"]:
        raise Refused("esync.taken: expected 0 of who enters a round")
    return operation, StepStatus(
        question["round"], question["taken"], float(question["step_s"]), float(question["push_s"])
    )


def told(operation: str, status: StepStatus) -> dict[str, Any]:
    """The inverse of :func:`read_status`."""
    return {"op": operation, **status._asdict()}
