"""Samples that a worker does not train on, to tell how good the round's parameters are."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from geojax.assemble.setup import Setup
from geojax.center.evaluate import build_evaluator
from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.models.losses import ACCURACY


def divided(setup: Setup, name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of a worker's samples: those that it trains on, and ``count`` held out.

    Which ones is drawn from the run's seed and the worker's place.

    Raises:
      ConfigError: fewer than a batch would be left.
    """
    mine, config = setup.part(name), setup.config
    most = len(mine) - config.batch_size
    if count > most:
        fix = f"{name} has {len(mine)} samples and a batch takes {config.batch_size}; "
        fix += f"use at most {most}" if most > 0 else "use a policy other than adaptive"
        raise ConfigError("sync.held_out", count, fix)
    place = setup.cluster.trainers.index(name)
    stream = np.random.default_rng([config.seed, zlib.crc32(b"held out"), place])
    chosen = np.zeros(len(mine), bool)
    chosen[stream.choice(len(mine), count, replace=False)] = True
    return mine[~chosen], mine[chosen]


def build_judge(setup: Setup, name: str, count: int) -> Callable[[np.ndarray], int]:
    """A compiled function from a vector to how many of a worker's held-out samples it gets right.

    Raises:
      ConfigError: the configured loss has no accuracy, or see :func:`divided`.
    """
    data, (_, held_out) = setup.dataset(), divided(setup, name, count)
    evaluate = build_evaluator(setup.config, data.train_x[held_out], data.train_y[held_out])
    if ACCURACY not in evaluate(setup.initial()):
        fix = "has no accuracy for sync.policy=adaptive to go by; use sync.policy=uniform"
        raise ConfigError("loss", setup.config.loss, fix)
    return lambda vector: round(evaluate(vector)[ACCURACY] * count)


def batches_of(config: RunConfig, count: int) -> float:
    """What judging by so many samples costs, in steps: a forward pass is a third of one."""
    return -(-count // config.batch_size) / 3
