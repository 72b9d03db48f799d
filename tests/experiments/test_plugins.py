"""Members of all axes from a package outside the tree, chosen without any YAML file."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SYNTHETIC = ("model=synthetic", "model.bytes=40000", "model.pace_s=0.01", "rounds=3")

PACKAGE = """
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from geojax.compression.codec import CODECS
from geojax.compression.dense import dense
from geojax.config import (
    CompressionConfig, DataConfig, OverlayConfig, PartitionConfig, SelectionConfig, WanConfig,
)
from geojax.data.dataset import DATASETS, Stored
from geojax.data.partitions import PARTITIONS
from geojax.models.registry import MODELS, MlpConfig, mlp
from geojax.overlay.base import OVERLAYS, Overlay
from geojax.overlay.policy.policy import Policy, Tree
from geojax.selection.registry import SELECTIONS, Selection
from geojax.settings import key
from testbed.wan.generators import GENERATORS


@dataclass
class ChainConfig(OverlayConfig):
    name: str = "chain"
    backwards: bool = key(False, "the last center is the root")

    def check(self):
        if self.backwards and self.chunk_elements > 10_000:
            from geojax.errors import ConfigError

            raise ConfigError("overlay.chunk_elements", self.chunk_elements, "too many backwards")


@OVERLAYS.register("chain", ChainConfig)
def chain(config, centers, sites):
    def plan(view, members, sizes, version):
        order = list(members)[:: -1 if config.backwards else 1]
        parent = dict(zip(order[1:], order, strict=False))
        return Policy(version, tuple(members), (Tree(order[0], parent),))

    return Overlay("chain", plan)


@dataclass
class RoundedConfig(CompressionConfig):
    name: str = "rounded"
    step: float = key(0.5, "elements are multiples of it", above=0)


@CODECS.register("rounded", RoundedConfig)
def rounded(config, setting):
    plain = dense()

    def encode(vector, state):
        payloads, state = plain.encode(vector, state)
        step = np.float32(config.step)
        return [np.rint(payload / step) * step for payload in payloads], state

    return plain._replace(name="rounded", wire=40, encode=encode)


@dataclass
class LineConfig(WanConfig):
    generator: str | None = "line"
    hops: int = key(2, "links of the line", least=1)


@GENERATORS.register("line", LineConfig)
def line(wan, seed):
    names = [f"c{number}" for number in range(wan.hops + 1)]
    return names, [{"between": [a, b], "rate": 50, "rtt": 10} for a, b in zip(names, names[1:])]


@OVERLAYS.register("bare")
def bare(config, centers, sites):
    return chain(ChainConfig(), centers, sites)


@SELECTIONS.register("all_of_them")
def all_of_them(config):
    return Selection("all_of_them", lambda choice: np.arange(choice.devices), needs_counts=False)


@MODELS.register("other_mlp")
def other_mlp(config):
    return mlp(MlpConfig(hidden=[8]))


@dataclass
class NoiseConfig(DataConfig):
    name: str = "noise"
    side: int = key(8, "of an image", unit="pixels", least=1)


@DATASETS.register("noise", NoiseConfig)
def noise(config):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (60, config.side, config.side), np.uint8)
    labels = np.arange(60) % 3
    return Stored(images, labels, images, labels, 3, 255.0)


@PARTITIONS.register("striped")
def striped(config, labels, parts, generator):
    return [np.arange(len(labels))[part::parts] for part in range(parts)]
