"""A synchronization algorithm as a composition of five small parts.

========================  =====================================================================
part                      question
========================  =====================================================================
:class:`Offer`            what a member offers, and how many local steps it takes for it
:class:`LocalStepPolicy`  how many local steps before the next exchange
:class:`AdmissionRule`    whose offers go into one merge, and when it fires
:class:`MergeRule`        how the offers of one merge become new parameters
outer optimizer           how a merged gradient moves them (an optax transformation)
========================  =====================================================================

Model state (BatchNorm statistics) is offered as values and replaced by its weighted mean in every
algorithm; the parts below speak of the parameters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from geojax.config import SyncConfig
from geojax.registry import Registry
from geojax.sync.client import ClientRule
from geojax.sync.service import Service

Step = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs one step of the devices at its pace and returns what the step returned."""

More = Callable[[int], Awaitable[bool]]
"""``more(taken)``: whether one more local step is due after ``taken`` ones (at least one)."""


class StepsTrainer(Protocol):
    """What an offer needs of a trainer; see :class:`geojax.center.trainer.Trainer`."""

    def gradient(self) -> np.ndarray:
        """Mean gradient of the next batch, then the new model state."""
        ...

    def step(self) -> None:
        """One local step with the inner optimizer."""
        ...

    def vector(self) -> np.ndarray:
        """A copy of parameters and model state."""
        ...


class Offer(NamedTuple):
    """What a member offers.

    Attributes:
      name: ``gradient``, ``delta`` or ``parameters`` (the last one to global servers only).
      inner: whether local steps use the inner optimizer.
      collect: ``(trainer, base, parameters, more, step) -> vector``: makes the offer from ``base``
        (the vector that the round began with, of which the first ``parameters`` elements are
        parameters), running every step through ``step`` and asking ``more`` after each.
      pseudo_gradient: turns the merged offers' parameter part into what the outer optimizer takes.
    """

    name: str
    inner: bool
    collect: Callable[[StepsTrainer, np.ndarray, int, More, Step], Awaitable[np.ndarray]]
    pseudo_gradient: Callable[[np.ndarray], np.ndarray]


class StepStatus(NamedTuple):
    """What a worker knows when one more local step may be due.

    Attributes:
      round: of the exchange that the steps are for, counted on without a gap.
      taken: local steps in it so far.
      step_s: duration of the last one, s; 0: none has been timed yet.
      push_s: time for which its last offer was being sent, s; 0: none was sent.
    """

    round: int
    taken: int
    step_s: float
    push_s: float


class InRound(NamedTuple):
    """How the number of local steps is decided while a round runs: a service is asked.

    Questions and answers are flat mappings, see :mod:`geojax.sync.service`.

    Attributes:
      service: its name.
      entered: ``status -> question``: told to it, without an answer, when a round begins.
      asked: ``status -> question``: asked after a step, from ``least`` steps on.
      due: ``answer -> bool``: whether one more step is due.
      ended: ``status -> question``: told to it when ``most`` ends a round that it did not end.
      least: steps that every round has.
      most: steps that no round exceeds; None: any number.
      in_flight: the worker does not wait for the answer: it begins the next step, and gives that up
        if the answer says that none was due.
    """

    service: str
    entered: Callable[[StepStatus], dict[str, Any]]
    asked: Callable[[StepStatus], dict[str, Any]]
    due: Callable[[Mapping[str, Any]], bool]
    ended: Callable[[StepStatus], dict[str, Any]]
    least: int = 1
    most: int | None = None
    in_flight: bool = False


class Choice(NamedTuple):
    """How a service decides, while the run goes on, which centers contribute to a round.

    Every worker asks when it begins a round, and tells when it has made its offer. Questions and
    answers are flat mappings, see :mod:`geojax.sync.service`.

    Attributes:
      service: its name.
      entered: ``(round, push_s) -> question``: asked when a round begins; ``push_s`` is the time
        for which the worker's last offer was being sent, s.
      contributes: ``answer -> bool``: whether the worker's center contributes.
      judges: ``answer -> bool``: whether the worker is to judge the round's parameters first.
      judged: ``(round, right, of) -> question``: asked when it has: of so many held-out samples it
        got so many right.
      ended: ``round -> question``: told when the offer is made.
      held_out: samples that each worker keeps from training, to judge by; 0: it never judges.
    """

    service: str
    entered: Callable[[int, float], dict[str, Any]]
    contributes: Callable[[Mapping[str, Any]], bool]
    judges: Callable[[Mapping[str, Any]], bool]
    judged: Callable[[int, int, int], dict[str, Any]]
    ended: Callable[[int], dict[str, Any]]
    held_out: int = 0


