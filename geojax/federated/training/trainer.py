"""A worker whose clients train: one step is the round of all clients that take part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from geojax.center.keys import worker_key
from geojax.center.optimizers import OPTIMIZERS, build_optimizer
from geojax.center.planned import Planned
from geojax.center.shared import shared
from geojax.config import OptimizerConfig, RunConfig, SyncConfig
from geojax.devices.links import InternalLinks
from geojax.errors import Diverged
from geojax.federated.clients import AS_THEY_ARE, Clients, Usual
from geojax.federated.training.execution import (
    Ended,
    Execute,
    Job,
    build_execution,
    execution_of,
)  # fmt: skip
from geojax.federated.training.model import Model
from geojax.federated.training.steps import ClientSteps, Data
from geojax.models.registry import model_info
from geojax.sync.client import NEAREST, Candidate, ClientRule, Given, Sent, Trained


class Programs(NamedTuple):
    """What the workers of a process share: compiled for one algorithm, model and optimizer."""

    model: Model
    execute: Execute
    right: Any  # (trained, state, data, positions) -> samples classified right


class Waiting(NamedTuple):
    """Clients' models between the two exchanges of a round; see :attr:`ClientRule.mix`."""

    clients: np.ndarray  # int64 (L,)
    trained: np.ndarray  # float32 (L, n)
    state: np.ndarray  # float32 (L, s)
    accuracy: np.ndarray  # float64 (L,), NaN where it is not asked for
    before: np.ndarray  # float32 (n,): w_t, which they began with


