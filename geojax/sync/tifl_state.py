"""TiFL's server: profiles centers, makes tiers of them, and says who contributes to a round.

Nothing here reads a clock or sends anything; see :mod:`geojax.sync.service`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geojax.errors import ConfigError, Refused
from geojax.sync.tifl_policy import TierPolicy, some_of

ENTER, DONE, JUDGED = "enter", "done", "judged"
_KEYS = {
    ENTER: {"op", "round", "push_s"},
    DONE: {"op", "round"},
    JUDGED: {"op", "round", "right", "of"},
}
_MOST = 2**31 - 1  # of rounds and samples
_MOST_S = 1e6
_BELIEVED = 1.1  # times what was observed here, a told duration is believed
_CLOSE = 0.05  # of a predicted time: who is later than the predicted one by more was the slowest
_KEPT = 64  # rounds: a member may be ahead of another by less


@dataclass
class Row:
    """What is known of a worker.

    Attributes:
      round: the round that it is in.
      entered: when it was told to contribute to it, or not, or had judged its parameters, s.
      done: when it had made its offer to it; None: it has not, or it abstains.
    """

    round: int
    entered: float
    done: float | None = None


@dataclass
class Decision:
    """Who contributes to a round.

    Attributes:
      tier: of them; −1: all tiers.
      centers: their names.
      judges: whether all workers tell how good the round's parameters are.
      due: workers of these centers that have lived ever since: the next round cannot begin before
        they have entered this one.
    """

    tier: int
    centers: tuple[str, ...]
    judges: bool = False
    due: frozenset[str] = frozenset()


class TiflState:
    """The server; see :func:`geojax.sync.tifl.tifl` for the rules.

    Args:
      policy: of :func:`geojax.sync.tifl_policy.probabilities`, or ``adaptive``.
      count: m.
      clients: |C|; None: the whole tier.
      seed: of the run.
      profiling_rounds: rounds that are timed; 0: ``tier_of`` says the tiers.
      timeout_s: T_max, s; None: none.
      interval: I of the adaptive policy.
      credit: rounds that each tier may get, of the adaptive policy.
      tier_of: the tier of each center where no round is timed.
      first: the round that the run begins, or goes on, with.

    Attributes:
      policy: has the tiers, and draws one for each round.
      latency: what each center took for a round when rounds were timed, s.
    """

    def __init__(
        self,
        *,
        policy: str,
        count: int,
        clients: int | None = None,
        seed: int = 0,
        profiling_rounds: int = 3,
        timeout_s: float | None = None,
        interval: int = 10,
        credit: int = 1,
        tier_of: Mapping[str, int] | None = None,
        first: int = 0,
    ):
        self.policy = TierPolicy(policy, interval=interval, credit=credit)
        self._count, self._clients, self._seed = count, clients, seed
        self._profiling, self._timeout_s = profiling_rounds, timeout_s
        self._names: tuple[str, ...] = ()
        self._rows: dict[str, Row] = {}
        self._first = first
        self._decided: dict[int, Decision] = {}
        self._took: dict[int, dict[str, float]] = {}  # round: response of each worker, s
        self._judged: dict[int, dict[str, tuple[int, int]]] = {}  # round: right, of
        self._records: list[dict[str, Any]] = []
        self.latency: dict[str, float] = {}
        if tier_of is not None:
            self.policy.part(tier_of)

    # ---- as a service

    def members(self, names: Sequence[str]) -> None:
        """See :class:`geojax.sync.service.Service`; but a center that is back keeps its tier."""
        self._names = tuple(names)
        self._rows = {name: row for name, row in self._rows.items() if name in names}
        for decision in self._decided.values():
            decision.due &= frozenset(names)

    def answer(self, sender: str, question: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Takes ENTER, which it answers with who contributes, DONE or JUDGED."""
        operation, number = _checked(question)
        row = self._rows.get(sender)
        if operation == ENTER:
            return self._enter(sender, row, number, float(question["push_s"]), now)
        if row is None or number != row.round:
            entered = "none" if row is None else row.round
            raise Refused(f"tifl: {sender} is in round {entered}, and tells of {number}")
        decision = self._decided[number]
        if operation == JUDGED:
            if not decision.judges:
                raise Refused(f"tifl: {sender} was not asked to judge round {number}")
            self._judged.setdefault(number, {})[sender] = question["right"], question["of"]
            row.entered = now  # the time that judging took is no response
        elif row.done is not None or center_of(sender) not in decision.centers:
            raise Refused(f"tifl: {sender} contributes nothing more to round {number}")
        else:
            row.done = now
        return {}

    def records(self) -> list[dict[str, Any]]:
        """The profile; of every round its tier, and how well its duration was predicted."""
        found, self._records = self._records, []
        return found

    def _enter(
        self, name: str, row: Row | None, number: int, push_s: float, now: float
    ) -> dict[str, Any]:
        if row is not None and number < row.round:
            raise Refused(f"tifl: {name} is in round {row.round}, and enters {number}")
        self._check_turn(name, number)
        if row is not None and row.done is not None:
            took = row.done - row.entered + min(push_s, _BELIEVED * (now - row.done))
            self._took.setdefault(row.round, {})[name] = took
        if number not in self._decided:
            self._decide(number)
        self._rows[name] = Row(number, now)
        decision = self._decided[number]
        return {"contributes": center_of(name) in decision.centers, "judges": decision.judges}

    def _check_turn(self, name: str, number: int) -> None:
        """Nobody enters a round before all that contribute to the last one have entered that.

        So no member decides alone, on times that others have not told yet; and who runs ahead,
        which one that contributes alone may do, never costs others a decision that they need.

        Raises:
          Refused: it is not this round's turn.
        """
        if not self._decided and number != self._first:
            raise Refused(
                f"tifl.round: {name} enters round {number}, and the run begins with {self._first}"
            )
        others = [row.round for other, row in self._rows.items() if other != name]
        if number not in self._decided and self._decided:
            last = self._decided.get(number - 1)
            if last is None:
                raise Refused(
                    f"tifl: {name} enters round {number}, and others are in "
                    f"{max(others, default=max(self._decided))}"
                )
            entered = {o for o, row in self._rows.items() if row.round >= number - 1}
            late = sorted(last.due - entered - {name})
            if late:
                raise Refused(
                    f"tifl: {name} enters round {number}, {late[0]} is not in {number - 1}"
                )
        if others and number >= min(others) + _KEPT:
            raise Refused(f"tifl: {name} enters round {number}, and another is in {min(others)}")

    # ---- the rules

    def _decide(self, number: int) -> None:
        """The first member enters a round, so all have told what they had to of the one before."""
        self._tell(number - 2)
        begin = self._first + (self._profiling + 1 if self._profiling else 0)
        living = [name for name in self._names if "/" not in name]
        if number < begin:
            self._keep(number, Decision(-1, tuple(living)))
            return
        if not self.policy.tiers:
            self._profile(begin)
        if self.policy.compares(number - 1 - begin):
            self._compare(number - 1)
        tiers = [[name for name in tier if name in living] for tier in self.policy.tiers]
        stream = np.random.default_rng([self._seed, zlib.crc32(b"tifl"), number])
        tier = self.policy.draw(stream, tiers)
        chosen = () if tier is None else some_of(stream, tiers[tier], self._clients)
        judges = self.policy.compares(number - begin)
        self._keep(number, Decision(-1 if tier is None else tier, chosen, judges))

    def _keep(self, number: int, decision: Decision) -> None:
        workers = {name for name in self._names if "/" in name} or set(self._names)
        decision.due = frozenset(w for w in workers if center_of(w) in decision.centers)
        self._decided[number] = decision
        oldest = number - 2 if self.policy.tiers else 0  # the profile needs all until it is made
        self._took = {n: took for n, took in self._took.items() if n >= oldest}
        self._judged = {n: told for n, told in self._judged.items() if n >= number - 1}
        needed = min([number, *(row.round for row in self._rows.values())]) - 1
        for old in [n for n in self._decided if n < needed]:
            del self._decided[old]

    def _profile(self, begin: int) -> None:
        """The timed rounds are over: who took how long, on average."""
        timed = [self._took.get(begin - 1 - back, {}) for back in range(self._profiling, 0, -1)]
        workers = dict.fromkeys(name for took in timed for name in took)
        for name in workers:
            total = [took.get(name, self._timeout_s) for took in timed]
            known = [each for each in total if each is not None]
            mean = sum(min(each, self._timeout_s or math.inf) for each in known) / len(known)
            center = center_of(name)
            self.latency[center] = max(mean, self.latency.get(center, 0.0))
        limit = self._timeout_s or math.inf
        answering = [center for center in self.latency if self.latency[center] < limit]
        ranked = sorted(answering, key=lambda center: self.latency[center])
        if not ranked:
            fix = "no center has answered in this time; allow more, or leave it out"
            raise ConfigError("sync.timeout_s", self._timeout_s, fix)
        count = min(self._count, len(ranked))
        self.policy.part({center: at * count // len(ranked) for at, center in enumerate(ranked)})
        self._records.append(
            {
                "round": begin, "tiers": self.policy.tiers,
                "latency": {center: round(each, 6) for center, each in self.latency.items()},
                "dropouts": [center for center in self.latency if center not in ranked],
            }
        )  # fmt: skip

    def _compare(self, number: int) -> None:
        """The parameters that round ``number`` began with: is the tier before it doing better?"""
        told = self._judged.get(number, {})
        last = self._decided.get(number - 1)
        self.policy.compare(
            [
                _share([told[name] for name in told if center_of(name) in tier])
                for tier in self.policy.tiers
            ],
            -1 if last is None else last.tier,
        )
        self._records.append({"round": number, **self.policy.record()})

    # ---- how good the predictions were

    def _tell(self, number: int) -> None:
        """All have entered the round after this one, and so told how long this one took them."""
        decision, took = self._decided.get(number), self._took.get(number, {})
        if decision is None:
            return
        record: dict[str, Any] = {
            "round": number, "tier": decision.tier, "contributors": len(decision.centers),
        }  # fmt: skip
        lasted: dict[str, float] = {}
        for name, seconds in took.items():
            center = center_of(name)
            lasted[center] = max(seconds, lasted.get(center, 0.0))
        expected = {center: self.latency[center] for center in lasted if center in self.latency}
        if decision.tier >= 0 and expected and set(expected) == set(decision.centers):
            slowest = max(expected, key=lambda center: expected[center])
            longest = max(lasted.values())
            record["straggler"] = slowest
            record["error"] = round(abs(expected[slowest] - longest) / expected[slowest], 6)
            record["wrong"] = longest - lasted[slowest] > _CLOSE * expected[slowest]
        self._records.append(record)


def center_of(worker: str) -> str:
    """The center of a worker: ``c1`` of ``c1`` and of ``c1/w0``."""
    return worker.partition("/")[0]


def _share(told: Sequence[tuple[int, int]]) -> float | None:
    total = sum(of for _, of in told)
    return sum(right for right, _ in told) / total if total else None


def _checked(question: Mapping[str, Any]) -> tuple[str, int]:
    """What a member asks, and of which round.

    Raises:
      Refused: it is not of this form, or its numbers are negative, not finite or absurdly large.
    """
    operation = question.get("op")
    if not isinstance(operation, str) or operation not in _KEYS:
        raise Refused(f"tifl.op: expected {', '.join(_KEYS)}, came {operation!r:.40}")
    if set(question) != _KEYS[operation]:
        wanted = ", ".join(sorted(_KEYS[operation]))
        raise Refused(f"tifl: expected {wanted}, came {sorted(question)!s:.100}")
    for key in _KEYS[operation] & {"round", "right", "of"}:
        value = question[key]
        if type(value) is not int or not 0 <= value <= _MOST:
            raise Refused(f"tifl.{key}: expected 0 to {_MOST}, came {value!r:.40}")
    if operation == JUDGED and not question["right"] <= question["of"] > 0:
        told = f"{question['right']} of {question['of']}"
        raise Refused(f"tifl.right: expected at most tifl.of, which is more than 0, came {told}")
    if operation == ENTER:
        seconds = question["push_s"]
        number = type(seconds) in (int, float) and math.isfinite(seconds)
        if not number or not 0 <= seconds <= _MOST_S:
            raise Refused(f"tifl.push_s: expected 0 to {_MOST_S:g} s, came {seconds!r:.40}")
    return operation, question["round"]
