"""Columns from the accuracy over a run's course: at an equal cost, until another row's best."""

from __future__ import annotations

import json

import pytest
from run_folders import write_run

from experiments.table import __main__ as table
from experiments.table.formats import FORMATS
from geojax.errors import ConfigError, GeojaxError

FEDAVG, IDA = {"sync.name": "fedavg"}, {"sync.name": "ida"}


def write_curve(folder, settings, accuracies, *, samples, **summary):
    """A run evaluated every second, from second 0 and before its first round."""
    seconds = len(accuracies) - 1
    write_run(folder, settings, samples=samples, time_s=float(seconds), rounds=seconds,
              final_accuracy=accuracies[-1], best_accuracy=max(accuracies), **summary)  # fmt: skip
    events = [
        {"t": float(t), "node": "c1", "event": "evaluation", "round": t - 1, "accuracy": accuracy}
        for t, accuracy in enumerate(accuracies)
    ]
    events.insert(1, {"t": 0.5, "node": "c1", "event": "round", "round": 0, "held": 0.5})
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))


@pytest.fixture
def sweep(tmp_path):
    write_curve(tmp_path / "0", FEDAVG | {"seed": 0}, [0.1, 0.4, 0.5, 0.6, 0.2], samples=400)
    write_curve(tmp_path / "1", FEDAVG | {"seed": 1}, [0.1, 0.4, 0.6, 1.0, 0.8], samples=400)
    write_curve(tmp_path / "2", IDA, [0.1, 0.5, 0.6, 0.9, 0.7, 0.7, 0.8, 0.9, 0.3], samples=1600)
    return tmp_path


def test_accuracy_at_what_the_cheapest_run_spent(sweep):
    built = table.build([sweep], columns=["samples"], equal="samples")
    assert "accuracy at 400 samples" in [column.header for column in built.columns]
    assert [row["accuracy_at_equal_samples"] for row in built.values] == [
        pytest.approx((0.2 + 0.8) / 2),
        0.6,  # 1,600 samples in 8 s: 400 after 2 s
    ]
    by_rounds = table.build([sweep], columns=["rounds"], equal="rounds")
    # IDA takes two exchanges a federated round: four of these are all eight exchanges
    assert [row["accuracy_at_equal_rounds"] for row in by_rounds.values] == [
        pytest.approx(0.5),
        0.3,
    ]


def test_accuracy_at_a_cost_is_absent_where_a_run_spent_less(sweep):
    built = table.build([sweep], columns=["samples"], at=("time_s", 3.0))
    assert "accuracy at 3 s" in [column.header for column in built.columns]
    found = [row["accuracy_at_time_s"] for row in built.values]
    assert found == [pytest.approx((0.6 + 1.0) / 2), 0.9]
    later = table.build([sweep], columns=["samples"], at=("time_s", 8.0))
    assert [row["accuracy_at_time_s"] for row in later.values] == [None, 0.3]


@pytest.mark.parametrize("wrong", ["time_s", "time_s=", "time_s=-1", "hours=3", "time_s=nan"])
def test_a_wrong_cost_is_refused(wrong, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["table", ".", "--at", wrong])
    with pytest.raises(SystemExit):
        table.main()
    assert "COST=AMOUNT" in capsys.readouterr().err


def test_rounds_and_time_until_the_best_of_a_row(sweep):
    built = table.build([sweep], columns=["rounds"], best_of={"sync": "fedavg"})
    # best means of three in a row: 0.5 and 0.8, so 0.65 is looked for
    headers = [column.header for column in built.columns]
    assert {"rounds to 0.650", "time to 0.650 (s)"} <= set(headers)
    first, second = built.values
    assert (first["rounds_to_best"], first["time_to_best_s"]) == (3, 3.0)  # seed 1, the only one
    assert (second["rounds_to_best"], second["time_to_best_s"]) == (2, 3.0)  # 3 exchanges
    assert "3 (1/2)" in FORMATS["md"](built)


def test_what_is_refused(sweep, tmp_path):
    with pytest.raises(GeojaxError, match="did not measure"):
        table.build([sweep], equal="wan_bytes")
    with pytest.raises(ConfigError, match="syncc"):
        table.build([sweep], best_of={"syncc": "fedavg"})
    with pytest.raises(GeojaxError, match="no rows have these settings"):
        table.build([sweep], best_of={"sync": "fsa"})
    with pytest.raises(GeojaxError, match="--pivot"):
        table.build([sweep], side_by_side="sync", equal="samples")
    (sweep / "0" / "events.jsonl").unlink()
    with pytest.raises(GeojaxError, match=r"events\.jsonl"):
        table.build([sweep], equal="samples")
