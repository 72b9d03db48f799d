"""Own models, data and losses in whole runs: sequences, numbers, and settings from a dataclass."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from simulated_runs import simulated, small_config

from geojax.center.inputs import inputs_of
from geojax.center.trainer import build_spec
from geojax.config import DataConfig, ModelConfig
from geojax.data.npz import NpzConfig
from geojax.errors import ConfigError
from geojax.models.inputs import Inputs, Values
from geojax.models.losses import LOSSES, Loss
from geojax.models.registry import MODELS, MlpConfig, ModelInfo, model_info
from testbed.run import run

LETTERS = 6


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def chain(samples: int, length: int, generator: np.random.Generator) -> np.ndarray:
    """Sequences of a Markov chain: a letter is followed by the next one, nine times in ten."""
    letters = np.empty((samples, length), np.int64)
    letters[:, 0] = generator.integers(0, LETTERS, samples)
    for place in range(1, length):
        jump = generator.integers(0, LETTERS, samples)
        follows = generator.random(samples) < 0.9
        letters[:, place] = np.where(follows, (letters[:, place - 1] + 1) % LETTERS, jump)
    return letters


@pytest.fixture
def letters(tmp_path) -> NpzConfig:
    generator = np.random.default_rng(0)
    path = tmp_path / "letters.npz"
    np.savez(path, train_x=chain(240, 9, generator), test_x=chain(60, 9, generator))
    return NpzConfig(path=str(path))


class Letters(nn.Module):
    """The next token by the one before it alone."""

    outputs: int
    tokens: int
    width: int
    dropout: float

    @nn.compact
    def __call__(self, samples: jax.Array, *, train: bool = False) -> jax.Array:
        seen = self.variable("counters", "batches", lambda: jnp.zeros((), jnp.int32))
        if train:
            seen.value += 1
        hidden = nn.Embed(self.tokens, self.width)(samples)
        hidden = nn.Dropout(self.dropout, deterministic=not train)(hidden)
        return nn.Dense(self.outputs)(hidden)


@dataclass
class LettersConfig(ModelConfig):
    name: str = "letters"
    width: int = 8
    dropout: float = 0.1


def letters_model(config: LettersConfig) -> ModelInfo:
    def build(inputs: Inputs) -> nn.Module:
        tokens = inputs.sample.classes
        return Letters(inputs.outputs, tokens, config.width, config.dropout)

    return ModelInfo(0.01, build)


@pytest.fixture
def own_model(monkeypatch):
    monkeypatch.setitem(MODELS._members, "letters", letters_model)
    monkeypatch.setitem(MODELS._schemas, "letters", LettersConfig)


def letters_run(data: DataConfig, **settings):
    return small_config(**{
        "model": LettersConfig(width=12), "data": data, "loss": "next_token", "lr": 1.0,
        "batch_size": 8, "rounds": 40, "eval_every_s": 1.0, **settings,
    })  # fmt: skip


@pytest.mark.usefixtures("own_model")
def test_an_own_sequence_model_learns_own_data(letters):
    config = letters_run(letters, workers=2)
    assert inputs_of(letters) == Inputs(Values((8,), LETTERS), Values((8,), LETTERS))
    assert build_spec(config).layers[0].shape == (LETTERS, 12)
    outcome = simulated(config)
    first, *_, last = outcome.of("evaluation")
    assert first["loss"] == pytest.approx(np.log(LETTERS), abs=1.0)
    assert last["accuracy"] > 0.8  # at most 0.9 + 0.1 / LETTERS
    assert last["loss"] < 0.8
    assert len({digest for _, digest in outcome.finals.values()}) == 1
    again = simulated(letters_run(letters, workers=2))
    assert again.lines() == outcome.lines()


@pytest.mark.usefixtures("own_model")
def test_a_name_alone_is_the_model_with_its_defaults():
    config = ModelConfig("letters", pace_s=0.5)
    assert MODELS.complete(config) == LettersConfig(pace_s=0.5)
    assert model_info(config).pace_s == 0.01


@pytest.mark.usefixtures("own_model")
def test_what_does_not_go_together_is_refused(letters):
    refused = {
        r"loss = 'cross_entropy': .*choose another loss": {"loss": "cross_entropy"},
        r"model\.name = 'demo_cnn': takes images .* int32 samples of shape \(8,\)": {
            "model": ModelConfig("demo_cnn")
        },
        r"partition\.name = 'by_class': goes by labels": {"partition__name": "by_class"},
        r"loss = 'next_tokn': did you mean 'next_token'": {"loss": "next_tokn"},
    }
    for message, settings in refused.items():
        with pytest.raises(ConfigError, match=message):
            simulated(letters_run(letters, **settings))


def numbers(path) -> NpzConfig:
    """Targets that are a linear function of the samples."""
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(5, 2))
    x = {"train_x": generator.normal(size=(120, 5)), "test_x": generator.normal(size=(30, 5))}
    y = {name.replace("_x", "_y"): each @ weights for name, each in x.items()}
    np.savez(path / "numbers.npz", **x, **y)
    return NpzConfig(path=str(path / "numbers.npz"))


def numbers_run(folder, **settings):
    return small_config(**{
        "model": MlpConfig("mlp", hidden=[]), "data": numbers(folder), "loss": "mse", "lr": 0.2,
        "batch_size": 8, "rounds": 60, "eval_every_s": 1.0, **settings,
    })  # fmt: skip


def test_a_linear_model_finds_a_linear_function(tmp_path):
    summary = run(numbers_run(tmp_path), tmp_path / "run")
    assert summary["final_loss"] < 1e-4
    assert not {"final_accuracy", "time_to_target_s"} & summary.keys()
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    evaluations = [line for line in lines if '"evaluation"' in line]
    assert all('"absolute_error"' in line and '"accuracy"' not in line for line in evaluations)


def test_a_loss_without_accuracy_cannot_stop_at_one(tmp_path):
    with pytest.raises(ConfigError, match=r"stop_at_target = True: loss=mse has no accuracy"):
        simulated(numbers_run(tmp_path, stop_at_target=True))


def test_an_own_loss_trains(tmp_path, monkeypatch):
    def huber() -> Loss:
        import optax

        return Loss(lambda outputs, targets: optax.huber_loss(outputs, targets).mean(axis=1))

    monkeypatch.setitem(LOSSES._members, "huber", huber)
    first, *_, last = simulated(numbers_run(tmp_path, loss="huber")).of("evaluation")
    assert set(first) == set(last) >= {"loss"}
    assert not {"accuracy", "absolute_error"} & set(first)
    assert last["loss"] < first["loss"] / 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": [64, 0]}, r"model\.hidden = \[64, 0\]: write a list of widths"),
        ({"dropout": 1.0}, r"model\.dropout = 1\.0: give a finite number: at least 0, less than 1"),
        ({"dropout": float("nan")}, r"model\.dropout = nan"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        model_info(MlpConfig("mlp", **settings))


def test_hyper_parameters_shape_the_model():
    config = small_config(model=MlpConfig("mlp", hidden=[128, 64]), data__name="digits")
    shapes = [layer.shape for layer in build_spec(config).layers if len(layer.shape) == 2]
    assert shapes == [(64, 128), (128, 64), (64, 10)]
    config.model.hidden = [32]
    assert build_spec(config).layers[0].shape == (64, 32)
