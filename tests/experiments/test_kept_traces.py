"""A run with traces can be read anywhere; one whose dynamics never came says so."""

from pathlib import Path

from simulated_runs import small_config

from experiments.plot.run_events import read_records
from experiments.runs import schema
from experiments.runs.rows import Row, Run
from experiments.table.comparison import note
from testbed.run import run


def test_a_run_keeps_its_traces(tmp_path, monkeypatch):
    """Read again from another working directory, with the original gone, and after a move."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    rows = "".join(f"{at},{a},{b},20\n" for at in (0, 0.3) for a, b in (("c1", "c2"), ("c2", "c1")))
    rows = rows.replace("0.3,c1,c2,20", "0.3,c1,c2,10")
    Path("t.csv").write_text("time_s,from,to,mbit\n" + rows)
    dynamics = [{"kind": "trace", "file": "t.csv"}]
    config = small_config(wan__dynamics=dynamics, rounds=20)
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    schema.save(config, run_dir / "config.yaml")
    summary = run(config, run_dir)
    assert summary["rate_changes"] == 1
    run_dir.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "work" / "t.csv").unlink()
    changes = list(read_records(tmp_path / "moved").wan.changes())
    assert [change.at for change in changes] == [0.3]


def test_dynamics_that_never_come_are_told(tmp_path):
    dynamics = {"kind": "outage", "links": [{"between": ["c1", "c2"]}], "at": 500, "duration": 5}
    summary = run(small_config(wan__dynamics=dynamics), tmp_path)
    assert summary["rate_changes"] == 0
    row = Row({}, (Run(tmp_path, {}, summary),))
    assert "no rate changed, though wan.dynamics is set" in note(row)
