"""docs/extending.md as a reader uses it: files are written to a folder, commands are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()


def blocks(*languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def lines(block: str) -> list[str]:
    return block.replace("\\\n", " ").splitlines()


COMMANDS = [line for block in blocks("bash") for line in lines(block)]
TRAINING = [command for command in COMMANDS if "experiments.train" in command]
REFUSED = [
    block.split("\n", 1)
    for block in re.split(r"^\$ ", blocks("console")[0], flags=re.MULTILINE)[1:]
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A reader's folder, outside of the tree, with the files of the page."""
    place = tmp_path_factory.mktemp("reader")
    for block in blocks("python", "yaml"):
        (name,) = re.findall(r"^# ([\w/]+\.(?:py|yaml))$", block, re.MULTILINE)
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(block)
    return place


def shell(folder: Path, command: str, *more: str) -> subprocess.CompletedProcess:
    python, *words = shlex.split(command)
    assert python == "python"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words, *more], cwd=folder, env=environment, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


class Outcome(NamedTuple):
    summary: dict[str, Any]
    config: dict[str, Any]
    events: list[dict[str, Any]]
    final: np.ndarray

    def first(self, kind: str) -> dict[str, Any]:
        return next(event for event in self.events if event["event"] == kind)

    def last(self, kind: str) -> dict[str, Any]:
        return next(event for event in reversed(self.events) if event["event"] == kind)


@pytest.fixture
def outcome(folder, tmp_path):
    """Runs the page's one training command that holds all of these words."""

    def run(*words: str) -> Outcome:
        (command,) = (line for line in TRAINING if all(word in line for word in words))
        done = shell(folder, command, f"hydra.run.dir={tmp_path}/run")
        assert done.returncode == 0, done.stderr
        written = tmp_path / "run"
        return Outcome(
            json.loads((written / "summary.json").read_text()),
            yaml.safe_load((written / "config.yaml").read_text()),
            [json.loads(line) for line in (written / "events.jsonl").read_text().splitlines()],
            np.load(written / "models" / "final.npy"),
        )

    return run


def test_own_synchronization(outcome):
    run = outcome("sync=sign", "rounds=4", "local_steps=2", "length=0.02")
    assert run.summary["steps"] == 3 * 4 * 2
    moves = run.final[4096:4160] / 0.02  # of the hidden layer's biases, which begin at 0
    assert np.allclose(moves, np.rint(moves), atol=1e-4)
    assert set(np.abs(np.rint(moves))) <= {0, 1, 2, 3, 4} != {0}
    assert len(set(np.rint(moves))) > 2


def test_own_codec_on_an_own_overlay(outcome):
    run = outcome("compression=steps", "overlay=chain", "root=first", "rounds=4")
    (tree,) = run.first("start")["policies"]["0"]["trees"]
    assert (tree["root"], tree["up"]) == (0, [-1, 0, 1])
    content = 4 * 4 * 4810 * 2  # rounds, hops up and down, elements, bytes
    assert content < run.summary["wan_bytes"] < 1.05 * content
    assert run.last("evaluation")["accuracy"] > 0.6


def test_own_model_with_settings_in_yaml_and_an_own_loss(outcome):
    run = outcome("--config-dir my_conf", "experiment=mine", "dropout=0.5")
    assert run.config["model"] == {"name": "tiny", "pace_s": None, "width": 48, "dropout": 0.5}
    assert (run.config["plugins"], run.config["loss"]) == (["my_package"], "smooth")
    assert run.summary["experiment"] == "mine"
    assert run.final.size == (64 + 1) * 48 + (48 + 1) * 10
    assert run.last("evaluation")["accuracy"] > 0.6


def test_own_archive(folder, outcome):
    assert shell(folder, "python make_data.py").returncode == 0
    assert "python make_data.py" in COMMANDS
    run = outcome("data=npz", "loss=mse")
    assert run.summary["final_loss"] < 0.01
    assert run.final.size == (5 + 1) * 2


