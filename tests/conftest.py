"""What every test shares: a fixed environment, and the gate of the tests that need Mininet."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from testbed.compiled import cpu_kind

# Looking for doctests there would import several modules of the name conftest.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

# A folder of this test run: the processes of pytest-xdist share that of the process which started
# them, and which removes it.
SHARED_FOLDER = "GEOJAX_TESTS_FOLDER"
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not IS_WORKER:
    os.environ[SHARED_FOLDER] = tempfile.mkdtemp(prefix="geojax-tests-")
    atexit.register(shutil.rmtree, os.environ[SHARED_FOLDER], ignore_errors=True)
SHARED = Path(os.environ[SHARED_FOLDER])
EMULATED = SHARED / "emulated.json"  # the names of the tests that have this mark


def compile_cache() -> Path:
    """Where compiled XLA programs stay for the next run; `make clean` removes them.

    JAX finds a program by all that went into it, and test_mesh_processes.py shows that it gives the
    same bits.
    """
    cache = Path(__file__).resolve().parents[1] / ".cache" / "compiled" / cpu_kind()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return SHARED / "compiled"  # a checkout of somebody else
    return cache if os.access(cache, os.W_OK) else SHARED / "compiled"


# Before anything imports JAX, and inherited by every process that a test starts. One XLA thread
# keeps replicas bit-identical; the compile cache keeps other processes from compiling anew.
# Simulated runs have one core, unless a test asks for more (testbed.cores).
os.environ.update(
    JAX_PLATFORMS="cpu",
    NPROC="1",
    OMP_NUM_THREADS="1",
    OPENBLAS_NUM_THREADS="1",
    LOKY_MAX_CPU_COUNT="1",
    MPLBACKEND="Agg",
    JAX_COMPILATION_CACHE_DIR=str(compile_cache()),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
)

# Bytecode is kept, whatever the shell says: a run starts hundreds of processes, and pytest's own
# work on the test files is kept with it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every program
# under test that is to be stopped by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Property tests draw the same examples every time; `make nightly` has them draw ten times as many
# fresh ones.
settings.register_profile(
    "geojax", derandomize=True, deadline=None, database=None, max_examples=50
)  # fmt: skip
settings.register_profile(
    "nightly", settings.get_profile("geojax"), derandomize=False, max_examples=500, print_blob=True
)
settings.load_profile("geojax")

# Set by .ci/run as root: then a test of the emulated testbed that would skip fails instead.
REQUIRE_EMULATED = "GEOJAX_REQUIRE_EMULATED"
EMULATED_NICE = -10  # of a test of that testbed; those that compute have 0


@pytest.fixture(scope="session")
def why_not_emulated() -> str | None:
    """Why this machine cannot emulate a WAN, or None when it can."""
    from testbed.emulated.probe import why_not

    return why_not()


@pytest.fixture(autouse=True)
def emulated_gate(request: pytest.FixtureRequest) -> None:
    """Skips a test marked ``emulated``, with the reason, where no WAN can be emulated."""
    if request.node.get_closest_marker("emulated"):
        reason = request.getfixturevalue("why_not_emulated")
        if reason:
            pytest.skip(f"no emulated WAN here: {reason}")


ROOTS = pytest.StashKey[list[str]]()  # of all tests, in their order


def pytest_configure(config: pytest.Config) -> None:
    """Each process collects the whole suite from another folder on.

    So each rewrites the assertions of other files, and reads what the others have written.
    """
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    roots = [*config.args]
    if worker is None or roots != config.getini("testpaths"):
        return
    config.stash[ROOTS] = roots
    own = Path(__file__).parent
    inside = [path for path in sorted(own.iterdir()) if path.suffix == ".py" or path.is_dir()]
    parts = [
        f"{own.name}/{path.name}" for path in inside if path.stem not in ("conftest", "__pycache__")
    ]
    parts += [root for root in roots if root != own.name]
    first = len(parts) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    config.args[:] = parts[first:] + parts[:first]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tells ``HandOut``, which knows tests by name only, which ones are emulated."""
    roots = config.stash.get(ROOTS, [])
    if roots:  # every process has to have the tests in the same order
        where = [item.nodeid.partition("::")[0].split("/") for item in items]
        order = sorted(range(len(items)), key=lambda at: (roots.index(where[at][0]), where[at]))
        items[:] = [items[at] for at in order]
    if IS_WORKER:
        names = [item.nodeid for item in items if item.get_closest_marker("emulated")]
        EMULATED.write_text(json.dumps(names))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keeps the collector off modules and tests, which stay; it looks for others' cycles seldom."""
    gc.disable()
    try:
        return (yield)
    finally:
        from geojax.machine.collector import SELDOM  # not before the environment is fixed

        gc.collect()
        gc.freeze()
        gc.set_threshold(*SELDOM)
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """How ``--dist loadfile``, of `make test` and `make nightly`, hands out tests."""
    if config.getoption("dist") != "loadfile":
        return None
    from hand_out import HandOut

    return HandOut(config, log, lambda: json.loads(EMULATED.read_text()))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Has an ``emulated`` test, and the processes that it starts, go before those that compute.

    It mostly waits, and measures rates and times; the others take the processors for minutes.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    if item.get_closest_marker("emulated"):
        with contextlib.suppress(PermissionError):  # who may not do this cannot emulate either
            os.setpriority(os.PRIO_PROCESS, 0, EMULATED_NICE)
    try:
        return (yield)
    finally:
        if os.getpriority(os.PRIO_PROCESS, 0) != usual:
            os.setpriority(os.PRIO_PROCESS, 0, usual)


def is_required() -> bool:
    """Whether no test of the emulated testbed may skip."""
    return os.environ.get(REQUIRE_EMULATED) == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns the skip of an ``emulated`` test into a failure where that testbed is required."""
    report = yield
    skipped = report.skipped and not hasattr(report, "wasxfail")
    if skipped and call.excinfo and is_required() and item.get_closest_marker("emulated"):
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE_EMULATED}=1, but skipped: {call.excinfo.value}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file of testbed tests that skips as a whole, at its import."""
    report = yield
    if report.skipped and is_required() and "testbed" in collector.path.parts:
        report.outcome = "failed"
        report.longrepr = f"{REQUIRE_EMULATED}=1, but skipped: {report.longrepr}"
    return report
