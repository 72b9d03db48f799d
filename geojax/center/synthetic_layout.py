"""How the synthetic model is laid out in stages, as configured; needs no JAX."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

from geojax.center.spec import VectorSpec
from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.models.registry import MODELS, SYNTHETIC

_RELATIVE = 1e-9  # by which model.pace_s may differ from the sum of model.stage_paces


def synthetic_spec(config: RunConfig) -> VectorSpec:
    """``model.bytes`` / 4 parameters: one layer, or one a stage.

    >>> from geojax.models.registry import SyntheticConfig
    >>> config = RunConfig(model=SyntheticConfig(bytes=40, stages=3))
    >>> [layer.size for layer in synthetic_spec(config).layers]
    [3, 3, 4]

    Raises:
      ConfigError: see :func:`stage_sizes`.
    """
    sizes = stage_sizes(config.model)
    if len(sizes) == 1:
        return VectorSpec.of([(SYNTHETIC, sizes)])
    return VectorSpec.of([(f"{SYNTHETIC}_{index}", (size,)) for index, size in enumerate(sizes)])


def stage_sizes(model: Any) -> tuple[int, ...]:
    """Elements of every stage: ``model.stage_bytes`` / 4, or about equal parts.

    Raises:
      ConfigError: ``model.bytes`` is not a positive multiple of 4, there are no stages or more
        than elements, or ``model.stage_bytes`` are not positive multiples of 4, one a stage, that
        add up to ``model.bytes``.
    """
    model = MODELS.complete(model)
    nbytes, stages = model.bytes, model.stages
    if nbytes < 4 or nbytes % 4:
        fix = f"use a positive multiple of 4, e.g. {max(4, -(-nbytes // 4) * 4)}"
        raise ConfigError("model.bytes", nbytes, fix)
    if stages < 1 or stages > nbytes // 4:
        fix = f"use at least 1 stage, and at most one per element ({nbytes // 4})"
        raise ConfigError("model.stages", stages, fix)
    if model.stage_bytes is None:
        edges = [index * (nbytes // 4) // stages for index in range(stages + 1)]
        return tuple(stop - start for start, stop in pairwise(edges))
    given = _list("model.stage_bytes", model.stage_bytes, stages)
    whole = [each for each in given if isinstance(each, int) and each > 0 and each % 4 == 0]
    if len(whole) < stages or sum(whole) != nbytes:
        fix = f"write {stages} positive multiples of 4 that add up to model.bytes = {nbytes}"
        raise ConfigError("model.stage_bytes", model.stage_bytes, fix)
    return tuple(each // 4 for each in whole)


def stage_paces(model: Any) -> tuple[tuple[float, float], ...]:
    """Seconds of every stage's forward and backward part: ``model.stage_paces``; empty if unset.

    Raises:
      ConfigError: they are not pairs of finite numbers of at least 0, one a stage, with a sum above
        0, or ``model.pace_s`` is another number than their sum.
    """
    model = MODELS.complete(model)
    if model.name != SYNTHETIC or model.stage_paces is None:
        return ()
    key = "model.stage_paces"
    paces: list[tuple[float, float]] = []
    for pair in _list(key, model.stage_paces, model.stages):
        paired = isinstance(pair, Sequence) and not isinstance(pair, str) and len(pair) == 2
        if not paired or not all(map(_is_duration, pair)):
            fix = "write [forward_s, backward_s] of every stage, finite numbers of at least 0"
            raise ConfigError(key, model.stage_paces, fix)
        paces.append((float(pair[0]), float(pair[1])))
    total = math.fsum(map(math.fsum, paces))
    if total <= 0:
        raise ConfigError(key, model.stage_paces, "some stage must take time; or leave them out")
    if model.pace_s is not None and not math.isclose(model.pace_s, total, rel_tol=_RELATIVE):
        fix = f"model.stage_paces add up to {total:g} s; leave out model.pace_s"
        raise ConfigError("model.pace_s", model.pace_s, fix)
    return tuple(paces)


def _is_duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return math.isfinite(value) and float(value) >= 0


def _list(key: str, value: object, stages: int) -> Sequence:
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != stages:
        raise ConfigError(key, value, f"write a list of {stages}, one a stage (model.stages)")
    return value