class LocalStepPolicy(NamedTuple):
    """How many local steps come before an exchange.

    Attributes:
      name: for people.
      steps: ``round -> int``: their number or, if it is decided while the round runs, the least.
      in_round: who decides then; None: the number is known before.
      for_speed: ``speed -> policy`` of a worker whose undisturbed steps are ``speed`` times as fast
        as the fastest worker's, in (0, 1]; None: the same policy for all workers.
    """

    name: str
    steps: Callable[[int], int]
    in_round: InRound | None = None
    for_speed: Callable[[float], LocalStepPolicy] | None = None


class Arrival(NamedTuple):
    """A push that is whole at a global server.

    Attributes:
      center: whose it is.
      number: the center's own round.
      at: loop time at which its last chunk came, s.
      took: since its center was sent the parameters that it began with, s; None: not known.
    """

    center: str
    number: int
    at: float
    took: float | None = None


class Desk(NamedTuple):
    """What an admission rule decides upon: the state of one shard of a global server.

    Attributes:
      arrived: pushes that no merge has taken yet, in order of arrival.
      merged: for each living center whose progress is known the last of its rounds that is merged.
      retired: the centers that make no more offers.
      highest: highest round of any center that is merged; -1: none.
      now: loop time, s.
    """

    arrived: tuple[Arrival, ...]
    merged: Mapping[str, int]
    retired: Collection[str]
    highest: int
    now: float


class AdmissionRule(NamedTuple):
    """Whose offers one merge takes. All functions are pure.

    Attributes:
      name: for people.
      exchange: the kind that can do so: tree or server.
      admit: server: ``desk -> centers`` whose earliest arrived pushes go into one merge now, in
        this order; none: the merge waits.
      answers: server: ``(center, round, desk) -> bool``: whether a center that has pushed this
        round may be sent parameters, and so begin its next one.
      again: server: ``desk -> loop time`` at which to ask once more though nothing arrives; None:
        only an arrival, a retirement or a change of the membership can change the answer.
      least: key, value and the number of centers that it asks for: with fewer a merge would never
        happen, or not as the key says; None: one is enough.
      longest: key and value, s, of how long a merge may wait though enough are there; None: not.
    """

    name: str
    exchange: str
    admit: Callable[[Desk], tuple[str, ...]] = lambda _: ()
    answers: Callable[[str, int, Desk], bool] = lambda _center, _number, _desk: True
    again: Callable[[Desk], float | None] = lambda _: None
    least: tuple[str, int, int] | None = None
    longest: tuple[str, float] | None = None


State = dict[str, np.ndarray]
"""What a merge rule remembers: float32 arrays by name."""


class Offered(NamedTuple):
    """One center's offer, as the merge rule of a global server sees it.

    Attributes:
      center: whose it is.
      value: float32 (parameters,): what ``Offer.pseudo_gradient`` made of the mean of the center's
        offers: a gradient to descend along, or parameters.
      backup: float32 (parameters,): what the center was answered last, at which ``value`` was
        computed; the present parameters where that is not known or not kept.
      staleness: merges since these parameters were sent.
      weight: of the offers that ``value`` is the mean of, as a share of all workers' of the run.
      steps: local steps that ``value`` stands for: of all workers of the center, since its offer
        before.
    """

    center: str
    value: np.ndarray
    backup: np.ndarray
    staleness: int
    weight: float
    steps: int = 0


Outer = Callable[[np.ndarray], np.ndarray]
"""One step of the outer optimizer: ``gradient -> new parameters``, from the present ones."""


class MergeRule(NamedTuple):
    """How offers become new parameters. All functions are pure, but for the outer step they take.

    Attributes:
      name: for people.
      merge: ``(sum of weight·offer, sum of weights) -> vector``: of offers that were summed on the
        way, in a center or along a tree.
      apply: server: ``(offers of one admission, present parameters, outer step, state) -> (new
        parameters, state)``. Changes none of its arguments; takes at most one outer step. None:
        centers cannot exchange one by one.
      init: server: ``parameters -> state`` at the start, or when another server goes on.
      needs_backup: whether ``apply`` looks at ``backup``; else none is kept.
      outer: whether ``apply`` takes outer steps; else there must be no outer optimizer.
    """

    name: str
    merge: Callable[[np.ndarray, float], np.ndarray]
    apply: Callable[[Sequence[Offered], np.ndarray, Outer, State], tuple[np.ndarray, State]] | None
    init: Callable[[np.ndarray], State] = lambda _: {}
    needs_backup: bool = False
    outer: bool = True


class RunFacts(NamedTuple):
    """What an algorithm may want to know of the run.

    Attributes:
      speeds: of every worker, relative to the fastest one's, in (0, 1], by name ("c1" or "c1/w0"):
        from the configured paces, before anything disturbs them.
      centers: all centers, in their order.
      lr: learning rate of the inner optimizer.
      seed: of the run.
      rounds: of the run, at most.
      first: the round with which it begins, or goes on; known to those who host services.
    """

    speeds: Mapping[str, float]
    centers: tuple[str, ...]
    lr: float
    seed: int = 0
    rounds: int = 1
    first: int = 0


PATTERNS = ("strided", "sequential")


