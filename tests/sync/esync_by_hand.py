"""ESync in plain loops, to be read first; tests compare the real one with it.

:func:`steps_of_a_round` is the rule for paces that do not change, :func:`train` the whole
algorithm, and :class:`Clockwork` a cluster of a few lines that asks a real state server.
"""

import heapq
from dataclasses import dataclass, field

import numpy as np

from geojax.center.trainer import build_trainer, initial_vector
from geojax.data.dataset import load_dataset
from geojax.data.dealing import partition
from geojax.sync.algorithm import StepStatus
from geojax.sync.esync_state import QUERY, REPORT, told


def steps_of_a_round(step_s, push_s, query_s, least=1):
    """Local steps of every worker in a round that all begin at time 0 and whose paces are known.

    A worker that has taken n steps asks at n c + (n - 1) q. Its question and the straggler's report
    were under way equally long, so it trains on if from then on a step and a push would end before
    the straggler's h0 steps and push do.
    """
    delays = [least * step + push for step, push in zip(step_s, push_s, strict=True)]
    straggler = delays.index(max(delays))
    taken = []
    for worker, (step, push, query) in enumerate(zip(step_s, push_s, query_s, strict=True)):
        steps = least
        while worker != straggler:
            asks_at = steps * step + (steps - least) * query
            if asks_at + step + push > delays[straggler]:
                break
            steps += 1
        taken.append(steps)
    return taken


def train(config, names, step_s, push_s, query_s):
    """Every round: local steps, then the mean of all moves, weighted by samples.

    Returns the final vector and the steps of every round.
    """
    data = load_dataset(config.data)
    parts = partition(config.partition, data.train_y, names, config.seed)
    trainers = [
        build_trainer(
            config, features=data.train_x[parts[name]], labels=data.train_y[parts[name]],
            worker_index=index, worker_count=len(names),
        )
        for index, name in enumerate(names)
    ]  # fmt: skip
    least, agreed, rounds = config.sync.min_local_steps, initial_vector(config), []
    total = sum(len(parts[name]) for name in names)
    for number in range(config.rounds):
        aligned = steps_of_a_round(step_s, push_s, query_s, least)
        rounds.append(aligned if number else [least] * len(names))  # no step has been timed yet
        move = np.zeros(agreed.size)
        for name, trainer, steps in zip(names, trainers, rounds[-1], strict=True):
            trainer.load(agreed)
            for _ in range(steps):
                trainer.step()
            move += len(parts[name]) / total * (trainer.vector().astype(np.float64) - agreed)
        agreed = (agreed + move).astype(np.float32)
    return agreed, rounds


@dataclass
class Clockwork:
    """Workers, a barrier and a state server on one heap of instants; no network, no tasks.

    Args:
      state: the state server.
      pace: ``(worker, now) -> s`` of a step that begins now.
      push_s: time to push an offer, s.
      query_s: round trip of a question, s.
      stops: workers that stop for good at an instant: {worker: s}.
    """

    state: object
    pace: object
    names: list
    push_s: float = 0.05
    query_s: float = 0.002
    stops: dict = field(default_factory=dict)
    now: float = 0.0
    steps: list = field(default_factory=list)  # of every round: {worker: steps}
    waits: list = field(default_factory=list)  # of every round: {worker: s until all had arrived}
    busy: dict = field(default_factory=dict)

    def play(self, rounds, until=1e9):
        """Plays rounds, or up to an instant; returns itself."""
        self.state.members(self.names)
        self.busy = dict.fromkeys(self.names, 0.0)
        last, begin = dict.fromkeys(self.names, 0.0), 0.0
        for number in range(rounds):
            heap, taken, arrived = [], dict.fromkeys(self.names, 0), {}

            def at(time, name, what, heap=heap):
                if time < self.stops.get(name, 1e9):
                    heapq.heappush(heap, (time, self.names.index(name), name, what))

            for name in self.names:
                at(begin + self.query_s / 2, name, "report")
                last[name] = last[name] or 0.0
                self._step(at, name, begin, last)
            while heap and len(arrived) < len(self.names):
                self.now, _, name, what = heapq.heappop(heap)
                if self.now > until:
                    return self
                if what == "report":
                    first = number == 0
                    status = StepStatus(
                        number, 0, 0.0 if first else last[name], 0.0 if first else self.push_s
                    )
                    self.state.answer(name, told(REPORT, status), self.now)
                elif what == "asks":
                    taken[name] += 1
                    self.busy[name] += last[name]
                    status = StepStatus(number, taken[name], last[name], self.push_s)
                    answer = self.state.answer(name, told(QUERY, status), self.now)
                    heard = self.now + self.query_s / 2
                    if answer["train"]:
                        self._step(at, name, heard, last)
                    else:
                        at(heard + self.push_s, name, "arrives")
                else:
                    arrived[name] = self.now
            self.steps.append(taken)
            if len(arrived) < len(self.names):
                return self
            self.waits.append({name: self.now - time for name, time in arrived.items()})
            begin = self.now + self.push_s
        return self

    def _step(self, at, name, begin, last):
        last[name] = self.pace(name, begin)
        at(begin + last[name] + self.query_s / 2, name, "asks")

    @property
    def balance(self):
        return sum(self.busy.values()) / len(self.busy) / max(self.busy.values())
