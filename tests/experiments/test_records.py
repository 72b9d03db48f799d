"""Run directories: claimed by one process, found again by the hash of their configuration."""

from __future__ import annotations

import fcntl
import json

import pytest

from experiments.runs import records, schema
from experiments.train.machine_lock import machine_lock
from geojax.config import RunConfig
from geojax.errors import GeojaxError


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    schema.save(RunConfig(), folder / "config.yaml")
    return folder


def test_a_directory_is_claimed_by_one_at_a_time(run_dir):
    assert not records.live(run_dir)
    with records.claim(run_dir):
        assert records.live(run_dir)
        with pytest.raises(GeojaxError, match="another process"), records.claim(run_dir):
            pass
    assert not records.live(run_dir)


def test_a_figure_that_was_not_measured_is_absent(run_dir):
    records.finish(run_dir, RunConfig(), {"bound_s": None, "wall_s": 2.5, "wan": "measured"})
    summary = json.loads((run_dir / "summary.json").read_text())
    assert "bound_s" not in summary
    assert (summary["wall_s"], summary["wan"], summary["status"]) == (2.5, "measured", "finished")


def test_a_failure_keeps_what_was_measured(run_dir):
    (run_dir / "summary.json").write_text('{"wall_s": 1.0}')
    records.fail(run_dir, RunConfig(), "why")
    summary = records.read_json(run_dir / "summary.json")
    assert (summary["wall_s"], summary["status"], summary["error"]) == (1.0, "failed", "why")


def test_search_finds_finished_before_broken(run_dir):
    wanted = schema.config_hash(RunConfig())
    assert records.search(run_dir.parent, wanted) == (None, run_dir)  # no summary: broken
    records.fail(run_dir, RunConfig(), "why")
    assert records.search(run_dir.parent, wanted) == (None, run_dir)
    assert records.search(run_dir.parent, "other") == (None, None)
    records.finish(run_dir, RunConfig(), {})
    assert records.search(run_dir.parent, wanted) == (run_dir, None)


def test_search_passes_over_a_configuration_of_another_schema(run_dir):
    (run_dir / "config.yaml").write_text("no_such_key: 1\n")
    assert records.search(run_dir.parent, schema.config_hash(RunConfig())) == (None, None)


def test_the_machine_lock_makes_a_second_run_wait(tmp_path):
    path, told = tmp_path / "lock", []

    class Waits(Exception):
        """Stands for the wait, which would last as long as the first run."""

    def stop_waiting(text):
        told.append(text)
        raise Waits

    with machine_lock("outputs/first", path=path):
        with pytest.raises(Waits), machine_lock("outputs/second", path=path, log=stop_waiting):
            pass
        with path.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert "outputs/first" in told[0]
    with machine_lock("outputs/second", path=path, log=stop_waiting):
        pass
    assert len(told) == 1