def test_own_sequences(outcome):
    run = outcome("data=letters", "data.letters=4", "model=next_letter", "loss=next_token")
    assert run.final.size == 4 * 8 + (8 + 1) * 4  # of four letters
    assert 0.8 < run.last("evaluation")["accuracy"] < 0.95  # nine in ten can be known


def test_own_partition_and_wan(outcome):
    run = outcome("wan=line", "wan.hops=3", "partition=first")
    assert run.summary["centers"] == 4
    assert run.config["partition"] == {"name": "first", "seed": None, "share": 0.7}


def test_own_selection(folder):
    (command,) = (line for line in COMMANDS if "experiments.bench.selection" in line)
    done = shell(folder, command)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"│ (random|gbp_cs|greedy) +│ +20 │ +([\d.]+)", done.stdout)
    means: dict[str, list[float]] = {}
    for name, mean in rows:
        means.setdefault(name, []).append(float(mean))
    assert set(means) == {"random", "gbp_cs", "greedy"}
    assert sum(means["greedy"]) < 0.9 * sum(means["random"])


@pytest.mark.parametrize(
    ("command", "shows"),
    [
        ("python -m testbed describe 'plugins=[my_package]' wan=line wan.hops=3", "c2 - c3"),
        (
            "python -m experiments.configuration 'plugins=[my_package]'",
            "| `sync.length` | `0.01` | | by how much a parameter moves in a round | more than 0 |",
        ),
    ],
)
def test_other_commands_know_plugins_too(folder, command, shows):
    assert f"`{command}`" in PAGE
    assert shows in shell(folder, command).stdout


def test_every_training_command_is_run_by_a_test():
    assert len(TRAINING) == 6
    assert len(COMMANDS) == len(TRAINING) + 2  # make_data.py, the bench of selections


@pytest.mark.parametrize(("command", "says"), REFUSED, ids=[command for command, _ in REFUSED])
def test_what_is_wrong_is_refused_as_the_page_shows(folder, command, says):
    done = shell(folder, command)
    assert (done.returncode, done.stderr) == (2, says)


WRONG_KEYS = {  # of other members -> what the page's member reads
    ("sync", "sign", "staleness"): "sync=sign does not read it; it reads: local_steps, length, ",
    ("overlay", "chain", "arity"): "overlay=chain does not read it; it reads: root, ",
    ("compression", "steps", "ratio"): "compression=steps does not read it; it reads: step, ",
    ("model", "tiny", "hidden"): "model=tiny does not read it; it reads: width, dropout, ",
    ("data", "letters", "path"): "data=letters does not read it; it reads: letters, length, ",
    ("partition", "first", "alpha"): "partition=first does not read it; it reads: share, ",
    ("wan", "line", "degree"): "wan.generator=line does not read it; it reads: hops, ",
}


def test_every_member_refuses_a_wrong_key_with_those_that_it_reads(folder):
    code = f"""
import testbed.wan.generators
from geojax.axes import AXES, ConfigError, load_plugins

load_plugins(["my_package"])
for group, name, wrong in {list(WRONG_KEYS)}:
    try:
        AXES[group].settings(name, **{{wrong: 1}})
    except ConfigError as error:
        print(error)
"""
    told = shell(folder, f"python -c {shlex.quote(code)}").stdout.splitlines()
    for found, (key, says) in zip(told, WRONG_KEYS.items(), strict=True):
        assert found.startswith(f"{key[0]}.{key[2]} = 1: {says}")


def test_help_lists_own_members_and_own_files(folder):
    command = "python -m experiments.train --config-dir my_conf experiment=mine --help"
    shown = shell(folder, command).stdout
    for group, name in {
        "sync": "sign",
        "model": "wide",
        "wan": "line",
        "experiment": "mine",
    }.items():
        assert re.search(rf"^ +{group} .*\b{name}\b", shown, re.MULTILINE), (group, shown)
