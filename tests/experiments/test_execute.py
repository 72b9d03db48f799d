"""Run directories are never overwritten; a resumed job is skipped or goes on where it broke."""

from __future__ import annotations

import dataclasses

import pytest

from experiments.runs import records, schema
from experiments.train import children
from experiments.train import invocation as train
from geojax.config import RunConfig
from geojax.errors import GeojaxError

CONFIG = RunConfig(rounds=7)
RESUMED = dataclasses.replace(CONFIG, resume=True)


@pytest.fixture
def ran(monkeypatch):
    """The run directories that jobs were started in; they finish unless told otherwise."""
    started = []

    def run_job(run_dir, lock, name):
        started.append(run_dir.name)
        if run_dir.name == "breaks":
            return -9
        records.finish(run_dir, schema.load(run_dir / "config.yaml"), {"wall_s": 1.0})
        return 0

    monkeypatch.setattr(children, "run_job", run_job)
    return started


def execute(config, run_dir):
    return train.execute(config, run_dir, search_in=run_dir.parent)


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_of_another_run_is_refused_and_left_alone(ran, tmp_path, resume):
    assert execute(CONFIG, tmp_path / "a")
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    other = dataclasses.replace(CONFIG, rounds=8, resume=resume)
    with pytest.raises(GeojaxError, match="holds another run, which is never overwritten"):
        execute(other, tmp_path / "a")
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    assert ran == ["a"]


def test_the_same_run_again_needs_resume(ran, tmp_path):
    assert execute(CONFIG, tmp_path / "a")
    with pytest.raises(GeojaxError, match="never overwritten"):
        execute(CONFIG, tmp_path / "a")
    assert execute(RESUMED, tmp_path / "a")
    assert ran == ["a"]


def test_a_finished_run_is_pointed_to(ran, tmp_path):
    execute(CONFIG, tmp_path / "a")
    assert execute(RESUMED, tmp_path / "b")
    assert ran == ["a"]
    assert records.follow(tmp_path / "b") == tmp_path / "a"


def test_a_broken_run_goes_on_in_its_own_directory(ran, tmp_path):
    assert not execute(CONFIG, tmp_path / "breaks")
    summary = records.read_json(tmp_path / "breaks" / "summary.json")
    assert summary["error"] == "the run's process ended by signal 9 without a summary"
    (tmp_path / "breaks" / "checkpoint").touch()
    assert not execute(RESUMED, tmp_path / "b")
    assert ran == ["breaks", "breaks"]
    assert (tmp_path / "breaks" / "checkpoint").exists()
    assert schema.load(tmp_path / "breaks" / "config.yaml").resume
    assert records.follow(tmp_path / "b") == tmp_path / "breaks"


def test_a_run_in_progress_is_not_started_a_second_time(ran, tmp_path):
    execute(CONFIG, tmp_path / "breaks")
    with (
        records.claim(tmp_path / "breaks"),
        pytest.raises(GeojaxError, match="another process is running this job now"),
    ):
        execute(RESUMED, tmp_path / "b")
    assert ran == ["breaks"]
    assert not (tmp_path / "b").exists()


def test_an_interrupted_run_is_recorded_and_the_sweep_ends(monkeypatch, tmp_path):
    def run_job(run_dir, lock, name):
        raise children.Stopped(2)

    monkeypatch.setattr(children, "run_job", run_job)
    with pytest.raises(children.Stopped):
        execute(CONFIG, tmp_path / "a")
    assert records.read_json(tmp_path / "a" / "summary.json")["error"] == "interrupted"
