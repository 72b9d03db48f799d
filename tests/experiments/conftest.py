"""A stand-in for the testbed, the train command in a process of its own, and compositions."""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest
from hydra import compose, initialize_config_dir

from experiments.runs import records, schema
from experiments.runs.choices import CONF

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Shadows the package `testbed` in child processes; what a run does is told by its `rounds`.
STAND_IN = {
    "run.py": """
        import logging, os, signal, sys
        from geojax.errors import ConfigError, GeojaxError

        REFUSED, FAILS, BREAKS, DIES, WARNS, HANGS = 0, 13, 14, 15, 16, 99
        log = logging.getLogger("geojax.hips")

        def check(config):
            if config.rounds == REFUSED:
                raise ConfigError("rounds", config.rounds, "must be 1 or more")

        def hang(run_dir):
            try:
                print(f"started {os.getpid()} {run_dir}", flush=True)
                signal.pause()
            finally:
                (run_dir / "cleaned").write_text("yes")

        def run(config, run_dir, name="", *, bar=True):
            with (run_dir / "starts").open("a") as starts:
                starts.write("x")
            for number in range(9 if config.rounds == WARNS else 0):
                log.warning("%s: dropped a chunk of epoch %d", f"c{number}", 1)
            if config.rounds == WARNS:
                log.warning("as every job")
                print(f"name {name!r}, bar {bar}", flush=True)
            if config.rounds == FAILS:
                raise GeojaxError("center c2 was lost")
            if config.rounds == BREAKS:
                raise ValueError("a defect")
            if config.rounds == DIES:
                os.kill(os.getpid(), signal.SIGKILL)
            if config.rounds == HANGS:
                hang(run_dir)
            return {
                "rounds": config.rounds, "target_accuracy": 0.8, "bound_s": None,
                "final_accuracy": 0.9, "time_to_target_s": 10.0 * config.rounds,
                "modules": sorted({name.partition(".")[0] for name in sys.modules}),
            }
    """,
    "__init__.py": f"""
        __path__.append({str(ROOT / "testbed")!r})  # what is not shadowed
    """,
    "emulated/__init__.py": "",
    "emulated/probe.py": """
        def why_not():
            return "emulation needs root"
    """,
}


@dataclasses.dataclass(frozen=True)
class Commands:
    """Runs the project's commands in a folder, against the stand-in testbed."""

    folder: pathlib.Path
    environment: dict[str, str]

    def start(self, *arguments: str, module: str = "experiments.train") -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, module: str = "experiments.train"):
        process = self.start(*arguments, module=module)
        try:
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def summary(self, run_dir: str) -> dict:
        return json.loads((self.folder / run_dir / records.SUMMARY).read_text())

    def starts(self, run_dir: str) -> int:
        """How often the stand-in was run in this directory."""
        path = self.folder / run_dir / "starts"
        return len(path.read_text()) if path.exists() else 0


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("stand-in")
    for name, text in STAND_IN.items():
        path = folder / "testbed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


@pytest.fixture
def commands(stand_in, tmp_path) -> Commands:
    path = f"{stand_in}{os.pathsep}{ROOT}"
    environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    return Commands(tmp_path, environment)


@functools.cache
def _composed(*words: str):
    return schema.build(compose("config", list(words)))


@pytest.fixture(scope="module")
def composed():
    """Makes configurations of the project's files, by overrides; a copy for every caller."""
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield lambda *words: copy.deepcopy(_composed(*words))