"""


@pytest.fixture
def train(tmp_path):
    """Runs the command in a folder that holds the package."""
    (tmp_path / "far_away").mkdir()
    (tmp_path / "far_away" / "__init__.py").write_text(PACKAGE)

    def run(*words, cwd=tmp_path, path=()):
        return subprocess.run(
            [sys.executable, "-m", "experiments.train", *words], cwd=cwd, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([*path, str(ROOT)])},
            capture_output=True, check=False,
        )  # fmt: skip

    return run


def finished(done, run_dir):
    assert done.returncode == 0, done.stderr
    return json.loads((run_dir / "summary.json").read_text())


def test_the_readmes_algorithm_runs_as_it_stands(train, tmp_path):
    section = README.partition("## Your own algorithm")[2].partition("## What")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (command,) = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    (tmp_path / "my_algorithms.py").write_text(code)
    words = shlex.split(command.replace("\\\n", " "))[3:]
    done = train(*words, "rounds=6", f"hydra.run.dir={tmp_path}/run")
    summary = finished(done, tmp_path / "run")
    assert summary["axes"]["sync"] == "growing_steps"
    assert summary["steps"] == 3 * (5 * 2 + 4)  # of three workers: five rounds of two, one of four
    stored = (tmp_path / "run" / "config.yaml").read_text()
    assert "first_steps: 2" in stored
    assert "plugins:\n- my_algorithms\n" in stored


@pytest.mark.parametrize(("cwd", "path"), [(".", []), ("elsewhere", [".."])])
def test_members_of_any_axis_run_in_every_process(train, tmp_path, cwd, path):
    (tmp_path / "elsewhere").mkdir()
    done = train(
        "plugins=[far_away]", *SYNTHETIC, "testbed=local", "overlay.name=chain",
        "overlay.backwards=true", "overlay.chunk_elements=1000", "compression=rounded",
        "compression.step=0.25", "wan=line", "wan.hops=1", "center_selection=all_of_them",
        f"hydra.run.dir={tmp_path}/run", cwd=tmp_path / cwd, path=path,
    )  # fmt: skip
    summary = finished(done, tmp_path / "run")
    assert summary["axes"] == {
        "compression": "rounded", "sync": "fsa", "overlay": "chain", "selection": "everyone",
    }  # fmt: skip
    assert summary["centers"] == 2


def test_the_process_that_plans_knows_a_member_without_keys(tmp_path, train):
    ask = "import pickle, sys; from geojax.axes import AXES, load_plugins; "
    give = 'load_plugins(["far_away"]); settings = AXES["overlay"].settings("bare"); '
    take = "sys.stdin.buffer.read()); print(AXES['overlay'].schema(settings.name).__name__)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def python(code, given=b""):
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, input=given, stdout=subprocess.PIPE, check=True
        ).stdout

    sent = python(ask + give + "sys.stdout.buffer.write(pickle.dumps(settings))")
    assert python(f"{ask}settings = pickle.loads({take}", sent).strip() == b"OverlayConfig"


def test_own_model_data_and_partition(train, tmp_path):
    done = train(
        "plugins=far_away", "model=other_mlp", "data=noise", "data.side=6", "partition=striped",
        "rounds=2", "batch_size=4", f"hydra.run.dir={tmp_path}/run",
    )  # fmt: skip
    assert finished(done, tmp_path / "run")["model"] == "other_mlp"


def test_help_lists_plugged_in_members(train):
    done = train("plugins=[far_away]", "--help")
    assert re.search(r"overlay +bare, butterfly, chain,", done.stdout), done.stdout
    assert "chain" not in train("--help").stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("plugins=[nowhere]",), "plugins = 'nowhere': no such module; name one that Python can"),
        (("plugins=[far_away.absent]",), "plugins = 'far_away.absent': no such module"),
        (("overlay=chain",), "overlay = 'chain': did you mean 'packing'? valid: butterfly"),
        (("plugins=[far_away]", "overlay=chain", "overlay.root=c1"),
         "overlay.root = 'c1': overlay=chain does not read it; it reads: backwards, name"),
        (("plugins=[far_away]", "overlay.backwards=true"), "read by overlay=chain"),
        (("plugins=[far_away]", "wan=line", "wan.hops=0"),
         "wan.hops = 0: give a whole number: at least 1 (links of the line)"),
        (("plugins=[far_away]", "overlay=chain", "overlay.backwards=true"),
         "overlay.chunk_elements = 65536: too many backwards"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(train, words, says):
    done = train(*words, *SYNTHETIC)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sweep_goes_on_over_a_job_whose_member_does_not_read_a_key(train, tmp_path):
    done = train(
        "-m",
        *SYNTHETIC,
        "overlay=star,netstorm",
        "overlay.roots=2",
        f"hydra.sweep.dir={tmp_path}/s",
    )
    assert done.returncode == 1
    assert "overlay.roots = 2: overlay=star does not read it; it reads: root" in done.stderr
    assert "1 of 2 jobs failed" in done.stderr
    first, second = (json.loads((tmp_path / "s" / n / "summary.json").read_text()) for n in "01")
    assert (first["status"], second["status"]) == ("failed", "finished")
