"""Runs system commands and fails loudly on their errors."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence

from testbed.errors import TestbedError

TIMEOUT_S = 30.0  # no command here takes more than some milliseconds
POLL_S = 0.01


def inside(pid: int | None, argv: Sequence[str]) -> list[str]:
    """The command line that runs ``argv`` in the namespaces of process ``pid``.

    (None, which Mininet's types allow for a node's process, is a node that has ended.)

    >>> inside(7, ["ip", "link"])
    ['mnexec', '-a', '7', 'ip', 'link']
    """
    if pid is None:
        raise TestbedError(f"cannot run {argv[0]}: its host has ended; was the WAN taken down?")
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
        raise TestbedError(
            f"{' '.join(argv)}: no end within {TIMEOUT_S:g} s; is the machine too busy?"
        ) from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").replace("\n", "; ")
        given = "".join(f"\n  {line}" for line in lines)
        raise TestbedError(f"{' '.join(argv)} failed ({done.returncode}): {said}{given}")
    return done.stdout


def wires_up(pid: int | None) -> bool:
    """Whether all interfaces in the namespaces of ``pid`` carry packets, bridge ports included.

    An interface that was set up carries some milliseconds later; until then it drops.
    """
    links = run(inside(pid, ["ip", "-o", "link", "show"])).splitlines()
    ports = run(inside(pid, ["bridge", "-o", "link", "show"])).splitlines()
    return all(" state UP " in link or " lo: " in link for link in links) and all(
        " state forwarding " in port for port in ports
    )


def wait_until(condition: Callable[[], bool], what: str, patience_s: float) -> None:
    """Waits for the kernel.

    Raises:
      TestbedError: if ``what`` has not come true after ``patience_s``.
    """
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() >= deadline:
            raise TestbedError(
                f"waited {patience_s:g} s in vain for {what}; the machine may be too busy"
            )
        time.sleep(POLL_S)
