"""Optimizers by name: the published formulas, and refusals."""

from __future__ import annotations

import numpy as np
import optax
import pytest

from geojax.center.optimizers import (
    OPTIMIZERS,
    OUTER_OPTIMIZERS,
    AdamConfig,
    SgdConfig,
    build_optimizer,
    check_optimizer,
)
from geojax.config import OptimizerConfig
from geojax.errors import ConfigError

START = np.array([1.0, -2.0, 3.0])
GRADIENTS = [np.array([0.3, 0.1, -0.2]), np.array([-0.1, 0.4, 0.2]), np.array([2.0, -3.0, 6.0])]


def run_optax(config: OptimizerConfig, lr: float) -> np.ndarray:
    optimizer = build_optimizer(config, lr)
    weights = START.astype(np.float32)
    state = optimizer.init(weights)
    for gradient in GRADIENTS:
        updates, state = optimizer.update(gradient.astype(np.float32), state, weights)
        weights = optax.apply_updates(weights, updates)
    return np.asarray(weights)


def run_formula(config: OptimizerConfig, lr: float) -> np.ndarray:
    """Written from the papers, in double precision."""
    config = OPTIMIZERS.complete(config)
    weights = START.copy()
    first = second = velocity = np.zeros(3)
    for step, gradient in enumerate(GRADIENTS, start=1):
        if config.clip_norm:
            gradient = gradient * min(1.0, config.clip_norm / np.linalg.norm(gradient))
        if config.name != "adamw":
            gradient = gradient + config.weight_decay * weights
        if config.name == "sgd":
            velocity = config.momentum * velocity + gradient
            nesterov = gradient + config.momentum * velocity
            weights = weights - lr * (nesterov if config.nesterov else velocity)
            continue
        first = config.b1 * first + (1 - config.b1) * gradient
        second = config.b2 * second + (1 - config.b2) * gradient**2
        mean, square = first / (1 - config.b1**step), second / (1 - config.b2**step)
        decay = config.weight_decay * weights if config.name == "adamw" else 0.0
        weights = weights - lr * (mean / (np.sqrt(square) + config.eps) + decay)
    return weights


CASES = {
    "sgd": OptimizerConfig(),
    "momentum": SgdConfig(momentum=0.9),
    "nesterov": SgdConfig(momentum=0.9, nesterov=True),
    "decayed momentum": SgdConfig(weight_decay=0.1, momentum=0.5),
    "clipped sgd": OptimizerConfig(clip_norm=1.0),
    "adam": OptimizerConfig(name="adam"),
    "decayed adam": AdamConfig(b1=0.5, b2=0.8, eps=1e-3, weight_decay=0.1),
    "clipped adamw": OptimizerConfig(name="adamw", weight_decay=0.1, clip_norm=0.2),
}


@pytest.mark.parametrize("name", CASES)
def test_updates_follow_the_formulas(name):
    config = CASES[name]
    np.testing.assert_allclose(run_optax(config, 0.1), run_formula(config, 0.1), rtol=2e-6)


REFUSED = {
    r"optimizer\.name = 'sgdd': did you mean 'sgd'": {"name": "sgdd"},
    r"optimizer\.lr = 0": {"lr": 0},
    r"optimizer\.lr = nan": {"lr": float("nan")},
    r"optimizer\.lr = inf": {"lr": float("inf")},
    r"optimizer\.momentum = 1": {"momentum": 1},
    r"optimizer\.b2 = 1.5": {"name": "adam", "b2": 1.5},
    r"optimizer\.eps = 0": {"name": "adam", "eps": 0},
    r"optimizer\.weight_decay = -0.1": {"weight_decay": -0.1},
    r"optimizer\.clip_norm = 0": {"clip_norm": 0.0},
    r"optimizer\.nesterov = True: set optimizer\.momentum": {"nesterov": True},
    r"optimizer\.momentum = 0.9: .*it reads: b1": {"name": "adam", "momentum": 0.9},
}


@pytest.mark.parametrize("message", REFUSED)
def test_wrong_settings_are_refused(message):
    settings = {"lr": 0.1, **REFUSED[message]}
    lr, name = settings.pop("lr"), settings.pop("name", "sgd")
    with pytest.raises(ConfigError, match=message):
        check_optimizer(OPTIMIZERS.settings(name, **settings), lr)
    with pytest.raises(ConfigError, match="outer_" + message.split(":")[0]):
        build_optimizer(OUTER_OPTIMIZERS.settings(name, **settings), lr, key="outer_optimizer")


# ---- Muon


def orthogonal(matrix, steps=5):
    """Newton-Schulz with the quintic of Jordan et al. (2024)."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix) / np.linalg.norm(matrix)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


@pytest.mark.parametrize("shape", [(4, 6), (6, 4)])
def test_muon_moves_matrices_by_an_orthogonal_step_and_the_rest_by_adam(shape):
    random = np.random.default_rng(0)
    gradients = {"kernel": random.normal(size=shape), "bias": random.normal(size=shape[1])}
    tree = {name: np.float32(each) for name, each in gradients.items()}
    settings = OPTIMIZERS.settings("muon", adam_lr=0.5)
    optimizer = build_optimizer(settings, 0.1)
    steps, _ = optimizer.update(tree, optimizer.init(tree), tree)
    scale = np.sqrt(max(1, shape[1] / shape[0]))
    expected = -0.1 * scale * orthogonal(gradients["kernel"])  # any momentum has its direction
    np.testing.assert_allclose(steps["kernel"], expected, atol=2e-3)
    lengths = np.abs(np.asarray(steps["bias"]))
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-3)
    assert (np.sign(steps["bias"]) == -np.sign(gradients["bias"])).all()


def test_muon_is_no_outer_optimizer():
    assert "muon" in OPTIMIZERS
    assert "muon" not in OUTER_OPTIMIZERS
