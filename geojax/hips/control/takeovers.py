"""Plans that take over rounds which are under way, at the scheduler.

All centers are told to hold back the results of rounds of which they have given out none, and say
which chunks they lack of the next one (``holding``). When all have answered, that round is one that
nobody has applied, so it may change its policy: the chunks that any center lacks run again by the
new one (``takeover``), from the offers that are kept, and the others stay. Nothing else stops:
chunks move on by the policy before until a center is told.

That holds results back for a round trip or longer, so a plan that saves less waits for the next
round that is not granted. What runs again is lost work where a chunk was nearly there, so the
round goes on as it is if that is estimated to take less time, or if it was taken over twice before:
however often the WAN changes, no chunk of it travels more than three times. Then the new policy
holds from the round after it on. While nobody has offered anything to a round, nothing is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from geojax.errors import Refused
from geojax.hips.cluster import WAN_GROUP
from geojax.hips.control.channel import ControlChannel
from geojax.hips.control.epochs import Epochs
from geojax.hips.control.fields import MOST_BITS
from geojax.hips.control.grants import Grants
from geojax.hips.control.messages import Hold, Holding, TakeOver
from geojax.hips.control.path_tables import PathTables
from geojax.hips.control.policies import Policies
from geojax.overlay.bounds.latency import shortest_delays
from geojax.overlay.policy.planning import Proposal
from geojax.overlay.view import NetworkView
from geojax.telemetry.recorder import Recorder

log = logging.getLogger("geojax.scheduler")

_MOST = 2  # times that a round is taken over


@dataclass
class _TakeOver:
    """One that is under way.

    Attributes:
      epoch: in which it began; it ends with that.
      since: when centers were asked, in the loop's time, s.
      proposal: the plan.
      present_s: estimated sync time of the policies before, s, by version.
      answers: what centers lack.
      routed: the path tables for its chunks have been told.
    """

    epoch: int
    since: float
    proposal: Proposal
    present_s: Mapping[int, float]
    answers: dict[str, Holding] = field(default_factory=dict)
    routed: bool = False


class TakeOvers:
    """Has plans take over rounds, one after the other; see the module's docstring.

    Args:
      channel: says what members are told.
      epochs: the membership.
      policies: that rounds go by.
      grants: of the members.
      tables: auxiliary paths.
      recorder: takes the events.
      hysteresis: a round goes on as it is unless this share of the rest of its time is saved.
    """

    def __init__(
        self,
        channel: ControlChannel,
        *,
        epochs: Epochs,
        policies: Policies,
        grants: Grants,
        tables: PathTables,
        recorder: Recorder,
        hysteresis: float,
    ):
        self._channel, self._epochs, self._policies = channel, epochs, policies
        self._grants = grants
        self._tables, self._recorder, self._hysteresis = tables, recorder, hysteresis
        self._present: _TakeOver | None = None
        self._last, self._times = -1, 0  # the last round that was taken over, and how often
        self._held_s: float | None = None  # the least time for which results were held back

    @property
    def pending(self) -> bool:
        """Whether centers hold back results at this moment."""
        return self._present is not None and self._present.epoch == self._epochs.number

    def pays(self, proposal: Proposal, view: NetworkView) -> bool:
        """Whether a plan saves more of a round than results are held for.

        That is the longest round trip between centers or, as the scheduler may be farther away and
        auxiliary paths take time, the least time that it has taken so far, if that is longer. With
        more chunks than messages have room for, plans always wait for the next round.
        """
        if len(self._policies.cut[0]) > MOST_BITS:
            return False
        delays = shortest_delays(view)
        trip_s = 2 * float(delays[np.isfinite(delays)].max())  # a center may be out
        return proposal.present_s[-1] - proposal.seconds > max(trip_s, self._held_s or 0.0)

    def begin(self, proposal: Proposal) -> None:
        """Asks all centers what they lack."""
        present = self._policies.present
        estimates = zip(present, proposal.present_s, strict=True)
        now, seconds = asyncio.get_running_loop().time(), {p.version: s for p, s in estimates}
        begun = self._present = _TakeOver(self._epochs.number, now, proposal, seconds)
        told = Hold(begun.epoch, proposal.policy.version)
        for name in self._centers:
            self._channel.say(name, told)
        self._epochs.detector.ask(self._centers, "answer of what it lacks")

        def routed() -> None:
            begun.routed = True
            self._check_ready(begun)

        self._tables.tell(*present, proposal.policy, then=routed)

    def on_holding(self, name: str, holding: Holding) -> None:
        """A center holds back its results."""
        present = self._present
        if present is None or holding.epoch != present.epoch or not self.pending:
            return
        if holding.version != present.proposal.policy.version or name in present.answers:
            raise Refused(f"holding: nobody asked it about policy {holding.version}")
        self._epochs.detector.answered(name)  # what it is dead for, if anything, is the answer
        self._grants.check(name, holding.begun)
        chunks = len(self._policies.cut[0])
        if any(chunk >= chunks for chunk in holding.lacks):
            raise Refused(f"holding.lacks: expected chunks below {chunks}")
        present.answers[name] = holding
        self._check_ready(present)

    @property
    def _centers(self) -> tuple[str, ...]:
        return self._epochs.roster.groups[WAN_GROUP]

    def _check_ready(self, present: _TakeOver) -> None:
        """Tells all centers how to go on, once all have answered and chunks have routes."""
        ready = present.routed and all(name in present.answers for name in self._centers)
        if not ready or not self.pending or present is not self._present:
            return
        held_s = asyncio.get_running_loop().time() - present.since
        self._held_s = held_s if self._held_s is None else min(held_s, self._held_s)
        self._present, policy = None, present.proposal.policy
        first, again = self._cut_over(present)
        self._policies.change(first, policy)
        told = TakeOver(present.epoch, first, again, {WAN_GROUP: policy})
        for name in self._centers:
            self._channel.say(name, told)
        self._policies.record(self._recorder, first, "rates", again=len(again))
        self._policies.record_loads(self._recorder)

    def _cut_over(self, present: _TakeOver) -> tuple[int, tuple[int, ...]]:
        """The first round that goes by the new policy, and its chunks that run again."""
        every = tuple(range(len(self._policies.cut[0])))
        first = 1 + max(holding.begun for holding in present.answers.values())
        lacks = [
            holding.lacks if holding.begun == first - 1 else every
            for holding in present.answers.values()
        ]
        asked_of = [holding for holding in present.answers.values() if holding.begun == first - 1]
        if not any(holding.offered for holding in asked_of):  # none of its chunks has begun
            return first, every
        again = tuple(sorted({chunk for chunks in lacks for chunk in chunks}))
        before = present.present_s[self._policies.at(first).version]
        mean = sum(map(len, lacks)) / len(lacks)
        left = len(again) * present.proposal.seconds
        times = self._times if first == self._last else 0
        if times == _MOST or left > (1 - self._hysteresis) * mean * before:
            return first + 1, every
        self._last, self._times = first, times + 1
        return first, again
