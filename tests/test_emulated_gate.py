"""The gate in conftest.py: skips with the reason, and fails where the testbed is required."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INNER = """
import pytest

@pytest.fixture(scope="session")
def why_not_emulated():
    return {reason!r}

@pytest.mark.emulated
def test_of_a_testbed():
    pytest.skip("of its own accord")

@pytest.mark.emulated
@pytest.mark.xfail(strict=True)
def test_known_to_fail():
    assert {reason!r}

def test_of_something_else():
    pytest.skip("unrelated")
"""


def run_inner(folder: Path, required: str) -> subprocess.CompletedProcess[str]:
    """Runs pytest in ``folder`` under the real conftest.py."""
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = emulated\n")
    own = {name: value for name, value in os.environ.items() if "XDIST" not in name}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", str(folder)],
        env={**own, "GEOJAX_REQUIRE_EMULATED": required, "COLUMNS": "200"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("reason", "required", "outcome", "why"),
    [
        ("not root", "0", "3 skipped", "no emulated WAN here: not root"),
        ("not root", "1", "1 skipped, 2 errors", "no emulated WAN here: not root"),
        (None, "0", "2 skipped, 1 xfailed", "of its own accord"),
        (None, "1", "1 failed, 1 skipped, 1 xfailed", "of its own accord"),
    ],
)
def test_gate(tmp_path, reason, required, outcome, why):
    (tmp_path / "test_inner.py").write_text(INNER.format(reason=reason))
    run = run_inner(tmp_path, required)
    assert f" {outcome} in " in run.stdout, run.stdout + run.stderr
    assert why in run.stdout
    assert "GEOJAX_REQUIRE_EMULATED=1, but" in run.stdout or required == "0"


@pytest.mark.parametrize(("required", "closing"), [("0", "1 skipped"), ("1", "1 error")])
def test_file_that_skips_as_a_whole(tmp_path, required, closing):
    (tmp_path / "testbed").mkdir()
    (tmp_path / "testbed" / "test_inner.py").write_text(
        "import pytest\npytest.importorskip('no_such_module')\n"
    )
    run = run_inner(tmp_path, required)
    assert f" {closing} in " in run.stdout, run.stdout + run.stderr
    assert "no_such_module" in run.stdout
