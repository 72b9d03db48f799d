"""Runs system commands and fails loudly on their errors."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from testbed.emulated.errors import TestbedError

TIMEOUT_S = 30.0  # no command here takes more than some milliseconds


def inside(pid: int, argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` in the namespaces of process ``pid``.

    >>> inside(7, ["ip", "link"])
    ['mnexec', '-a', '7', 'ip', 'link']
    """
    return ["mnexec", "-a", str(pid), *argv]


def run(argv: Sequence[str], lines: Sequence[str] = ()) -> str:
    """Runs a command to its end.

    Args:
      argv: the command.
      lines: its standard input, e.g. the commands of ``tc -batch -``.

    Returns:
      Its standard output.

    Raises:
      TestbedError: if the command is missing, fails or hangs; with its own words.
    """
    try:
        done = subprocess.run(
            list(argv),
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise TestbedError(
            f"{argv[0]}: command not found; see `python -m testbed check`"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"{' '.join(argv)}: no end within {TIMEOUT_S:g} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").replace("\n", "; ")
        given = "".join(f"\n  {line}" for line in lines)
        raise TestbedError(f"{' '.join(argv)} failed ({done.returncode}): {said}{given}")
    return done.stdout
