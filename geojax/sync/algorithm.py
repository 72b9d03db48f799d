"""A synchronization algorithm as a composition of five small parts.

========================  =====================================================================
part                      question
========================  =====================================================================
:class:`Offer`            what a member offers, and how many local steps it takes for it
:class:`LocalStepPolicy`  how many local steps before the next exchange
:class:`AdmissionRule`    whose offers go into one merge, and when it fires
:class:`MergeRule`        how the offers become one vector
outer optimizer           how that vector changes the parameters (an optax transformation)
========================  =====================================================================

Model state (BatchNorm statistics) is offered as values and replaced by its weighted mean in every
algorithm; the parts below speak of the parameters.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
      name: ``gradient``, ``delta`` or ``parameters``.
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
    """How many local steps come before an exchange: ``steps(round) -> int``."""

    name: str
    steps: Callable[[int], int]


class AdmissionRule(NamedTuple):
    """Whose offers one merge takes.

    Attributes:
      name: for people.
      exchange: the kind that can do so: tree or server.
      bound: server: rounds that a member may be ahead of the slowest one; None: any number.
    """

    name: str
    exchange: str
    bound: int | None = None


class Compensation(NamedTuple):
    """What is done to a gradient that is older than the parameters which it is applied to.

    Attributes:
      name: as configured.
      needs_backup: whether ``apply`` looks at ``backup``; else none has to be kept.
      init: ``elements -> state``, a mapping of float32 arrays of that many elements.
      apply: ``(gradient, now, backup, state) -> (gradient, state)``: ``now`` are the parameters
        that the gradient will be applied to, ``backup`` those that its sender computed it at.
        Changes none of its arguments.
    """

    name: str
    needs_backup: bool
    init: Callable[[int], dict[str, np.ndarray]]
    apply: Callable[
        [np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]],
        tuple[np.ndarray, dict[str, np.ndarray]],
    ]


class MergeRule(NamedTuple):
    """``merge(sum of weight·offer, sum of weights) -> vector``.

    ``compensation`` is what the result goes through where members exchange one by one.
    """

    name: str
    merge: Callable[[np.ndarray, float], np.ndarray]
    compensation: Compensation | None = None


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
    """

    fragments: int = 1
    pattern: str = "strided"
    overlap: int = 0
    blend: float = 0.0


WHOLE = Fragmentation()
"""Every round exchanges all of the vector, and its result counts at once."""


class SyncAlgorithm(NamedTuple):
    """The composition; ``outer_default`` names the outer optimizer that ``auto`` stands for.

    ``outer_default`` is ``optimizer`` (the run's optimizer at its learning rate, applied to the
    merged gradient), ``average`` (step of length one: plain averaging) or ``nesterov`` (DiLoCo's:
    SGD with Nesterov momentum 0.9 at a learning rate of 0.7).

    ``fragmentation`` says which part of the vector a round exchanges; with more than one fragment,
    or with overlap, there is one exchange within a center in a round, weighted by ``steps``.

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
    fragmentation: Fragmentation = WHOLE


SYNCS: Registry[Callable[[Any], SyncAlgorithm]] = Registry("sync.name", SyncConfig)
