"""A full disk, a folder that may not be written, a missing device: one line, not a traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from experiments import command
from experiments.runs import records, schema
from experiments.train import job_process
from geojax.config import RunConfig
from geojax.errors import MachineError, telling_of_machine
from testbed import run as runner

FULL = OSError(errno.ENOSPC, "No space left on device", "/x/events.jsonl")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_a_condition_of_the_machine_is_told_with_its_file(number, capsys):
    with pytest.raises(SystemExit) as ended, command.refusing():
        raise OSError(number, os.strerror(number), "/x/plots")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: /x/plots: {os.strerror(number)}; ")


def test_a_defect_stays_one():
    with pytest.raises(FileNotFoundError), telling_of_machine():
        raise FileNotFoundError(errno.ENOENT, "No such file", "/x")


def test_a_run_on_a_full_disk_says_so_where_it_can(tmp_path, monkeypatch):
    schema.save(RunConfig(), tmp_path / "config.yaml")

    def fill(*_, **_given):
        raise FULL

    monkeypatch.setattr(runner, "run", fill)
    with pytest.raises(MachineError, match=r"events\.jsonl: No space left"):
        job_process._run(RunConfig(), tmp_path)
    assert "No space left" in records.read_json(tmp_path / "summary.json")["error"]
    monkeypatch.setattr(records, "fail", fill)
    with pytest.raises(MachineError, match=r"events\.jsonl: No space left"):
        job_process._run(RunConfig(), tmp_path)


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments], env={**os.environ, **environment}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def test_a_platform_that_is_not_here_is_named():
    code = "from geojax.center.devices import configure; configure(1)"
    done = run("-c", code, JAX_PLATFORMS="cuda,nonsense")
    assert "ConfigError: JAX_PLATFORMS = 'cuda,nonsense': JAX finds no such device" in done.stderr


def test_pictures_need_no_display(tmp_path):
    picture = tmp_path / "wan.svg"
    arguments = ("-m", "testbed", "describe", "wan=three_centers", "--picture", str(picture))
    done = run(*arguments, MPLBACKEND="nonsense")
    assert done.returncode == 0, done.stderr
    assert picture.exists()
