"""What a worker trains, behind one interface; imports JAX only where a model needs it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from geojax.center.inputs import checked, split_size
from geojax.center.planned import Planned
from geojax.center.spec import VectorSpec
from geojax.center.stages import check_p3
from geojax.center.synthetic import HollowTrainer, SyntheticTrainer
from geojax.center.synthetic_layout import synthetic_spec
from geojax.config import RunConfig
from geojax.hollow import SIZE_ONLY, hollow
from geojax.models.registry import SYNTHETIC, model_info

if TYPE_CHECKING:
    from geojax.center.mesh_trainer import MeshTrainer
    from geojax.center.network import Network
    from geojax.data.batches import Batches


class Trainer(Protocol):
    """One worker's model, data position and inner optimizer.

    Attributes:
      spec: layout of the vector.
      samples_per_step: samples in one batch.
      weight: factor of the worker's weight for the offer that it makes next; 1 unless the samples
        behind an offer change from round to round.

    All methods return when the devices are done, so that they can be timed, but for ``step`` after
    :meth:`expect`. ``gradient``, ``step``
    and ``backward(0)`` raise :class:`geojax.errors.Diverged` when the loss or a gradient is not
    finite.

    A step can also go stage by stage (of :func:`geojax.center.stages.build_stages`, n of them
    without ``state``): ``forward(0)`` to ``forward(n - 1)``, then ``backward(n - 1)`` to
    ``backward(0)``, which end in the same gradient as ``gradient``. A stage's parameters may be
    loaded from its backward part on until its next forward part. A mesh trainer does so only if it
    was built with ``sync.p3``.
    """

    spec: VectorSpec
    samples_per_step: int
    weight: float

    @property
    def last_loss(self) -> float:
        """Mean loss of the last batch at the parameters before the step.

        NaN before the first batch, and for a model without a loss.
        """
        ...

    @property
    def steps(self) -> int:
        """Batches consumed so far.

        Batch k, and the random numbers that a step on it draws, are functions of (seed, worker
        index, k) alone; those of a fleet depend on the choices of devices before it too.
        """
        ...

    def load(self, vector: np.ndarray) -> None:
        """Sets parameters and state from float32 (spec.size,), which is copied, never kept."""
        ...

    def load_part(self, start: int, stop: int, values: np.ndarray) -> None:
        """Sets parameters and state of the whole layers in [start, stop), and nothing else.

        Args:
          start: first element in the vector.
          stop: one past the last one.
          values: float32 (stop - start,), which is copied, never kept.
        """
        ...

    def forward(self, index: int) -> None:
        """Forward part of a stage; stage 0 takes the next batch, the last one computes the loss.

        ``forward(0)`` may come at any time and gives up an unfinished step, of which only the float
        state and integer leaves of its forward parts remain.
        """
        ...

    def backward(self, index: int) -> np.ndarray:
        """Backward part of a stage; stage 0 ends the step (``steps``, ``last_loss``).

        Returns:
          A fresh float32 (stop - start,) of the stage: its part of the mean gradient. For stage
          ``state``, which computes nothing and may be asked for at any time after the last forward
          part: the value of the float state after the batch, which the trainer also keeps. What
          others make of it must be loaded before the next ``forward(0)``.

        Raises:
          RuntimeError: it is not this part's turn.
        """
        ...

    def gradient(self) -> np.ndarray:
        """Mean gradient of the next batch at the present parameters, which stay as they are.

        Returns:
          A fresh float32 (spec.size,): the gradient, then the *value* of the float state after
          the batch, which the trainer also keeps.
        """
        ...

    def step(self) -> None:
        """One step of the inner optimizer on the next batch; its state outlives :meth:`load`."""
        ...

    def expect(self, steps: int) -> int:
        """So many calls of :meth:`step` follow, with nothing but :meth:`planned` between them.

        A trainer may make them, or the first of them, by one program, which the first call starts
        and the last one waits for. Then ``last_loss`` is told, and what is not finite found, by
        the last one; and until it, all that needs the parameters raises RuntimeError.

        Returns:
          How many of them are one program; 1: each is made by its call.
        """
        ...

    def planned(self) -> Planned:
        """What the next step costs; the same answer until that step is made."""
        ...

    def skip_to(self, steps: int) -> None:
        """Moves to the position in the data that a worker has after so many steps.

        What it trains, and the inner optimizer's state, stay as they are.
        """
        ...

    def vector(self) -> np.ndarray:
        """A fresh float32 (spec.size,) of parameters and state."""
        ...

    def warm_up(self, *, gradient: bool = True, step: bool = True) -> None:
        """Compiles what will be called, and leaves the trainer as it was.

        Args:
          gradient: :meth:`gradient` will be called, or with ``sync.p3`` the staged parts.
          step: :meth:`step` will be called.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that :meth:`vector` does not hold, as numbers and (nested) dictionaries of arrays."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict`."""
        ...


