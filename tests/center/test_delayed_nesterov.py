"""Delayed Nesterov, against a plain loop and against SGD with Nesterov's momentum."""

import numpy as np
import pytest

from geojax.center.delayed_nesterov import DelayedNesterovConfig
from geojax.center.optimizers import SgdConfig, check_optimizer
from geojax.center.outer import FlatOptimizer
from geojax.center.spec import VectorSpec
from geojax.errors import ConfigError

SPEC = VectorSpec.of([("w", (30,))], [("mean", (3,))])


def vectors(count):
    generator = np.random.default_rng(2)
    return [generator.standard_normal(SPEC.size, np.float32) for _ in range(count)]


def trained(config, lr=0.3, count=11):
    vector, *gradients = vectors(count)
    outer = FlatOptimizer(config, lr, SPEC)
    for gradient in gradients:
        vector = outer.apply(vector, gradient)
    return vector


def plain_loop(rate, size, beta, c, count=11):
    """Liu et al. (2024), Algorithm 3, in float64."""
    theta, *gradients = (each[:30].astype(np.float64) for each in vectors(count))
    m, total = np.zeros(30), np.zeros(30)
    for t, g in enumerate(gradients):
        total = total + g
        if (t + 1) % size == 0:
            m = beta * m + total / size
            theta = theta - rate * ((1 - c * size + c) * beta * m + g / size)
            total = np.zeros(30)
        else:
            theta = theta - rate * (c * beta * m + g / size)
    return theta


@pytest.mark.parametrize(("size", "c"), [(1, 0.0), (3, 0.0), (3, 0.2), (4, 0.25), (20, 0.0)])
def test_it_equals_a_plain_loop(size, c):
    config = DelayedNesterovConfig(buffer=size, momentum=0.8, activation=c)
    moved = trained(config)
    np.testing.assert_allclose(moved[:30], plain_loop(0.3, size, 0.8, c), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(moved[30:], vectors(11)[-1][30:])


def test_with_a_buffer_of_one_it_is_nesterovs_sgd():
    one = trained(DelayedNesterovConfig(buffer=1, momentum=0.9))
    two = trained(SgdConfig(momentum=0.9, nesterov=True))
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_its_state_goes_on_where_it_was():
    config = DelayedNesterovConfig(buffer=3)
    vector, *gradients = vectors(8)
    whole, first, second = (FlatOptimizer(config, 0.3, SPEC) for _ in range(3))
    expected = moved = vector
    for at, gradient in enumerate(gradients):
        expected = whole.apply(expected, gradient)
        if at == 4:
            second.load_state(first.state_dict())
        moved = (first if at < 4 else second).apply(moved, gradient)
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"buffer": 4, "activation": 0.3}, r"activation = 0\.3: at most 1/N = 0\.25, .*buffer = 4"),
        ({"buffer": 0}, r"buffer = 0: .*at least 1"),
        ({"weight_decay": 0.1}, r"weight_decay = 0\.1: .*has none"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=rf"outer_optimizer\.{message}"):
        check_optimizer(DelayedNesterovConfig(**settings), 0.7, key="outer_optimizer")
