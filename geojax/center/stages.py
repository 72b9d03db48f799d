"""The stages of a model, by which P3 trains it layer by layer; loads JAX only for a network.

P3 (Jayarajan et al., *Priority-based Parameter Propagation for Distributed DNN Training*, MLSys
2019) lets a layer's gradient leave as soon as its own backward part is done, and starts the next
forward pass as soon as the first layers are back, the earliest layers first. Its unit here is the
stage of a :class:`geojax.models.staged.StagedModule`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from geojax.center.synthetic_layout import stage_paces, stage_sizes
from geojax.config import ModelConfig, RunConfig
from geojax.errors import ConfigError
from geojax.models.registry import MODELS, SYNTHETIC, model_info

STATE = "state"  # the name of the last stage of a model with float state


class Stage(NamedTuple):
    """A contiguous part of a model's vector that is computed, and travels, as one.

    Attributes:
      name: e.g. ``Conv_0``; ``state`` for the float state of all stages (BatchNorm's statistics),
        which lies at the end of the vector and costs no computing.
      start: first element in the vector.
      stop: one past the last element.
      forward: share of a step's pace that its forward part takes.
      backward: share that its backward part takes. All shares of all stages add up to 1.
    """

    name: str
    start: int
    stop: int
    forward: float
    backward: float


def build_stages(config: RunConfig) -> tuple[Stage, ...]:
    """The stages of the configured model, in order of execution; a single one if it has none.

    A network's shares go by the multiplications and additions of its convolutions and matrix
    products, counted from shapes and never measured, so they are the same everywhere. A backward
    part counts twice its forward part: it has two products (for the parameters and for the stage's
    input) where that has one. That is a rule, not a law: the first stage needs no gradient of its
    input, and normalization, activations and pools are left out. A synthetic model's stages are
    equal in bytes (``model.stage_bytes``) and shares (``model.stage_paces``) unless it says
    otherwise.

    >>> from geojax.models.registry import SyntheticConfig
    >>> config = RunConfig(model=SyntheticConfig(bytes=16, stages=2))
    >>> first, last = build_stages(config)
    >>> first.stop, last.start, round(first.forward, 3), round(first.backward, 3)
    (2, 2, 0.167, 0.333)

    Raises:
      ConfigError: the model does not exist, or its stages are badly configured.
    """
    check_stages(config)
    if config.model.name == SYNTHETIC:
        sizes = stage_sizes(config.model)
        names = [f"stage_{index}" for index in range(len(sizes))]
        paces = stage_paces(config.model) or [(1.0, 2.0)] * len(names)
        return _staged(names, sizes, paces)

    from geojax.center import devices

    devices.configure(config.mesh_size)

    from geojax.center.network import build_network
    from geojax.center.network_stages import staged_network

    network = build_network(config)
    if not model_info(config.model).staged:
        return _staged([config.model.name], [network.spec.size], [(1.0, 2.0)])
    parts = staged_network(network).stages
    names = [part.name for part in parts]
    sizes = [part.stop - part.start for part in parts]
    paces = [(part.operations, 2 * part.operations) for part in parts]
    state = network.spec.size - network.spec.parameters
    if state:
        names, sizes, paces = [*names, STATE], [*sizes, state], [*paces, (0, 0)]
    return _staged(names, sizes, paces)


def _staged(
    names: Sequence[str], sizes: Sequence[int], paces: Sequence[tuple[float, float]]
) -> tuple[Stage, ...]:
    total = math.fsum(map(math.fsum, paces))
    stages: list[Stage] = []
    offset = 0
    for name, size, (forward, backward) in zip(names, sizes, paces, strict=True):
        stages.append(Stage(name, offset, offset + size, forward / total, backward / total))
        offset += size
    return tuple(stages)


def check_stages(config: RunConfig) -> None:
    """Finds what is wrong with the stages of a synthetic model.

    Raises:
      ConfigError: see :mod:`geojax.center.synthetic_layout`; or the model does not exist.
    """
    model_info(config.model)  # refuses what the model does not take
    if config.model.name == SYNTHETIC:
        stage_sizes(config.model)
        stage_paces(config.model)


def check_p3(config: RunConfig) -> None:
    """Refuses ``sync.p3`` where a run cannot train layer by layer.

    The algorithm must be FSA: local steps end in one offer of everything, and a center that comes
    back to a server exchange pulls everything at once. Optimizers must treat every layer by itself:
    one that clips the norm over all layers has to wait for the last.

    Raises:
      ConfigError: names both settings and the fix.
    """
    check_stages(config)
    if not config.sync.p3:
        return
    if not model_info(config.model).staged:
        able = ", ".join(name for name in MODELS if model_info(ModelConfig(name)).staged)
        fix = f"model={config.model.name} has no stages; use one of {able}, or sync.p3=false"
        raise ConfigError("sync.p3", True, fix)
    if config.sync.name != "fsa":
        fix = f"sync={config.sync.name} does not exchange layer by layer; use sync=fsa"
        raise ConfigError("sync.p3", True, f"{fix}, or sync.p3=false")
    for key in ("optimizer", "outer_optimizer"):
        norm = getattr(config, key).clip_norm
        if norm is not None:
            fix = f"{key}.clip_norm = {norm:g} couples all layers; set {key}.clip_norm=null"
            raise ConfigError("sync.p3", True, f"{fix}, or sync.p3=false")


class StageOrder:
    """The order of the parts of staged steps: all forward, then all backward, the last one first.

    Args:
      count: number of stages that compute (without ``state``).

    >>> order = StageOrder(2)
    >>> order.forward(0), order.forward(1), order.backward(1), order.backward(0)
    (None, None, None, None)
    >>> order.backward(1)
    Traceback (most recent call last):
    RuntimeError: backward of stage 1 out of turn: forward of stage 0 comes next
    """

    def __init__(self, count: int):
        self._count = count
        self._next = 0  # of the 2 * count parts

    def forward(self, index: int) -> None:
        """Takes the turn of a stage's forward part; stage 0 may start a new step at any time."""
        if index == 0:
            self._next = 0
        self._take("forward", index, index < self._count and self._next == index)

    def backward(self, index: int) -> None:
        """Takes the turn of a stage's backward part."""
        self._take("backward", index, self._next == 2 * self._count - 1 - index)

    def state(self) -> None:
        """Refuses to give the float state while the forward pass is only half done."""
        if 0 < self._next < self._count:
            self._take("reading the float state", self._count, taken=False)

    def _take(self, part: str, index: int, taken: bool) -> None:
        if not taken:
            back = self._next >= self._count
            expected = 2 * self._count - 1 - self._next if back else self._next
            raise RuntimeError(
                f"{part} of stage {index} out of turn: "
                f"{'backward' if back else 'forward'} of stage {expected} comes next"
            )
        self._next = (self._next + 1) % (2 * self._count)