class FederatedTrainer:
    """See :class:`geojax.center.trainer.Trainer`.

    ``step`` trains the clients that take part from the loaded vector, which stays; ``offer`` is
    then the mean of what they send, weighted by p_k, and ``weight`` the sum of their weights, in
    units of ``usual``.
    Under an algorithm of two exchanges every other step trains nobody: it weighs the models of the
    step before. Clients compute at the same time, each at the worker's pace.

    Float model state (BatchNorm) is averaged with the same weights. Integer leaves begin every
    round at their initial values and are not kept.

    What clients keep (control variates, last models) is one row per client of an array (K, n), made
    at the start: K models of memory. A center that comes back after its death has lost it, and its
    clients begin anew.

    Args:
      programs: what is compiled.
      rule: the algorithm.
      clients: who they are, and their batches.
      data: the samples that their positions index, on each device.
      vector: to start from, float32 (spec.size,).
      lr: of the clients' optimizer.
      momentum: of the clients' optimizer.
      links: of the clients to the worker; None: the worker is its only client.
      usual: what all workers have on average; the same at all of them.
    """

    def __init__(
        self,
        programs: Programs,
        rule: ClientRule,
        clients: Clients,
        data: Sequence[Data],
        vector: np.ndarray,
        *,
        lr: float,
        momentum: float = 0.0,
        links: InternalLinks | None = None,
        usual: Usual = AS_THEY_ARE,
    ):
        self.spec = programs.model.spec
        self.samples_per_step = clients.batch_size
        self.steps, self.last_loss, self.weight = 0, math.nan, 1.0
        self._programs, self._model, self._rule = programs, programs.model, rule
        self.clients, self._data, self._links = clients, data, links
        self._lr, self._momentum, self._usual = lr, momentum, usual
        self._key = worker_key(clients.seed, clients.worker_index)
        shape = len(clients), self._model.trained
        self._kept = {name: np.zeros(shape, np.float32) for name in rule.keeps}
        self._seen = np.zeros(len(clients), bool)  # has taken part before
        self._waiting: Waiting | None = None
        self._offer: np.ndarray | None = None
        self.load(vector)

    # ---- the vector

    def load(self, vector: np.ndarray) -> None:
        """Sets what the next round begins with."""
        self._vector = np.array(self.spec.check(vector, "load"))
        start, state, rest = self._model.cut(self._vector)
        self._given = Given(start, state, rest, {})

    def load_part(self, start: int, stop: int, values: np.ndarray) -> None:
        """Sets the whole layers in [start, stop)."""
        self._vector[start:stop] = self.spec.part(start, stop).check(values, "load_part")
        self.load(self._vector)

    def vector(self) -> np.ndarray:
        """A fresh copy of what was loaded; :meth:`step` does not move it."""
        return self._vector.copy()

    def offer(self) -> np.ndarray:
        """What the last step's clients send: mean Δ (P,), then means of state and extras."""
        if self._offer is None:
            raise RuntimeError("nothing to offer before a step")
        return self._offer.copy()

    # ---- rounds

    def step(self) -> None:
        """The round of the clients that take part, or the second exchange of it."""
        number, second = divmod(self.steps, self._rule.exchanges)
        if second:
            self._mix()
        else:
            self._train(number, self.clients.choose(number))
        self.steps += 1

    def expect(self, steps: int) -> int:
        """A step is a round of all clients already."""
        del steps
        return 1

    def planned(self) -> Planned:
        """The longest client's steps, and the transfers of a model each way."""
        number, second = divmod(self.steps, self._rule.exchanges)
        if second:
            return Planned(0.0, 0.0, 0, 0)
        chosen = self.clients.choose(number)
        batches = max(self.clients.steps(int(client)) for client in chosen)
        samples = self.clients.epochs * int(self.clients.sizes[chosen].sum())
        if self._links is None:
            return Planned(float(batches), 0.0, 0, samples)
        size = self.spec.size
        return Planned(
            float(batches), self._links.seconds(size), self._links.step_bytes(size, len(chosen)),
            samples,
        )  # fmt: skip

    def skip_to(self, steps: int) -> None:
        """Goes on with step ``steps``; in a second exchange whose first it missed, with nothing."""
        self.steps, self._waiting = steps, None

    def _train(self, number: int, chosen: np.ndarray) -> None:
        jobs = [self._job(int(client), number) for client in chosen]
        weights = np.ones(len(chosen))
        if self._rule.weights == "samples":
            weights = self.clients.sizes[chosen] / self._usual.samples
        self.weight = float(weights.sum()) / self._usual.clients
        mean, losses, models = _Mean(self._model), [], []
        ended = self._programs.execute(self._given, self._data, jobs, self.clients.most_steps)
        for client, job, share, end in zip(
            chosen, jobs, weights / weights.sum(), ended, strict=True
        ):
            self._check(int(client), end)
            sent = self._rule.finish(self._trained(int(client), job, end, len(chosen)))
            mean.add(np.float32(share), sent, end.state)
            for name, values in sent.kept.items():
                self._kept[name][client] = values
            losses.append(share * end.loss / len(job.batches))
            if self._rule.mix is not None:
                models.append((end.trained, end.state, self._accuracy(job, end)))
        self._seen[chosen] = True
        self.last_loss, self._offer = float(np.sum(losses)), mean.vector(self._given.start)
        if models:
            trained, state, accuracy = zip(*models, strict=True)
            stacked = np.stack(trained), np.stack(state), np.array(accuracy)
            self._waiting = Waiting(np.array(chosen), *stacked, self._given.start.copy())

    def _job(self, client: int, number: int) -> Job:
        kept = {name: rows[client] for name, rows in self._kept.items()}
        for name, start in self._rule.keeps.items():
            if start == "start" and not self._seen[client]:
                kept[name] = self._given.start
        draw = np.array([*self._key, client, number], np.uint32)
        return Job(kept, draw, self.clients.batches(client, number))

    def _trained(self, client: int, job: Job, end: Ended, chosen: int) -> Trained:
        return Trained(
            self._given._replace(kept=job.kept), end.trained, len(job.batches),
            int(self.clients.sizes[client]), self._lr, self._momentum, len(self.clients) / chosen,
        )  # fmt: skip

    def _check(self, client: int, end: Ended) -> None:
        if not (math.isfinite(end.loss) and np.isfinite(end.trained).all()):
            raise Diverged(
                f"client {client} of worker {self.clients.worker_index}, step {self.steps}: its "
                "loss or its model is not finite; lower lr, or set optimizer.clip_norm",
                [],
            )

    # ---- the second exchange of a round

    def _accuracy(self, job: Job, end: Ended) -> float:
        if not self._rule.accuracy:
            return math.nan
        batches = job.batches[: len(job.batches) // self.clients.epochs]
        trained, state = jax.device_put((end.trained, end.state))
        right = [self._programs.right(trained, state, self._data[0], each) for each in batches]
        return float(sum(map(float, right)) / (batches >= 0).sum())

    def _mix(self) -> None:
        """The clients' models, weighted by what the rule says of their distance from the mean."""
        start, waiting = self._given.start, self._waiting
        mean, mix = _Mean(self._model), self._rule.mix
        if waiting is None or mix is None:  # it has come back in the middle of a round
            self.weight = 0.0
            mean.add(np.float32(1), Sent(np.zeros_like(start)), self._given.state)
            self._offer = mean.vector(start)
            return
        classes = self._model.network.inputs.target.classes
        weights = np.array([
            mix(Candidate(
                float(np.abs(start - trained, dtype=np.float64).sum()),
                float(self.clients.sizes[client] / self._usual.samples), float(accuracy), classes,
            ))
            for client, trained, accuracy in zip(
                waiting.clients, waiting.trained, waiting.accuracy, strict=True
            )
        ])  # fmt: skip
        # Every center knows ‖w̄ − w_t‖₁, which makes numbers near one of the reciprocal distances.
        moved = float(np.abs(start - waiting.before, dtype=np.float64).sum()) + NEAREST
        self.weight = float(weights.sum()) * moved / self._usual.clients
        for share, trained, state in zip(
            weights / weights.sum(), waiting.trained, waiting.state, strict=True
        ):
            mean.add(np.float32(share), Sent(trained - start), state)
        self._offer, self._waiting = mean.vector(start), None

    # ---- compiling, checkpoints

    def warm_up(self, *, gradient: bool = True, step: bool = True) -> None:
        """Compiles what will be called, on one batch of each client of the first round."""
        del gradient
        if not step:
            return
        chosen = self.clients.choose(0)
        jobs = [self._job(int(client), 0) for client in chosen]
        jobs = [job._replace(batches=job.batches[:1]) for job in jobs]
        most = self.clients.most_steps
        for job, end in zip(
            jobs, self._programs.execute(self._given, self._data, jobs, most), strict=True
        ):
            self._accuracy(
                job._replace(batches=np.repeat(job.batches, self.clients.epochs, 0)), end
            )
            break

    def state_dict(self) -> dict[str, Any]:
        """Steps, what clients keep, and models that wait for the second exchange."""
        state: dict[str, Any] = {
            "steps": self.steps,
            "seen": self._seen.copy(),
            "kept": {name: rows.copy() for name, rows in self._kept.items()},
        }
        if self._waiting is not None:
            state["waiting"] = self._waiting._asdict()
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict`.

        Raises:
          ValueError: it comes from another algorithm, model or number of clients.
        """
        kept = state["kept"]
        shapes = {name: rows.shape for name, rows in self._kept.items()}
        found = {name: np.asarray(rows).shape for name, rows in kept.items()}
        if shapes != found or np.shape(state["seen"]) != self._seen.shape:
            raise ValueError(f"what clients keep: expected arrays of {shapes}, got {found}")
        self._kept = {name: np.array(rows, np.float32) for name, rows in kept.items()}
        self._seen = np.array(state["seen"], bool)
        waiting = state.get("waiting")
        self._waiting = None if waiting is None else Waiting(**waiting)
        self.steps = int(state["steps"])

    # ---- what only other algorithms ask of a trainer

    def gradient(self) -> np.ndarray:
        """Refused: clients offer models."""
        raise RuntimeError("a federated algorithm offers no gradients")

    def forward(self, index: int) -> None:
        """Refused, as :meth:`gradient`."""
        raise RuntimeError(f"clients do not train stage by stage (stage {index})")

    def backward(self, index: int) -> np.ndarray:
        """Refused, as :meth:`gradient`."""
        raise RuntimeError(f"clients do not train stage by stage (stage {index})")


class _Mean:
    """The weighted mean of what clients send, added up in their order."""

    def __init__(self, model: Model):
        self._model = model
        self._sums: tuple[Any, ...] = ()

    def add(self, share: np.float32, sent: Sent, state: np.ndarray) -> None:
        extras = {
            name: share * np.asarray(value, np.float32).reshape(-1)
            for name, value in sent.extras.items()
        }
        parts = share * sent.delta, share * state, extras
        if not self._sums:
            self._sums = parts
            return
        delta, states, sums = self._sums
        delta += parts[0]
        states += parts[1]
        for name, value in extras.items():
            sums[name] += value

    def vector(self, start: np.ndarray) -> np.ndarray:
        """As it is offered: trained extras are no parameters, and so offered as values."""
        delta, state, extras = self._sums
        split = self._model.parameters
        delta[split:] += start[split:]
        return self._model.join(delta, state, extras)


def build_programs(config: RunConfig, model: Model, rule: ClientRule, local: Sequence[Any]) -> Any:
    """The programs; one object per process and configuration."""
    optimizer = OPTIMIZERS.complete(config.optimizer)
    rate = config.rate_of(config.optimizer)
    scans = model_info(config.model).scans
    rule = rule._replace(execution=execution_of(rule.execution, local[0].platform, scans=scans))
    return _shared_programs(_Held(model, rule), optimizer, rate, config.sync, config.seed, local)


class _Held:
    """A model and a rule, which the settings printed beside them determine, but for the execution.

    A benchmark gives one rule several of them.
    """

    def __init__(self, model: Model, rule: ClientRule):
        self.model, self.rule = model, rule

    def __repr__(self) -> str:
        return f"{self.rule.name} on {id(self.model)} by {self.rule.execution}"


@shared
def _shared_programs(
    held: _Held, optimizer: OptimizerConfig, lr: float, sync: SyncConfig, seed: int, local: Any
) -> Programs:
    del sync
    model, rule = held.model, held.rule
    integers = model.network.initial(seed)[1]
    steps = ClientSteps(model, rule, build_optimizer(optimizer, lr), integers)
    execute = build_execution(rule.execution, steps, local)
    return Programs(model, execute, jax.jit(steps.right))
