"""What a federated algorithm is: how a client trains, what it sends, what the server makes of it.

A *client* (a device of a base station, or a worker that holds its data itself) begins each round
from the round's parameters w_t, takes E epochs of local steps and ends in w_k. All arrays of
parameters are flat. Rules are pure; those that see a gradient or an objective run on JAX arrays,
all others on NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from geojax.config import OptimizerConfig, RunConfig

Arrays = dict[str, Any]

NEAREST = 1e-12  # added to a distance, so that a client at the mean has a weight


class Extra(NamedTuple):
    """An array that travels beside the model, as a layer of kind ``state`` at the vector's end.

    What clients offer there is averaged with their weights; what the server makes of the mean is
    what they find there in the next round.

    Attributes:
      name: of the layer, after ``federated/``.
      shape: of the array.
      start: its value before the first round.
      trained: clients train it together with the parameters; such extras come first.
    """

    name: str
    shape: tuple[int, ...]
    start: float | np.ndarray = 0.0
    trained: bool = False


class Shapes(Protocol):
    """What of a model the shapes of extras depend on."""

    @property
    def parameters(self) -> int:
        """Elements of the model's parameters, P."""
        ...

    @property
    def channels(self) -> int:
        """Channels of the last convolution's output, C; ConfigError if there is none."""
        ...


class Given(NamedTuple):
    """What a client begins a round with, float32.

    Attributes:
      start: (n,): w_t, the P parameters and then the trained extras.
      state: (s,): the model's float state.
      server: the other extras by name, flat.
      kept: by name, what the client has kept from its last round, each (n,).
    """

    start: Any
    state: Any
    server: Arrays
    kept: Arrays


class Batch(NamedTuple):
    """One local batch b, and what a step on it needs.

    Attributes:
      samples: (b, ...).
      targets: (b, ...).
      weights: float32 (b,): 1, or 0 of samples that only fill up a short last batch.
      state: float state by name.
      integers: integer leaves by name.
      key: of the step's random numbers.
    """

    samples: Any
    targets: Any
    weights: Any
    state: Arrays
    integers: Arrays
    key: Any


class ClientModel(Protocol):
    """The model as objectives see it; see :mod:`geojax.federated.training.model`.

    ``w`` are the model's arrays and the trained extras, as a tree: gradients are taken of it.
    """

    def loss(self, w: Any, batch: Batch) -> tuple[Any, tuple[Arrays, Arrays]]:
        """Mean loss, and the state and integers after it."""
        ...

    def loss_and_representation(
        self, w: Any, batch: Batch
    ) -> tuple[Any, Any, tuple[Arrays, Arrays]]:
        """The same with the input of the last stage, (b, features)."""
        ...

    def representation(self, flat: Any, state: Any, batch: Batch) -> Any:
        """That of a frozen model, given flat, in evaluation mode, (b, features)."""
        ...

    def fused_loss(
        self, w: Any, given: Given, batch: Batch, fuse: Callable[..., Any]
    ) -> tuple[Any, tuple[Arrays, Arrays]]:
        """Mean loss with ``fuse(extras, local, frozen)`` after the last convolution."""
        ...


class Trained(NamedTuple):
    """What a client's round has ended in.

    Attributes:
      given: what it began with.
      end: float32 (n,): w_k.
      steps: τ_k, its local steps.
      samples: n_k, of its data.
      lr: η_l, of the client's optimizer.
      momentum: of the client's optimizer; 0: none.
      share: clients of its base station ÷ those that take part in this round.
    """

    given: Given
    end: np.ndarray
    steps: int
    samples: int
    lr: float
    momentum: float
    share: float


class Sent(NamedTuple):
    """What a client sends and keeps.

    Attributes:
      delta: float32 (n,).
      extras: by name, of the extras that are not trained.
      kept: by name, each float32 (n,).
    """

    delta: np.ndarray
    extras: Mapping[str, np.ndarray | float] = {}
    kept: Mapping[str, np.ndarray] = {}


def difference(done: Trained) -> Sent:
    """Δ_k = w_k − w_t, and nothing else."""
    return Sent(done.end - done.given.start)


class Merged(NamedTuple):
    """What a server has when all have offered.

    Attributes:
      delta: float32 (P,): Σ_k p_k · delta of client k.
      extras: the means of what was offered, by name, flat.
      before: the extras of the round's start, by name, flat.
    """

    delta: np.ndarray
    extras: dict[str, np.ndarray]
    before: dict[str, np.ndarray]


class ServerRule(NamedTuple):
    """What the server makes of the mean; every center computes the same.

    Attributes:
      init: ``P -> state`` of the server that no client sees, a dictionary of float32 arrays.
      update: ``(merged, state) -> (step, extras, state)``: the step (P,) goes to the outer
        optimizer as −step; extras replace the means, those that are left out stay means.
    """

    init: Callable[[int], dict[str, np.ndarray]]
    update: Callable[
        [Merged, dict[str, np.ndarray]],
        tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]],
    ]


class Candidate(NamedTuple):
    """A client's model, when the weights of a mean are found after its first mean is known.

    Attributes:
      distance: ‖w̄ − w_k‖₁.
      samples: n_k, in units of the mean of all clients.
      accuracy: of w_k on the client's own training samples; NaN unless the rule asks for it.
      classes: C.
    """

    distance: float
    samples: float
    accuracy: float
    classes: int


class ClientRule(NamedTuple):
    """A federated algorithm.

    Attributes:
      name: as configured.
      epochs: E, passes of a client over its data in a round.
      weights: p_k is in proportion to n_k (``samples``) or the same for all (``uniform``).
      extras: what travels beside the model, for a model of such shapes.
      keeps: what a client keeps from round to round: its value before the client's first one,
        ``zeros`` or ``start`` (w_t).
      objective: ``(model, w, given, batch) -> loss, (state, integers)``; None: the mean loss.
      fuse: ``(extras, local, frozen) -> map``: what evaluation puts after the last convolution,
        with both streams the same; None: nothing.
      correct: ``(gradient, w, given) -> gradient`` that the client's optimizer gets, each (n,);
        None: as it is.
      finish: what a client sends and keeps.
      server: None: the mean is the step.
      outer: the outer optimizer that ``outer_optimizer=auto`` stands for; None: plain averaging.
      mix: the weight of a client's model in a second exchange, which comes after that of the
        plain mean; None: there is none.
      accuracy: whether ``mix`` reads it.
      every_center: clients count each other, so every center takes part in every round.
      execution: how clients are executed, see :mod:`geojax.federated.training.execution`.
      check: refuses a run that the algorithm is not defined for, with ``ConfigError``.
    """

    name: str
    epochs: int = 1
    weights: str = "samples"
    extras: Callable[[Shapes], tuple[Extra, ...]] = lambda _: ()
    keeps: Mapping[str, str] = {}
    objective: Callable[..., Any] | None = None
    fuse: Callable[[Arrays, Any, Any], Any] | None = None
    correct: Callable[[Any, Any, Given], Any] | None = None
    finish: Callable[[Trained], Sent] = difference
    server: ServerRule | None = None
    outer: OptimizerConfig | None = None
    mix: Callable[[Candidate], float] | None = None
    accuracy: bool = False
    every_center: bool = False
    execution: str = "auto"
    check: Callable[[RunConfig], None] = lambda _: None

    @property
    def exchanges(self) -> int:
        """Exchanges that make one federated round."""
        return 1 if self.mix is None else 2
