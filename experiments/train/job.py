"""One run, in a process of its own: ``python -m experiments.train.job RUN_DIR``.

Reads the run directory's ``config.yaml``, runs it and leaves ``summary.json`` there, also when the
run fails. It is started by :mod:`experiments.train`; by hand it repeats a run from its directory.
"""

from __future__ import annotations

import argparse
import pathlib

from geojax.machine.collector import collect_seldom


def main() -> None:
    """Runs the job; exits with 0, with 1 when the run failed, with 130 when it was interrupted."""
    parser = argparse.ArgumentParser(prog="python -m experiments.train.job", description=__doc__)
    parser.add_argument("run_dir", type=pathlib.Path)
    parser.add_argument(
        "--end-with-parent",
        action="store_true",
        help="standard input is a pipe from the parent; end when it closes",
    )
    parser.add_argument(
        "--held",
        action="store_true",
        help="the parent holds the run directory, whose configuration it has just written, and "
        "this process has inherited its lock",
    )
    parser.add_argument("--name", default="", help="of the job, for what it tells")
    parser.add_argument(
        "--no-bar", action="store_true", help="others run beside it: lines, and no bar that moves"
    )
    arguments = parser.parse_args()
    collect_seldom()

    from experiments.train.job_process import work

    work(arguments)


if __name__ == "__main__":
    main()
