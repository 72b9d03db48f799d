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

Step = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs one step of the devices at its pace and returns what the step returned."""


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
      collect: ``(trainer, base, parameters, steps, step) -> vector``: makes the offer from ``base``
        (the vector that the round began with, of which the first ``parameters`` elements are
        parameters), running every step through ``step``.
      pseudo_gradient: turns the merged offers' parameter part into what the outer optimizer takes.
    """

    name: str
    inner: bool
    collect: Callable[[StepsTrainer, np.ndarray, int, int, Step], Awaitable[np.ndarray]]
    pseudo_gradient: Callable[[np.ndarray], np.ndarray]


class LocalStepPolicy(NamedTuple):
    """How many local steps come before an exchange.

    Attributes:
      name: for people.
      steps: ``round -> int``.
      for_speed: ``speed -> policy`` of a worker whose undisturbed steps are ``speed`` times as fast
        as the fastest worker's, in (0, 1]; None: the same policy for all workers.
    """

    name: str
    steps: Callable[[int], int]
    for_speed: Callable[[float], LocalStepPolicy] | None = None


class Arrival(NamedTuple):
    """A push that is whole at a global server.

    Attributes:
      center: whose it is.
      number: the center's own round.
      at: loop time at which its last chunk came, s.
    """

    center: str
    number: int
    at: float


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
      least: key, value and the number of centers below which a merge would never happen; None: one
        is enough.
    """

    name: str
    exchange: str
    admit: Callable[[Desk], tuple[str, ...]] = lambda _: ()
    answers: Callable[[str, int, Desk], bool] = lambda _center, _number, _desk: True
    again: Callable[[Desk], float | None] = lambda _: None
    least: tuple[str, int, int] | None = None


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
    """

    center: str
    value: np.ndarray
    backup: np.ndarray
    staleness: int
    weight: float


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
    """

    speeds: Mapping[str, float]
    centers: tuple[str, ...]
    lr: float


class SyncAlgorithm(NamedTuple):
    """The composition; ``outer_default`` names the outer optimizer that ``auto`` stands for.

    ``outer_default`` is ``optimizer`` (the run's optimizer at its learning rate, applied to the
    merged gradient), ``average`` (step of length one: plain averaging), or the name of an outer
    optimizer, whose keys that differ from their defaults are ``outer_keys``.

    ``lan_rounds`` is the number of exchanges within a center that make one round: in all but the
    last of them a center averages alone. ``weights`` says what an offer counts in a merge:
    ``steps`` (every worker the same, since all take equally many samples), ``samples`` (a worker by
    the size of its data) or ``centers`` (workers of a center the same, and then centers the same).
    """

    name: str
    offer: Offer
    local_steps: LocalStepPolicy
    admission: AdmissionRule
    merge: MergeRule
    outer_default: str
    lan_rounds: int = 1
    weights: str = "steps"
    outer_keys: Mapping[str, Any] = {}
    proximal: float = 0.0
    for_run: Callable[[RunFacts], SyncAlgorithm] | None = None


SYNCS: Registry[Callable[[Any], SyncAlgorithm]] = Registry("sync.name", SyncConfig)
