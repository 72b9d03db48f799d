"""The quick start: ``python -m experiments.demo [--quick]``.

Trains one model on real data three times (``conf/experiment/demo.yaml``), first on the simulated
WAN, then, where this machine can, on the emulated one, and shows both side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

from experiments.table import __main__ as table
from experiments.train import children
from geojax.errors import GeojaxError

# A look at everything in a fraction of the time: too little training to reach the target.
QUICK = ("data.train_samples=6000", "data.test_samples=1000", "rounds=10", "eval_every_s=1")


def main() -> None:
    """The command: exits with 0, or with 1 when a run failed."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ten rounds each, on less data")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("outputs/demo"), metavar="DIR"
    )
    arguments = parser.parse_args()
    name = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    folder = arguments.output / name
    left_out = _why_no_emulation()
    testbeds = ["simulated"] if left_out else ["simulated", "emulated"]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        codes = [_sweep(testbed, folder, QUICK if arguments.quick else ()) for testbed in testbeds]
        print()
        table.show([folder], side_by_side="testbed")
    except KeyboardInterrupt:
        sys.exit(130)
    except GeojaxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    if left_out:
        print(f"Left out: the same runs on the emulated WAN, because {left_out}.")
    print(f"Results: {folder}")
    print("Next: python -m experiments.train -m experiment=demo seed=0,1,2")
    sys.exit(max(codes))


def _why_no_emulation() -> str | None:
    from testbed.emulated.probe import why_not

    return why_not()


def _sweep(testbed: str, folder: pathlib.Path, overrides: Sequence[str]) -> int:
    """Runs the demo's sweep on one testbed; returns the exit code of ``experiments.train``."""
    print(f"\n{testbed.capitalize()} WAN: three configurations, one after the other", flush=True)
    command = [sys.executable, "-m", "experiments.train", "-m", "experiment=demo"]
    command += [f"testbed={testbed}", f"hydra.sweep.dir={folder / testbed}"]
    command += ["hydra.callbacks.report.table=false", *overrides]
    sweep = subprocess.Popen(command)
    try:
        return sweep.wait()
    except KeyboardInterrupt:
        # A terminal has told the sweep already, which then ignores this; a bare kill has not.
        sweep.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            sweep.wait(children.GRACE_S + 10.0)
        raise


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
