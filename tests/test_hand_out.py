"""How `make test` hands out tests: some files at a time, the emulated ones to one process."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hand_out import EMULATED, LOUD, QUIET_FOLDERS, HandOut, in_turn

HELPERS = Path(__file__).parent


class Gateway:
    id = "gw"


class Process:
    """A process of pytest-xdist: runs a test once it knows the next, or that there is none."""

    def __init__(self):
        self.given: list[int] = []
        self.shutting_down = False
        self.gateway = Gateway()

    def send_runtest_some(self, indices):
        assert not self.shutting_down
        self.given += indices

    def shutdown(self):
        self.shutting_down = True

    def next(self):
        ready = len(self.given) > 1 or (self.given and self.shutting_down)
        return self.given[0] if ready else None


def hand_out(config, names, processes, rng):
    """Runs ``names`` in random order of events; yields (process, name)."""
    scheduler = HandOut(config, None, lambda: [name for name in names if name.endswith(EMULATED)])
    for process in processes:
        scheduler.add_node(process)
    for process in processes:
        scheduler.add_node_collection(process, names)
    scheduler.schedule()
    while ready := [process for process in processes if process.next() is not None]:
        process = rng.choice(ready)
        index = process.next()
        yield process, names[index]
        process.given.pop(0)
        scheduler.mark_test_complete(process, index)
    assert scheduler.tests_finished
    assert not scheduler.has_pending


@pytest.fixture
def options(pytestconfig, monkeypatch):
    monkeypatch.setattr(pytestconfig.option, "tx", ["popen"] * 3, raising=False)
    monkeypatch.setattr(pytestconfig.option, "loadscopereorder", False, raising=False)
    return pytestconfig


@pytest.mark.parametrize("seed", range(100))
def test_every_test_runs_once_and_emulated_ones_last_and_in_one_process(options, seed):
    rng = random.Random(seed)
    shares = [rng.choice([0.0, 0.3, 1.0]) for _ in range(rng.randint(1, 5))]
    names = [
        f"tests/test_{file}.py::test[{number}]" + f"-{EMULATED}" * (rng.random() < share)
        for file, share in enumerate(shares)
        for number in range(rng.randint(1, 5))
    ]
    processes = [Process() for _ in range(3)]
    ran, of_unit, last = [], {}, {}
    for process, name in hand_out(options, names, processes, rng):
        ran.append(name)
        unit = EMULATED if name.endswith(EMULATED) else name.partition("::")[0]
        assert of_unit.setdefault(unit, process) is process
        last[process] = unit
    assert Counter(ran) == Counter(names)
    if EMULATED in of_unit:
        assert last[of_unit[EMULATED]] == EMULATED


def quiet_files():
    root = HELPERS.parent
    in_folders = [path for folder in QUIET_FOLDERS for path in (root / folder).glob("test_*.py")]
    return sorted({*in_folders} - {root / name for name in LOUD})


@pytest.mark.parametrize("path", quiet_files(), ids=lambda path: path.stem)
def test_quiet_files_start_no_process(path):
    text = path.read_text()
    loud = ("subprocess", "multiprocessing", '"local"', "Popen", "testbed.cores")
    assert not [word for word in loud if word in text]
    assert "emulated" not in text


def test_beside_the_emulated_ones_are_quiet_files():
    names = [
        EMULATED,
        "tests/overlay/test_a.py",
        "tests/hips/test_kills.py",
        "tests/hips/test_global_server.py",
    ]
    order = [
        "tests/hips/test_global_server.py",
        EMULATED,
        "tests/overlay/test_a.py",
        "tests/hips/test_kills.py",
    ]
    assert in_turn(names) == order


def test_folders_take_turns():
    names = ["a/test_1.py", "a/test_2.py", "a/test_3.py", "b/test_1.py", EMULATED, "b/test_2.py"]
    order = ["a/test_1.py", "b/test_1.py", "a/test_2.py", "b/test_2.py", "a/test_3.py", EMULATED]
    assert in_turn(names) == order


INNER = """
import os, pathlib, pytest

with pathlib.Path({log!r}).with_name("imported").open("a") as stream:
    print(os.environ["PYTEST_XDIST_WORKER"], __name__, file=stream)

@pytest.fixture(scope="session")
def why_not_emulated():
    return None

def note(kind):
    with pathlib.Path({log!r}).open("a") as stream:
        print(kind, os.environ["PYTEST_XDIST_WORKER"], os.environ["GEOJAX_TESTS_FOLDER"],
              os.environ["JAX_COMPILATION_CACHE_DIR"], os.getpriority(os.PRIO_PROCESS, 0),
              file=stream)

@pytest.mark.parametrize("number", range(3))
def test_plain(number):
    note("plain")

@pytest.mark.emulated
def test_emulated():
    note("emulated")
"""


def test_a_run_of_two_processes_ends_with_one_line_and_shares_its_folders(tmp_path):
    tests = tmp_path / "tests"
    for name in ("a", "b"):
        (tests / name).mkdir(parents=True)
        (tests / name / f"test_{name}.py").write_text(INNER.format(log=str(tmp_path / "log")))
    for name in ("conftest.py", "hand_out.py"):
        shutil.copy(HELPERS / name, tests)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = emulated\ntestpaths = tests\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile"],
        cwd=tmp_path,
        env={name: os.environ[name] for name in os.environ if "XDIST" not in name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert " 8 passed in " in run.stdout.splitlines()[-1], run.stdout + run.stderr
    kinds, processes, folders, caches, nice = zip(
        *(line.split() for line in (tmp_path / "log").read_text().splitlines()), strict=True
    )
    assert Counter(kinds) == {"plain": 6, "emulated": 2}, run.stdout
    assert set(processes) == {"gw0", "gw1"}
    emulated = [process for process, kind in zip(processes, kinds, strict=True) if kind[0] == "e"]
    assert emulated[0] == emulated[1]
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    go_first = "import os; os.setpriority(os.PRIO_PROCESS, 0, -10)"
    may = subprocess.run([sys.executable, "-c", go_first], capture_output=True, check=False)
    first = usual if may.returncode else -10
    assert set(zip(kinds, map(int, nice), strict=True)) == {("plain", usual), ("emulated", first)}
    (folder,), (cache,) = set(folders), set(caches)
    assert not Path(folder).exists()  # removed at the end
    assert folder != os.environ["GEOJAX_TESTS_FOLDER"]
    assert Path(cache).is_dir()  # kept for the next run
    assert Path(cache).is_relative_to(tmp_path / ".cache")
    imported: dict[str, list[str]] = {}
    for line in (tmp_path / "imported").read_text().splitlines():
        process, module = line.split()
        imported.setdefault(process, []).append(module)
    assert imported == {"gw0": ["test_a", "test_b"], "gw1": ["test_b", "test_a"]}
