"""Sweeps: failed jobs are recorded, the others run; a table at the end; resumed by hash."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from experiments.runs import records, schema, stored
from experiments.train import invocation as train
from experiments.train import standing
from experiments.train.sweep import SweepReport
from geojax.config import RunConfig
from geojax.errors import GeojaxError

JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def test_a_failed_job_does_not_end_the_sweep(commands):
    done = commands.run("-m", "rounds=16,13,0,3", "hydra.sweep.dir=sweep")
    summaries = [commands.summary(f"sweep/{number}") for number in range(4)]
    assert [each["status"] for each in summaries] == ["finished", "failed", "failed", "finished"]
    assert summaries[1]["error"] == "center c2 was lost"
    assert summaries[2]["error"] == "rounds = 0: must be 1 or more"
    assert done.returncode == 1
    assert done.stderr.endswith("2 of 4 jobs failed\n")
    table = done.stdout.partition("round limit")[2]
    assert "failed: center c2 was lost" in table
    assert [table.count(seconds) for seconds in (" 160 ", " 30.0 ")] == [1, 1]
    assert "name 'job 0', bar True" in done.stdout, "one after the other, each shows its bar"


def test_a_parallel_sweep_does_the_same(commands):
    done = commands.run("-m", "rounds=13,3", "testbed.cores=5", "hydra.sweep.dir=sweep", *JOBLIB)
    assert [commands.summary(f"sweep/{n}")["status"] for n in "01"] == ["failed", "finished"]
    assert done.returncode == 1
    assert done.stderr.endswith("1 of 2 jobs failed\n")
    lines = done.stdout.replace(f"{commands.folder}/", "").splitlines()
    starts = {"starts: sweep/0", "starts: sweep/1"}
    assert starts | {"failed: sweep/0", "finished: sweep/1"} <= {*lines}
    told = [line for line in lines if "jobs done" in line]
    first = r"1/2 jobs done, about \d+ s left|2/2 jobs done"  # both may end at one instant
    assert re.fullmatch(first, told[0])
    assert told[1:] == ["2/2 jobs done"]
    assert "error: job 0: center c2 was lost" in done.stderr
    kept = [OmegaConf.load(commands.folder / "sweep" / n / "config.yaml") for n in "01"]
    assert [each.testbed.cores for each in kept] == [2, 2], "they share them"


def test_warnings_name_their_job_and_do_not_flood(commands):
    """Nine of one kind and one that all jobs have, in each of two jobs that run side by side."""
    done = commands.run("-m", "rounds=16", "lr=1,2", "hydra.sweep.dir=sweep", *JOBLIB)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    counts = {}
    for number in "01":
        kept = (commands.folder / "sweep" / number / "warnings.txt").read_text().splitlines()
        assert kept[8:] == ["warning: c8: dropped a chunk of epoch 1", "warning: as every job"]
        told = [line for line in lines if line.startswith(f"warning: job {number}: ")]
        assert sum("dropped a chunk" in line for line in told) <= 3
        counts[number] = len(told)
        more = f"job {number}: {10 - len(told)} more warnings, of kinds that were told before: "
        assert f"{more}{commands.folder}/sweep/{number}/warnings.txt" in lines
        assert f"name 'job {number}', bar False" in done.stdout
    assert sum("as every job" in line for line in lines) == 1
    assert sum(counts.values()) <= 7


def test_a_single_run_has_a_bar_and_no_name(commands):
    done = commands.run("rounds=16", "hydra.run.dir=run")
    assert "name '', bar True" in done.stdout
    assert "jobs done" not in done.stdout
    assert "warning: c0: dropped a chunk of epoch 1\n" in done.stderr


def test_jobs_of_a_sweep_are_counted_before_it_starts():
    assert standing.count_jobs(["seed=0,1,2", "overlay=star,ring", "lr=0.1", "a=range(4)"]) == 24
    assert standing.count_jobs(["sync=glob(f*)", "seed=0,1"]) is None, "only Hydra knows them"


def test_a_wrong_choice_in_a_sweep_starts_no_job(commands):
    done = commands.run("-m", "overlay=star,stra", "rounds=2", "hydra.sweep.dir=sweep")
    assert done.returncode == 2
    assert done.stderr.startswith("error: overlay = 'stra': did you mean 'star'? valid: ")
    assert not list((commands.folder / "sweep").glob("*/config.yaml"))


def test_a_used_sweep_directory_is_refused_without_resume(tmp_path, capsys):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "summary.json").write_text("{}")
    hydra = {"sweep": {"dir": str(tmp_path)}, "sweeper": {"_target_": "of.another.Sweeper"}}
    config = OmegaConf.create({"hydra": hydra, "resume": False})
    with pytest.raises(SystemExit) as refused:
        SweepReport().on_multirun_start(config)
    assert refused.value.code == 2
    assert f"{str(tmp_path)!r}: holds another sweep" in capsys.readouterr().err
    config.resume = True
    SweepReport().on_multirun_start(config)


def test_a_resumed_sweep_runs_only_what_is_not_finished(commands):
    commands.run("-m", "rounds=2,13", "hydra.sweep.dir=sweep")
    done = commands.run("-m", "rounds=4,2,13", "resume=true", "hydra.sweep.dir=sweep")
    assert done.returncode == 1
    # Job 0 is another one now, and gets a directory of its own; job 1 was job 0.
    assert [commands.starts(f"sweep/{name}") for name in ("0", "1", "0_2")] == [1, 2, 1]
    assert records.follow(commands.folder / "sweep/1_2") == commands.folder / "sweep/0"
    assert [done.stdout.count(seconds) for seconds in (" 20.0 ", " 40.0 ")] == [1, 1]


def left_by_a_job(folder, **summary):
    folder.mkdir(parents=True)
    records.write_json(folder / records.SUMMARY, summary)


def test_jobs_are_counted_at_any_depth_and_once(tmp_path):
    left_by_a_job(tmp_path / "lr=0.1" / "s0", status="finished", config_hash="a")
    left_by_a_job(tmp_path / "lr=0.2" / "s0", status="failed", config_hash="b")
    left_by_a_job(tmp_path / "lr=0.2" / "s1", status="failed", config_hash="c")
    assert records.outcomes(tmp_path) == (2, 3)
    left_by_a_job(tmp_path / "lr=0.2" / "s0_2", status="finished", config_hash="b")
    assert records.outcomes(tmp_path) == (1, 3)


def test_a_table_that_cannot_be_shown_hides_no_failure(tmp_path, monkeypatch, capsys):
    left_by_a_job(tmp_path / "0", status="failed", config_hash="a")
    report = SweepReport()
    monkeypatch.setattr(report, "_show", lambda _: "±".encode("ascii"))
    with pytest.raises(SystemExit) as ended:
        report.on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}}))
    assert ended.value.code == 1
    assert capsys.readouterr().err.endswith("1 of 1 jobs failed\n")


@pytest.mark.parametrize("valid", [True, False])
def test_a_refused_job_leaves_another_run_alone(tmp_path, monkeypatch, valid):
    config = RunConfig(rounds=5)
    folder = tmp_path / "0"
    folder.mkdir()
    schema.save(config, folder / "config.yaml")
    records.finish(folder, config, {"wall_s": 1.0})
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def refuse(_config):
        raise GeojaxError("t.csv: there is no such file")

    monkeypatch.setattr(train, "_check", (lambda _config: None) if valid else refuse)
    composed = OmegaConf.create(stored.whole(config))
    assert not train._sweep_job(composed, folder, tmp_path, "job 0", {"_target_": "BasicLauncher"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