def build_trainer(
    config: RunConfig,
    *,
    features: np.ndarray,
    labels: np.ndarray,
    worker_index: int,
    worker_count: int,
    proximal: float = 0.0,
) -> Trainer:
    """The trainer of one worker, at the run's initial parameters.

    Args:
      config: the run.
      features: the worker's own samples (samples, ...); not copied, and not looked at when the
        model is synthetic.
      labels: their targets (samples, ...).
      worker_index: which worker, counted over all centers; chooses its order of batches.
      worker_count: number of workers of the run.
      proximal: ρ of the term (ρ/2)·‖x − x_t‖² that ``step`` adds to the loss, where x_t are the
        parameters that were loaded last. ``last_loss`` is without it.

    Raises:
      ConfigError: a setting of the model, the optimizer or the batch is wrong.
      DataError: the samples do not fit the configured data set.
    """
    if not 0 <= worker_index < worker_count:
        raise ValueError(f"worker {worker_index} of {worker_count}")
    check_p3(config)
    if config.compression.name == SIZE_ONLY:
        return HollowTrainer(config)
    if config.model.name == SYNTHETIC:
        return SyntheticTrainer(config, worker_index, proximal)

    from geojax.data.batches import BatchOrder

    features, labels = checked(config, features, labels)
    order = BatchOrder(len(features), config.batch_size, config.seed, worker_index)
    return build_mesh_trainer(config, features, labels, order, proximal=proximal)


def build_mesh_trainer(
    config: RunConfig,
    features: np.ndarray,
    labels: np.ndarray,
    order: Batches,
    *,
    each: int = 0,
    proximal: float = 0.0,
    together: int = 1,
) -> MeshTrainer:
    """A trainer of a model that is one of JAX, on the batches of ``order``.

    Args:
      config: the run.
      features: samples (samples, ...); not copied.
      labels: their targets (samples, ...).
      order: says which of them each batch holds.
      each: parts of a batch that make a gradient each; 0: one gradient of all of it.
      proximal: see :func:`build_trainer`; not with ``each``.
      together: most steps that are one program, see :meth:`Trainer.expect`; 1 with ``each``.

    Raises:
      ConfigError: a setting of the model, the optimizer or the batch is wrong.
      DataError: the samples do not fit the configured data set.
    """
    from geojax.center import devices
    from geojax.center.mesh import build_mesh
    from geojax.center.mesh_trainer import MeshTrainer
    from geojax.center.per_device_mesh import PerDeviceMesh

    devices.configure(config.mesh_size)
    features, labels = checked(config, features, labels)
    local = devices.devices_of(config, order.worker_index)
    split_size(order.batch_size // (each or 1), len(local))
    mesh = build_mesh(config, local, proximal)
    staged = None
    if config.sync.p3:
        from geojax.center.staged_mesh import build_staged_mesh

        staged = build_staged_mesh(config, local)
    programs = PerDeviceMesh(mesh, each) if each else mesh
    return MeshTrainer(
        programs, features, labels, order, *_initial(config), staged=staged, together=together
    )


def initial_vector(config: RunConfig) -> np.ndarray:
    """Parameters and float state at the start, float32 (spec.size,); a function of the seed."""
    if config.compression.name == SIZE_ONLY:
        return hollow(synthetic_spec(config).size)
    if config.model.name == SYNTHETIC:
        return np.zeros(synthetic_spec(config).size, np.float32)
    return _initial(config)[0].copy()


def build_spec(config: RunConfig) -> VectorSpec:
    """The layout of the model's vector, without building a trainer."""
    if config.model.name == SYNTHETIC:
        return synthetic_spec(config)
    model_info(config.model)  # refuses a wrong name before JAX is imported

    from geojax.center import devices
    from geojax.center.network import build_network

    devices.configure(config.mesh_size)
    return build_network(config).spec


def _initial(config: RunConfig) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    build_spec(config)  # sets JAX up

    from geojax.center.network import build_network

    return _initial_values(build_network(config), config.seed)


@functools.lru_cache(maxsize=4)
def _initial_values(network: Network, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return network.initial(seed)
