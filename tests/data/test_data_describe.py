"""The command line that describes a partition."""

import json
import math

import numpy as np
import pytest

from geojax.config import DataConfig
from geojax.data import PARTITIONS, load_dataset, partition
from geojax.data.__main__ import main
from geojax.data.describe import class_shares, describe
from geojax.data.partitions import DirichletConfig

DIRICHLET = ["describe", "--data", "digits", "--partition", "dirichlet", "--alpha", "0.3"]
SIX_WORKERS = ["--centers", "3", "--workers", "2", "--seed", "5"]


def test_entropy_and_distance():
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    parts = {"a": np.array([0, 1]), "b": np.array([2, 3, 4, 5, 6, 7]), "c": np.arange(8)}
    a, b, c = describe(parts, labels, classes=5)
    assert a.labels == [2, 0, 0, 0, 0]
    assert (a.entropy, a.distance) == (0, 0.75)
    assert math.copysign(1, a.entropy) == 1
    assert b.entropy == pytest.approx(math.log(3))
    assert b.distance == pytest.approx(0.25)
    assert c.entropy == pytest.approx(math.log(4))
    assert c.distance == 0


def test_json_is_what_a_run_would_use(capsys):
    assert main([*DIRICHLET, *SIX_WORKERS, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    labels = load_dataset(DataConfig("digits")).train_y
    names = [f"c{c}/w{w}" for c in (1, 2, 3) for w in (0, 1)]
    parts = partition(DirichletConfig(alpha=0.3), labels, names, 5)
    assert [worker["worker"] for worker in answer["workers"]] == names
    for worker in answer["workers"]:
        counts = np.bincount(labels[parts[worker["worker"]]], minlength=10)
        assert worker["labels"] == counts.tolist()
        assert worker["samples"] == counts.sum()
    assert answer["partition"] == {"name": "dirichlet", "alpha": 0.3}
    assert (answer["data"], answer["samples"], answer["seed"]) == ("digits", 1437, 5)


def test_class_shares_are_those_of_all_samples(capsys):
    labels = load_dataset(DataConfig("digits")).train_y
    assert main([*DIRICHLET, "--classes", "--format", "json"]) == 0
    shares = json.loads(capsys.readouterr().out)["shares"]
    expected = np.bincount(labels) / len(labels)
    assert shares == {str(label): share for label, share in enumerate(expected)}
    assert main([*DIRICHLET, "--classes"]) == 0
    assert f"class shares: 0 {expected[0]:.3f}, 1 {expected[1]:.3f}, 2" in capsys.readouterr().out


def test_characters_have_shares_by_kind():
    labels = np.array([0, 9, 10, 35, 36, 61, 61, 61])
    shares = class_shares(labels, 62)
    assert (shares["digits"], shares["capitals"], shares["small letters"]) == (0.25, 0.25, 0.5)
    assert (shares["A"], shares["Z"], shares["a"], shares["z"]) == (0.125, 0.125, 0.125, 0.375)


def test_the_table_shows_every_number_however_narrow_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    assert main([*DIRICHLET, *SIX_WORKERS]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert main([*DIRICHLET, *SIX_WORKERS, "--format", "json"]) == 0
    for worker in json.loads(capsys.readouterr().out)["workers"]:
        row = rows[worker["worker"]]
        assert int(row[1]) == worker["samples"]
        assert [0 if cell == "·" else int(cell) for cell in row[2:12]] == worker["labels"]
        assert row[12:] == [f"{worker['entropy']:.3f}", f"{worker['distance']:.3f}"]
    assert rows["all"][1] == "1437"
    assert "dirichlet, alpha 0.3, seed 5" in out


@pytest.mark.parametrize("name", sorted(set(PARTITIONS) - {"by_writer"}))
def test_every_partition_can_be_shown(name, capsys):
    assert main(["describe", "--data", "digits", "--partition", name]) == 0
    assert f"digits: {name}" in capsys.readouterr().out


BY_WRITER = ["describe", "--data", "synth_femnist", "--partition", "by_writer", "--centers", "2"]
SMALL = ["data.writers=8", "data.test_writers=1", "data.size=0.2"]


def test_devices_and_writers_are_shown(capsys, nowhere):
    asked = [*BY_WRITER, "--devices", "writers", "--writer-effect", *SMALL]
    assert main([*asked, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert sum(fleet["devices"] for fleet in answer["devices"]) == 8
    for fleet, worker in zip(answer["devices"], answer["workers"], strict=True):
        assert fleet["devices"] == fleet["writers"]
        assert fleet["mean"] * fleet["devices"] == pytest.approx(worker["samples"])
        assert fleet["fewest"] <= fleet["mean"] <= fleet["most"]
        assert worker["distance"] < fleet["distance"] < 1
    assert answer["writers"]["writers"] == 8
    assert 0.3 < answer["writers"]["ratio"] < 0.8
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "synth_femnist: by_writer, seed 0" in out
    assert "devices behind each worker" in out
    assert f"ratio {answer['writers']['ratio']:.3f}" in out


def test_a_given_number_of_devices_by_their_own_partition(capsys):
    more = ["--devices", "5", "--device-partition", "shards", "device_partition.shards=1"]
    assert main([*DIRICHLET, *more, "--format", "json"]) == 0
    fleets = json.loads(capsys.readouterr().out)["devices"]
    assert [fleet["devices"] for fleet in fleets] == [5, 5, 5]
    assert all(1 <= fleet["classes"] <= 4 and fleet["writers"] == 0 for fleet in fleets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digit"], "did you mean 'digits'"),
        (["--data", "digits", "--partition", "dirichlett"], "did you mean 'dirichlet'"),
        (["--data", "digits", "--centers", "1438"], "1438 in all, but the data has 1437"),
        (["--data", "digits", "--centers", "0"], "--centers = 0: use at least 1"),
        (["--data", "digits", "--train-samples", "9999"], "data.train_samples = 9999"),
        (["--data", "digits", "--devices", "few"], "--devices = 'few': give a number"),
        (["--data", "digits", "--devices", "writers"], "device_partition.name = 'by_writer'"),
        (["--data", "digits", "--writer-effect"], "does not say who wrote"),
        (["--data", "digits", "data.no=1"], "data.no = 1: no such key"),
        (["--data", "digits", "lr=1"], "settings = 'lr=1': write KEY=VALUE"),
        (["--data", "digits", "--devices", "40", "--batch-size", "64"], "fewer than half a batch"),
        (["--path", "/no/such/folder"], "data.path = '/no/such/folder'"),
    ],
)
def test_mistakes_end_with_their_fix_on_stderr(arguments, message, capsys):
    assert main(["describe", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err


def test_help_names_every_choice(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["describe", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for part in ("dirichlet", "size_skew", "fashion_mnist", "--train-samples", "examples:"):
        assert part in out


def test_keys_may_stand_between_options(capsys):
    apart = [*DIRICHLET[:-2], "partition.alpha=0.3", *SIX_WORKERS, "partition.min_samples=3"]
    assert main([*apart, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["partition"] == {"name": "dirichlet", "alpha": 0.3, "min_samples": 3}
    with pytest.raises(SystemExit):
        main([*DIRICHLET, "--mistyped", "3"])
    assert "unrecognized arguments: --mistyped" in capsys.readouterr().err
