"""The losses: their formulas, what they refuse, and own ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from geojax.center.network import Network
from geojax.errors import ConfigError
from geojax.models.inputs import Inputs, Values, labelled
from geojax.models.losses import LOSSES, Loss

DRAW = np.random.default_rng(0)


def entropies(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """One number a target, in double precision."""
    logits = logits.astype(np.float64)
    chosen = np.take_along_axis(logits, targets[..., np.newaxis], axis=-1)[..., 0]
    return np.log(np.exp(logits).sum(axis=-1)) - chosen


def test_cross_entropy_and_the_share_of_right_answers():
    logits, labels = DRAW.normal(size=(6, 4)).astype(np.float32), DRAW.integers(0, 4, 6)
    loss = LOSSES["cross_entropy"]()
    np.testing.assert_allclose(loss.per_example(logits, labels), entropies(logits, labels), 1e-5)
    assert loss.metric == "accuracy"
    assert np.array_equal(loss.measure(logits, labels), logits.argmax(axis=1) == labels)


def test_next_token_is_a_mean_over_positions():
    logits = DRAW.normal(size=(3, 5, 4)).astype(np.float32)
    tokens = DRAW.integers(0, 4, (3, 5))
    loss = LOSSES["next_token"]()
    expected = entropies(logits, tokens).mean(axis=1)
    np.testing.assert_allclose(loss.per_example(logits, tokens), expected, rtol=1e-5)
    right = (logits.argmax(axis=-1) == tokens).mean(axis=1)
    np.testing.assert_allclose(loss.measure(logits, tokens), right, rtol=1e-6)


@pytest.mark.parametrize(
    ("made", "wanted"), [((6, 3), (6, 3)), ((6, 4), (6, 2, 2)), ((6, 1), (6,))]
)
def test_mse_is_over_all_numbers_of_a_target(made, wanted):
    outputs, targets = (DRAW.normal(size=each).astype(np.float32) for each in (made, wanted))
    loss = LOSSES["mse"]()
    error = (outputs - targets.reshape(made)).astype(np.float64)
    np.testing.assert_allclose(loss.per_example(outputs, targets), (error**2).mean(axis=1), 1e-5)
    assert loss.metric == "absolute_error"
    np.testing.assert_allclose(loss.measure(outputs, targets), np.abs(error).mean(axis=1), 1e-5)


class Wide(nn.Module):
    """So many outputs, whatever comes in."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, samples: jax.Array, *, train: bool = False) -> jax.Array:
        flat = samples.reshape((len(samples), -1)).astype(jnp.float32)
        return nn.Dense(int(np.prod(self.shape)))(flat).reshape((len(samples), *self.shape))


LABELS, SEQUENCES = labelled((4,), 3), Inputs(Values((5,), 7), Values((5,), 7))
NUMBERS = Inputs(Values((4,)), Values((2,)))


@pytest.mark.parametrize(
    ("loss", "shape", "inputs"),
    [
        ("cross_entropy", (5, 7), SEQUENCES),
        ("cross_entropy", (2,), NUMBERS),
        ("next_token", (3,), LABELS),
        ("next_token", (7,), SEQUENCES),
        ("mse", (3,), LABELS),
        ("mse", (3,), NUMBERS),
    ],
)
def test_outputs_and_targets_that_do_not_go_together_are_refused(loss, shape, inputs):
    with pytest.raises(ConfigError, match=rf"loss = '{loss}': .* outputs of shape \(2, .*targets"):
        Network(Wide(shape), inputs, loss)


def test_a_wrong_name_names_the_nearest():
    with pytest.raises(ConfigError, match=r"loss = 'next_tokens': did you mean 'next_token'"):
        Network(Wide((3,)), LABELS, "next_tokens")


def test_an_own_loss_needs_no_metric_and_one_number_an_example(monkeypatch):
    def absolute() -> Loss:
        return Loss(lambda outputs, targets: jnp.abs(outputs - targets).mean(axis=-1))

    def summed() -> Loss:
        return Loss(lambda outputs, targets: jnp.abs(outputs - targets).sum())

    for make in (absolute, summed):
        monkeypatch.setitem(LOSSES._members, make.__name__, make)
    network = Network(Wide((2,)), NUMBERS, "absolute")
    vector, _ = network.initial(0)
    zeros, ones = np.zeros((3, 4), np.float32), np.ones((3, 2), np.float32)
    judged = network.judge(jnp.asarray(vector), {}, zeros, ones, np.array([1, 1, 0], np.float32))
    assert {name: float(value) for name, value in judged.items()} == {"loss": 2.0}
    with pytest.raises(ConfigError, match=r"loss = 'summed': .*makes \(\), not one number"):
        Network(Wide((2,)), NUMBERS, "summed")
