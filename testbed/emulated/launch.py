"""How this package's own helper processes are started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the folder that holds the package `testbed`


def python_module(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command line and environment that run a module of ours with only the standard library.

    ``-S`` leaves out site-packages: a helper starts in some 20 ms and can import nothing else.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return [sys.executable, "-S", "-m", module, *arguments], environment
