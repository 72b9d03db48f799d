"""How good the simulator is: ``python -m experiments.calibrate [--repetitions 3]``.

Runs the same configurations on the simulated and on the emulated testbed, fits the simulator's
constants on one half of them, and reports the error of the mean sync time on the other half.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import platform
import sys
from collections.abc import Sequence

from experiments import command
from experiments.calibrate.cases import CASES, FIT, Case, chosen
from experiments.calibrate.fit import CONSTANTS, Fit, fit
from experiments.calibrate.outcome import Outcome
from experiments.calibrate.report import Origin, blocks, case_table, to_document, to_terminal
from experiments.calibrate.runs import Runs, quick
from experiments.runs import records
from experiments.table.formats import to_rich
from experiments.train import children
from geojax.errors import ConfigError, GeojaxError

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "calibration.md"


def measure(
    cases: Sequence[Case], repetitions: int, runs: Runs
) -> tuple[list[Outcome], Fit | None]:
    """Makes all runs that are missing, and fits.

    One repetition of all cases comes after another, so that what changes on the machine meanwhile
    shows in the spread. A run that fails is told in its case's outcome; the others go on.
    """
    failures: dict[str, str] = {}
    simulated = {}
    for case in cases:
        try:
            simulated[case] = runs.run(case, "simulated")
        except GeojaxError as error:
            failures[case.name] = str(error)
    for repetition in range(1, repetitions + 1):
        for case in cases:
            if not runs.missing(case, repetition):
                continue
            try:
                runs.run(case, "emulated")
            except GeojaxError as error:
                failures[case.name] = str(error)
                print(f"error: {error}", file=sys.stderr, flush=True)
    outcomes = [
        Outcome(case, simulated.get(case), tuple(runs.emulated(case)[:repetitions]), failure=why)
        for case in cases
        for why in [failures.get(case.name)]
    ]
    return with_fit(outcomes)


def with_fit(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], Fit | None]:
    """Fits the constants on one half, and simulates all cases with what was found."""
    halves = {o.case: o.measured for o in outcomes if o.case.half == FIT}
    measured = {case: mean for case, mean in halves.items() if mean is not None}
    if not measured:
        return list(outcomes), None
    print(f"fitting {len(CONSTANTS)} constants on {len(measured)} cases", flush=True)
    found = fit(measured, quick)
    return [
        Outcome(o.case, o.simulated, o.emulated, quick(o.case, found.values), o.failure)
        for o in outcomes
    ], found


def facts() -> dict[str, str]:
    """Date, machine and versions, for the report."""
    from testbed.emulated.check import findings

    versions = ", ".join(f"{name} {version}" for name, version in records.versions().items())
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, "
        f"{platform.system()} {platform.release()}",
        "delays made by": findings()["delay_by"] or "not known",
        "versions": versions,
    }


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("calibrate", __doc__)
    parser.add_argument(
        "--repetitions", type=int, default=3, metavar="N", help="of each emulated run; default: 3"
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="some cases; see --list for their names"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="DIR",
        help="for the runs and the report; default: outputs/calibrate/ and the time",
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep the emulated runs that --output holds already"
    )
    parser.add_argument(
        "--docs",
        type=pathlib.Path,
        metavar="FILE",
        help=f"where the report goes as well; default: {DOCUMENT}, if all cases have their runs",
    )
    parser.add_argument("--list", action="store_true", help="show the cases and end")
    return parser


def _command(arguments: argparse.Namespace) -> str:
    """The command that repeats this calibration, wherever it writes to."""
    words = ["python -m experiments.calibrate", f"--repetitions {arguments.repetitions}"]
    return " ".join(words + (["--only", *arguments.only] if arguments.only else []))


def _open(arguments: argparse.Namespace) -> tuple[pathlib.Path, Runs]:
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    output = arguments.output or pathlib.Path("outputs/calibrate") / now
    runs = Runs(output, [constant.key for constant in CONSTANTS])
    if not runs.empty and not arguments.resume:
        fix = "it holds runs already: add --resume, or choose another directory"
        raise ConfigError("--output", str(output), fix)
    return output, runs


def _check(cases: Sequence[Case], arguments: argparse.Namespace, runs: Runs) -> None:
    """Refuses what cannot be done before anything runs."""
    from testbed.emulated.probe import why_not
    from testbed.run import check

    if arguments.repetitions < 1:
        raise ConfigError("--repetitions", arguments.repetitions, "write a number of at least 1")
    for case in cases:
        check(case.config("emulated"))
    if any(runs.missing(case, arguments.repetitions) for case in cases):
        reason = why_not()
        if reason is not None:
            raise GeojaxError(reason)


def _calibrate(arguments: argparse.Namespace) -> bool:
    """Does it all; returns whether every run was finished."""
    cases = chosen(arguments.only)
    if arguments.list:
        print(to_rich(case_table(cases)), end="")
        return True
    output, runs = _open(arguments)
    _check(cases, arguments, runs)
    outcomes, found = measure(cases, arguments.repetitions, runs)
    pieces = blocks(outcomes, found, Origin(_command(arguments), facts()))
    print(to_terminal(pieces), flush=True)
    whole = all(o.error is not None and len(o.emulated) == arguments.repetitions for o in outcomes)
    places = [output / DOCUMENT.name]
    if arguments.docs or (whole and len(cases) == len(CASES)):
        places.append(arguments.docs or DOCUMENT)
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(to_document(pieces))
    print(f"report: {', '.join(map(str, places))}")
    return whole


def main() -> None:
    """The command: exits with 0, 1 when a run failed, 2 when it cannot be done as asked."""
    arguments = _parser().parse_args()
    try:
        with command.refusing(), children.stoppable():
            finished = _calibrate(arguments)
    except children.Stopped as stopped:
        print("stopped; --output DIR --resume goes on from here", file=sys.stderr)
        sys.exit(128 + stopped.number)
    sys.exit(0 if finished else 1)


if __name__ == "__main__":
    main()