class Fragmentation(NamedTuple):
    """Which part of the vector a round exchanges, and when its result counts in the workers.

    Attributes:
      fragments: parts of the vector, each of whole layers; round r exchanges the one of number
        r modulo ``fragments``.
      pattern: of layers to fragments: ``strided`` or ``sequential``, see
        :func:`geojax.center.fragments.fragments_of`.
      overlap: local steps of the next round that a worker takes before the result counts.
      blend: share of its own values in what a worker goes on with then.
      carry: what it has trained since its offer is added to the result.
    """

    fragments: int = 1
    pattern: str = "strided"
    overlap: int = 0
    blend: float = 0.0
    carry: bool = False


WHOLE = Fragmentation()
"""Every round exchanges all of the vector, and its result counts at once."""


class HostedService(NamedTuple):
    """A service that an algorithm needs.

    Attributes:
      name: of the service.
      at_scheduler: the scheduler has it, for all; else every local server has one for its workers.
      build: makes it.
    """

    name: str
    at_scheduler: bool
    build: Callable[[], Service]


class LanTier(NamedTuple):
    """How a local server merges what its workers offer, where it waits for none of them.

    An offer moves the center's model when it comes, and its worker alone is answered. The center
    counts them: after so many it offers over the WAN how far its model has moved, and serves its
    workers on. Parameters that come back are mixed into its model, and it counts from there anew.

    Attributes:
      offers: K: so many offers of workers make one of the center; at least 1.
      share: α: share of the parameters that come back in the mix, in (0, 1].
      outer: name of the local server's outer optimizer.
      outer_keys: its keys that differ from their defaults.
    """

    offers: int
    share: float
    outer: str
    outer_keys: Mapping[str, Any] = {}


class SyncAlgorithm(NamedTuple):
    """The composition; ``outer_default`` names the outer optimizer that ``auto`` stands for.

    ``outer_default`` is ``optimizer`` (the run's optimizer at its learning rate, applied to the
    merged gradient), ``average`` (step of length one: plain averaging), ``nesterov`` (DiLoCo's:
    SGD with Nesterov momentum 0.9 at a learning rate of 0.7), or the name of an outer optimizer,
    whose keys that differ from their defaults are ``outer_keys``.

    ``fragmentation`` says which part of the vector a round exchanges; with more than one fragment,
    or with overlap, there is one exchange within a center in a round, weighted by ``steps``.

    ``lan_rounds`` is the number of exchanges within a center that make one round: in all but the
    last of them a center averages alone. ``weights`` says what an offer counts in a merge:
    ``steps`` (every worker the same, since all take equally many samples), ``samples`` (a worker by
    the size of its data) or ``centers`` (workers of a center the same, and then centers the same).
    ``needs_devices``: workers must be base stations of devices.

    ``client`` is what a federated algorithm adds: then a local step is the round of all clients of
    a worker.

    ``inner`` says how many of these exchanges there are, where that is decided while the round
    runs; then ``lan_rounds`` is the most. ``services`` are what members ask while the run goes on.

    ``proximal`` is ρ of the term (ρ/2)·‖x − x_t‖² that local steps add to the loss, where x_t are
    the parameters that were loaded last.

    ``contributors`` names the centers that contribute to a round; all others only receive its
    result. It is a pure function, which every member computes for itself. None: all contribute,
    unless ``choice`` says which service decides it.

    ``lan`` says how a center merges its workers' offers one by one; then each worker goes at its
    own pace, and the WAN's exchange must be one by one too. None: the center waits for all of them.

    ``execution`` says how a base station of devices makes the steps of a round: ``loop`` (a call
    each), ``scan`` (all by one program) or ``auto``, see :mod:`geojax.devices.execution`.

    ``for_run`` makes the algorithm of a run out of what only the run knows; None: it is complete.
    """

    name: str
    offer: Offer
    local_steps: LocalStepPolicy
    admission: AdmissionRule
    merge: MergeRule
    outer_default: str
    lan_rounds: int = 1
    weights: str = "steps"
    needs_devices: bool = False
    client: ClientRule | None = None
    fragmentation: Fragmentation = WHOLE
    services: tuple[HostedService, ...] = ()
    inner: LocalStepPolicy | None = None
    outer_keys: Mapping[str, Any] = {}
    proximal: float = 0.0
    contributors: Callable[[int], Collection[str]] | None = None
    choice: Choice | None = None
    lan: LanTier | None = None
    execution: str = "loop"
    for_run: Callable[[RunFacts], SyncAlgorithm] | None = None

    @property
    def chooses(self) -> bool:
        """Whether the algorithm itself says which centers contribute to a round."""
        return self.contributors is not None or self.choice is not None

    @property
    def exchanges(self) -> int:
        """Exchanges that make one federated round; 1 in all other algorithms."""
        return 1 if self.client is None else self.client.exchanges


SYNCS: Registry[Callable[[Any], SyncAlgorithm]] = Registry("sync.name", SyncConfig)
