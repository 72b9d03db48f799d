"""Run directories: claimed by one process, found again by the hash of their configuration."""

from __future__ import annotations

import fcntl
import json

import pytest

from experiments.runs import records, schema
from experiments.runs.rows import astray, collect
from experiments.train.machine_lock import machine_lock
from geojax.axes import change
from geojax.config import RunConfig
from geojax.errors import ConfigError, GeojaxError


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
    wanted = RunConfig()
    assert records.search(run_dir.parent, wanted) == (None, run_dir)  # no summary: broken
    records.fail(run_dir, RunConfig(), "why")
    assert records.search(run_dir.parent, wanted) == (None, run_dir)
    assert records.search(run_dir.parent, RunConfig(seed=1)) == (None, None)
    records.finish(run_dir, RunConfig(), {})
    assert records.search(run_dir.parent, wanted) == (run_dir, None)


FOREIGN = {
    "another schema": b"no_such_key: 1\n",
    "binary": bytes(range(256)),
    "no YAML": b"a: [1, 2\nb: }",
    "a list": b"- 1\n- 2\n",
    "a text": b"hello",
    "empty": b"",
    "plug-ins": b"plugins: [antigravity_of_nobody]\nsync: {name: fsa}\nwan: {name: a}\n",
    "a wrong member": b"sync: {name: no_such}\nwan: {name: a}\n",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_search_passes_over_files_that_are_not_ours(run_dir, content):
    other = run_dir.parent / "other"
    other.mkdir()
    (other / "config.yaml").write_bytes(content)
    assert records.search(run_dir.parent, RunConfig()) == (None, run_dir)
    assert not records.belongs(other, RunConfig())


def test_search_does_not_go_through_a_whole_file_system(monkeypatch, run_dir):
    monkeypatch.setattr(records, "holding", lambda *_: pytest.fail("searched"))
    root = type(run_dir)("/")
    assert records.search(root, RunConfig()) == (None, None)


def changed(**settings):
    config = RunConfig()
    change(config, {key.replace("__", "."): value for key, value in settings.items()})
    return config


WATCHING = {"timeouts__dead": 60.0, "timeouts__round": 1e4, "checkpoint_every": 3}


def test_a_broken_run_goes_on_with_other_timeouts_checkpoints_and_events(run_dir):
    for settings in (WATCHING, {"events": "chunk"}):
        assert records.search(run_dir.parent, changed(**settings)) == (None, run_dir)
    assert records.search(run_dir.parent, changed(timeouts__heartbeat=5.0)) == (None, None)


def test_a_finished_run_counts_if_it_left_what_is_asked_for(run_dir):
    records.finish(run_dir, RunConfig(), {})
    assert records.search(run_dir.parent, changed(**WATCHING)) == (run_dir, None)
    assert records.search(run_dir.parent, changed(events="chunk")) == (None, None)
    records.finish(run_dir, RunConfig(), {"incidents": {"deaths": {"c2": 1}}})
    assert records.search(run_dir.parent, changed(checkpoint_every=3)) == (run_dir, None)
    assert records.search(run_dir.parent, changed(**WATCHING)) == (None, None)


def test_jobs_find_their_runs_when_both_were_moved(tmp_path):
    """A job of one sweep points to a run of another; then their folder gets another name."""
    target, job = tmp_path / "old" / "first" / "0", tmp_path / "old" / "again" / "0"
    target.mkdir(parents=True)
    schema.save(RunConfig(), target / "config.yaml")
    records.finish(target, RunConfig(), {"wall_s": 1.0})
    records.point(job, target)
    assert records.follow(job) == target
    moved = tmp_path / "elsewhere"
    (tmp_path / "old").rename(moved)
    assert records.follow(moved / "again" / "0") == moved / "first" / "0"
    assert [run.path for run in collect([moved / "again"])] == [moved / "first" / "0"]
    assert not astray([moved])
    (moved / "again").rename(tmp_path / "alone")
    assert astray([tmp_path / "alone"]) == [tmp_path / "alone" / "0"]


def test_one_job_may_be_moved_away_from_its_run(tmp_path):
    target, job = tmp_path / "first" / "0", tmp_path / "again" / "0"
    target.mkdir(parents=True)
    schema.save(RunConfig(), target / "config.yaml")
    records.point(job, target)
    (tmp_path / "deeper" / "than").mkdir(parents=True)
    job.rename(tmp_path / "deeper" / "than" / "0")
    assert records.follow(tmp_path / "deeper" / "than" / "0") == target


def test_runs_behind_links_are_found_once(tmp_path, run_dir):
    records.finish(run_dir, RunConfig(), {"wall_s": 1.0})
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "one").symlink_to(run_dir)
    (linked / "same").symlink_to(run_dir)
    (linked / "round").symlink_to(linked)
    assert [run.path for run in collect([linked])] == [run_dir]


def test_a_lock_outlives_the_file_that_is_written_anew(run_dir):
    """A second start used to write the configuration first, and with it a file without a lock."""
    with records.claim(run_dir):
        schema.save(RunConfig(), run_dir / "config.yaml")
        assert records.live(run_dir)


def test_without_root_the_machine_lock_says_what_is_needed(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "/run/lock/x")

    monkeypatch.setattr("os.open", refuse)
    with (
        pytest.raises(ConfigError, match="testbed = 'emulated': needs root"),
        machine_lock("mine", path=tmp_path / "lock"),
    ):
        pass


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
