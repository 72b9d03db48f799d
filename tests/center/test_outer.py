"""The outer optimizer on flat vectors."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from geojax.center.optimizers import SgdConfig
from geojax.center.outer import FlatOptimizer, PlainSgd, build_outer_optimizer
from geojax.center.spec import VectorSpec
from geojax.config import OptimizerConfig
from geojax.errors import ConfigError

SPEC = VectorSpec.of([("w", (40, 5)), ("b", (5,))], [("mean", (7,))])
SGD, ADAM = OptimizerConfig(), OptimizerConfig(name="adam")


def vectors(count: int) -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return [generator.standard_normal(SPEC.size, np.float32) for _ in range(count)]


@pytest.mark.parametrize(
    ("config", "optimizer"),
    [
        (SgdConfig(momentum=0.9, nesterov=True), optax.sgd(0.1, 0.9, nesterov=True)),
        (ADAM, optax.adam(0.1)),
        (
            OptimizerConfig(clip_norm=1.0),
            optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)),
        ),
    ],
)
def test_parameters_take_optax_steps_and_state_is_taken_over(config, optimizer):
    vector, *gradients = vectors(4)
    outer = FlatOptimizer(config, 0.1, SPEC)
    expected = vector[: SPEC.parameters]
    state = optimizer.init(expected)
    for gradient in gradients:
        before = vector.copy(), gradient.copy()
        moved = outer.apply(vector, gradient)
        assert np.array_equal(before, (vector, gradient))  # inputs stay as they are
        updates, state = optimizer.update(gradient[: SPEC.parameters], state, expected)
        expected = np.asarray(optax.apply_updates(expected, updates))
        np.testing.assert_allclose(moved[: SPEC.parameters], expected, rtol=1e-6, atol=1e-6)
        assert np.array_equal(moved[SPEC.parameters :], gradient[SPEC.parameters :])
        vector = moved


def test_the_result_is_fresh_memory():
    vector, gradient = vectors(2)
    outer = FlatOptimizer(SGD, 0.1, SPEC)
    moved = outer.apply(vector, gradient)
    kept = moved.copy()
    vector[:] = gradient[:] = 0
    moved += 1  # writable
    moved -= 1
    assert np.allclose(moved, kept, atol=1e-6)
    assert not np.shares_memory(moved, vector)


def test_init_forgets_and_a_restored_state_goes_on():
    vector, first, second = vectors(3)
    outer = FlatOptimizer(ADAM, 0.1, SPEC)
    moved = outer.apply(vector, first)
    state = outer.state_dict()
    last = outer.apply(moved, second)
    other = FlatOptimizer(ADAM, 0.1, SPEC)
    other.load_state(state)
    assert other.apply(moved, second).tobytes() == last.tobytes()
    outer.init(vector)
    assert outer.apply(vector, first).tobytes() == moved.tobytes()
    with pytest.raises(ValueError, match="outer optimizer: leaves missing or unknown"):
        FlatOptimizer(SGD, 0.1, SPEC).load_state(state)


def test_outer_state_is_advanced_in_place():
    vector, first, second = vectors(3)
    outer = FlatOptimizer(ADAM, 0.1, SPEC)
    outer.apply(vector, first)
    outer.state_dict()
    at = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(outer._state)}
    outer.apply(vector, second)
    assert {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(outer._state)} == at


def test_plain_sgd_of_length_one_takes_the_delta_exactly():
    vector = np.array([3.0, -2.0, *[0.0] * (SPEC.size - 2)], np.float32)
    delta = np.array([1.0, -5.0, *[2.0] * (SPEC.size - 2)], np.float32)
    moved = PlainSgd(1.0, SPEC).apply(vector, delta)
    assert np.array_equal(moved[: SPEC.parameters], (vector - delta)[: SPEC.parameters])
    assert np.array_equal(moved[SPEC.parameters :], delta[SPEC.parameters :])


def test_plain_sgd_agrees_with_optax():
    vector, gradient = vectors(2)
    plain = build_outer_optimizer(SGD, 0.1, SPEC, synthetic=True)
    assert isinstance(plain, PlainSgd)
    plain.init(vector)
    plain.load_state(plain.state_dict())
    flat = build_outer_optimizer(SGD, 0.1, SPEC)
    np.testing.assert_allclose(
        plain.apply(vector, gradient), flat.apply(vector, gradient), rtol=1e-6, atol=1e-7
    )
    with pytest.raises(ValueError, match="leaves unknown: count"):
        plain.load_state({"count": np.zeros(())})


@pytest.mark.parametrize("synthetic", [False, True])
def test_wrong_vectors_are_refused(synthetic):
    outer = build_outer_optimizer(SGD, 0.1, SPEC, synthetic=synthetic)
    (vector,) = vectors(1)
    for wrong in ((vector[1:], vector), (vector, vector[1:]), (vector.astype(float), vector)):
        with pytest.raises(ValueError, match=r"expected float32 of shape \(212,\)"):
            outer.apply(*wrong)


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match=r"outer_optimizer\.name = 'auto'"):
        build_outer_optimizer(OptimizerConfig(name="auto"), 0.1, SPEC)
    with pytest.raises(ConfigError, match=r"outer_optimizer\.name = 'adam': a synthetic model"):
        build_outer_optimizer(ADAM, 0.1, SPEC, synthetic=True)
    with pytest.raises(ConfigError, match=r"outer_optimizer\.lr = 0"):
        build_outer_optimizer(SGD, 0.0, SPEC, synthetic=True)
