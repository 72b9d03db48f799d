"""Evaluation against a plain numpy loop."""

from __future__ import annotations

import numpy as np
import pytest

from geojax.center.evaluate import build_evaluator
from geojax.center.inputs import inputs_of
from geojax.center.trainer import build_spec, initial_vector
from geojax.config import DataConfig, ModelConfig, RunConfig
from geojax.data.dataset import DATASETS, Stored
from geojax.errors import DataError, Diverged
from geojax.models.inputs import labelled


def run_config(model: str = "mlp") -> RunConfig:
    return RunConfig(model=ModelConfig(name=model), data=DataConfig(name="digits"))


def samples(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    return generator.random((count, 8, 8, 1), np.float32), generator.integers(0, 10, count)


def plain(vector: np.ndarray, features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """One sample at a time, in double precision."""
    layers = build_spec(run_config()).split(vector)
    layers = {name: values.astype(np.float64) for name, values in layers.items()}
    right, loss = 0, 0.0
    for image, label in zip(features, labels, strict=True):
        hidden = np.maximum(
            image.reshape(-1) @ layers["Dense_0/kernel"] + layers["Dense_0/bias"], 0
        )
        logits = hidden @ layers["Dense_1/kernel"] + layers["Dense_1/bias"]
        right += int(np.argmax(logits) == label)
        loss += np.log(np.exp(logits).sum()) - logits[label]
    return {"accuracy": right / len(labels), "loss": loss / len(labels)}


@pytest.mark.parametrize("count", [1, 499, 500, 501, 1203])
def test_figures_are_those_of_a_plain_loop(count):
    features, labels = samples(count)
    vector = initial_vector(run_config()) * 2
    evaluate = build_evaluator(run_config(), features, labels)
    found, expected = evaluate(vector), plain(vector, features, labels)
    assert found["accuracy"] == expected["accuracy"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert evaluate(vector) == found
    vector[:] = 0  # the evaluator keeps nothing of it
    assert evaluate(vector)["loss"] == pytest.approx(np.log(10), rel=1e-6)


def test_float_state_is_used():
    features, labels = samples(20)
    config = run_config("cnn_batchnorm")
    vector, spec = initial_vector(config), build_spec(config)
    evaluate = build_evaluator(config, features, labels)
    before = evaluate(vector)
    spec.split(vector)["batch_stats/BatchNorm_1/var"][:] = 50
    assert evaluate(vector)["loss"] != before["loss"]


def test_nothing_is_silent():
    features, labels = samples(20)
    evaluate = build_evaluator(run_config(), features, labels)
    with pytest.raises(ValueError, match=r"evaluate: expected float32 of shape \(4810,\)"):
        evaluate(np.zeros(10, np.float32))
    with pytest.raises(Diverged, match="test loss is not finite"):
        evaluate(np.full(4810, np.nan, np.float32))
    with pytest.raises(DataError, match="0 samples"):
        build_evaluator(run_config(), features[:0], labels[:0])


def test_inputs_of_a_data_set_without_an_entry_are_read_from_it(monkeypatch):
    def tiny(config: DataConfig) -> Stored:
        images = np.zeros((4, 6, 5), np.uint8)
        labels = np.array([0, 1, 2, 0])
        return Stored(images, labels, images, labels, 3, 255.0)

    monkeypatch.setitem(DATASETS._members, "tiny", tiny)
    assert inputs_of(DataConfig(name="tiny")) == labelled((6, 5, 1), 3)


def test_known_inputs_are_those_of_the_data():
    from geojax.data.dataset import load_dataset

    digits = load_dataset(DataConfig(name="digits", train_samples=10, test_samples=10))
    known = inputs_of(DataConfig(name="digits"))
    assert known == labelled(digits.train_x.shape[1:], digits.classes)
