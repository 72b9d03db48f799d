"""Delay compensation, against the formulas written out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geojax.errors import ConfigError
from geojax.sync.compensation import adaptive, build_compensation, constant

values = arrays(np.float32, 5, elements=st.floats(-10, 10, width=32))
both = pytest.mark.parametrize("rule", [constant, adaptive])


@given(gradient=values, now=values, backup=values)
def test_constant_is_the_first_order_term_with_the_squared_gradient(gradient, now, backup):
    rule = constant(lam=0.04)
    found, state = rule.apply(gradient, now, backup, rule.init(5))
    expected = [
        float(g) + 0.04 * float(g) ** 2 * (float(w) - float(b))
        for g, w, b in zip(gradient, now, backup, strict=True)
    ]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    assert state == {}


@given(gradients=st.lists(values, min_size=1, max_size=4), now=values, backup=values)
def test_adaptive_divides_by_the_root_mean_square_of_all_gradients_so_far(gradients, now, backup):
    rule = adaptive(lam=2.0)
    state = rule.init(5)
    mean_square = np.zeros(5)
    for gradient in gradients:
        found, state = rule.apply(gradient, now, backup, state)
        g = gradient.astype(np.float64)
        mean_square = 0.95 * mean_square + 0.05 * g * g
        expected = g + 2.0 / np.sqrt(mean_square + 1e-7) * g * g * (now.astype(float) - backup)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(state["mean_square"], mean_square, rtol=1e-4, atol=1e-7)


@both
@given(gradient=values, now=values)
def test_it_vanishes_without_delay(rule, gradient, now):
    found, _ = rule().apply(gradient, now, now, rule().init(5))
    np.testing.assert_array_equal(found, gradient)


@both
@given(gradient=values, now=values, backup=values)
def test_lambda_zero_is_none(rule, gradient, now, backup):
    found, _ = rule(lam=0.0).apply(gradient, now, backup, rule().init(5))
    np.testing.assert_array_equal(found, gradient)


@both
def test_its_arguments_stay_as_they_are(rule):
    gradient, now, backup = (np.full(3, x, np.float32) for x in (1, 2, 3))
    state = rule().init(3)
    kept = {key: value.copy() for key, value in state.items()}
    rule().apply(gradient, now, backup, state)
    assert [gradient[0], now[0], backup[0]] == [1, 2, 3]
    assert {key: value.tolist() for key, value in state.items()} == {
        key: value.tolist() for key, value in kept.items()
    }


def test_the_published_constants_are_the_defaults():
    one = np.ones(1, np.float32)
    assert constant().apply(one, one, 0 * one, {})[0] == pytest.approx(1.04)
    rule = adaptive()
    found, _ = rule.apply(one, one, 0 * one, rule.init(1))
    assert found[0] == pytest.approx(1 + 2 / np.sqrt(0.05 + 1e-7))


def test_they_are_built_by_their_configured_names():
    assert build_compensation("none", None) is None
    built = [build_compensation(name, None) for name in ("constant", "adaptive")]
    assert [(rule.name, rule.needs_backup) for rule in built] == [
        ("constant", True), ("adaptive", True)
    ]  # fmt: skip
    one = np.ones(1, np.float32)
    rule = build_compensation("constant", 0.5)
    assert rule.apply(one, one, 0 * one, {})[0] == 1.5


@pytest.mark.parametrize(
    ("name", "lam", "key", "says"),
    [
        ("constnat", None, "sync.compensation", "did you mean 'constant'"),
        ("constant", -0.1, "sync.lam", "use 0 or a small positive number"),
        ("adaptive", float("nan"), "sync.lam", "use 0 or a small positive number"),
        ("none", 0.04, "sync.lam", "set sync.compensation"),
    ],
)
def test_bad_settings_are_refused(name, lam, key, says):
    with pytest.raises(ConfigError, match=says) as caught:
        build_compensation(name, lam)
    assert caught.value.key == key
