"""The bench of unseen writers: what it counts, and that what it trains has learned."""

import numpy as np
import pytest

from experiments.bench import unseen_writers
from experiments.bench.unseen_writers import judge, train
from geojax.data import Dataset


def test_accuracies_and_confusions_are_counts():
    labels = np.array([0, 0, 0, 12, 12, 50, 50, 50, 50])
    said = np.array([0, 24, 24, 12, 38, 24, 24, 24, 50])
    figures = judge(labels, said, most=2)
    assert figures.accuracy == pytest.approx(3 / 9)
    assert figures.by_kind == {"digits": 1 / 3, "capitals": 1 / 2, "small letters": 1 / 4}
    assert figures.confusions == [("o > O", 3), ("0 > O", 2)]
    assert judge(labels[:1], said[:1]).confusions == []


def test_a_model_learns_what_can_be_learned():
    labels = np.tile(np.arange(10, dtype=np.int32), 64)
    draws = np.random.default_rng(0)
    shapes = draws.random((10, 8, 8, 1))
    images = (shapes[labels] + 0.1 * draws.random((640, 8, 8, 1))).astype(np.float32)
    data = Dataset("own", images[:600], labels[:600], images[600:], labels[600:], 10)
    said = train(data, "mlp", epochs=8, batch=20, lr=0.003, seed=0)
    assert judge(data.test_y, said).accuracy > 0.9


def test_data_that_names_no_writers_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["unseen_writers", "--data", "digits"])
    assert unseen_writers.main() == 2
    assert "does not say who wrote its samples" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["unseen_writers", "lr=1"])
    assert unseen_writers.main() == 2
    assert "write data.KEY=VALUE" in capsys.readouterr().err
