"""The project's commands in this process, which has loaded all that they need already."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
import warnings
from subprocess import CompletedProcess
from unittest import mock


def command(module: str, *words: str) -> CompletedProcess[str]:
    """What ``python -m module words`` does. That it starts alone, tests of ``--help`` show."""
    code: int | str | None = 0
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
        mock.patch.object(sys, "argv", [module, *words]),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "'.*' found in sys.modules after import", RuntimeWarning)
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            code = end.code
    told = isinstance(code, str)  # Python prints it, and ends with 1
    return CompletedProcess(
        [module, *words], 1 if told else code or 0,
        output.getvalue(), errors.getvalue() + (f"{code}\n" if told else ""),
    )  # fmt: skip
