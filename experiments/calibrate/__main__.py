"""How good the simulator is: ``python -m experiments.calibrate [--repetitions 3]``.

Runs the same configurations on the simulated and on the emulated testbed, and reports the error of
the mean sync time: of held-out cases, and apart from them of those that the simulator's constants
were fitted on.

  ... --held-out      emulates the held-out cases; the figures of the others are the kept ones
  ... --recorded      emulates nothing: simulates anew, beside the kept figures; cases without any
                      show what is predicted for them
  ... --fit           fits the constants anew, to compare with the frozen ones
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import platform
import sys
from collections.abc import Mapping, Sequence

from experiments import command
from experiments.calibrate import figures
from experiments.calibrate.cases import FITTED, HELD_OUT, Case
from experiments.calibrate.figures import FIGURES, Emulated
from experiments.calibrate.fit import CONSTANTS, Fit, fit
from experiments.calibrate.outcome import Outcome
from experiments.calibrate.report import Origin, blocks, case_table, to_document, to_terminal
from experiments.calibrate.runs import Runs, simulated
from experiments.calibrate.table import CASES, chosen
from experiments.runs import records
from experiments.table.formats import to_rich
from experiments.train import children
from geojax.errors import ConfigError, GeojaxError

DOCUMENT = FIGURES.with_suffix(".md")


def emulate(cases: Sequence[Case], repetitions: int, runs: Runs) -> dict[Case, str]:
    """Makes all emulated runs that are missing; returns why cases failed.

    One repetition of all cases comes after another, so that what changes on the machine meanwhile
    shows in the spread. A run that fails is told in its case's outcome; the others go on.
    """
    failures = {}
    for repetition in range(1, repetitions + 1):
        for case in cases:
            if not runs.missing(case, repetition):
                continue
            try:
                runs.run(case)
            except GeojaxError as error:
                failures[case] = str(error)
                print(f"error: {error}", file=sys.stderr, flush=True)
    return failures


def judge(
    cases: Sequence[Case], emulated: Mapping[Case, Emulated], failures: Mapping[Case, str]
) -> list[Outcome]:
    """Simulates all cases, and puts both testbeds' figures beside each other."""
    outcomes = []
    for case in cases:
        why, measured = failures.get(case), None
        try:
            measured = simulated(case)
        except GeojaxError as error:
            why = f"{case.name}, simulated: {error}"
        outcomes.append(Outcome(case, measured, emulated.get(case), why))
    return outcomes


def refit(outcomes: Sequence[Outcome]) -> Fit | None:
    """Fits the constants on the cases that are there for it; None if none was measured."""
    measured = {
        o.case: o.emulated.mean
        for o in outcomes
        if o.case.part == FITTED and o.emulated is not None
    }
    if not measured:
        return None
    print(f"fitting {len(CONSTANTS)} constants on {len(measured)} cases", flush=True)
    return fit(measured, lambda case, constants: simulated(case, constants).mean)


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
    emulated = parser.add_mutually_exclusive_group()
    emulated.add_argument(
        "--held-out",
        action="store_true",
        help=f"emulate the held-out cases only; the others' figures are those of {FIGURES.name}",
    )
    emulated.add_argument(
        "--recorded", action="store_true", help=f"emulate nothing; figures are in {FIGURES.name}"
    )
    parser.add_argument("--fit", action="store_true", help="fit the constants, for comparison")
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
    words = ["python -m experiments.calibrate"]
    words += ["--held-out"] if arguments.held_out else []
    words += ["--recorded"] if arguments.recorded else [f"--repetitions {arguments.repetitions}"]
    words += ["--fit"] if arguments.fit else []
    return " ".join(words + (["--only", *arguments.only] if arguments.only else []))


def _open(arguments: argparse.Namespace) -> tuple[pathlib.Path, Runs]:
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    output = arguments.output or pathlib.Path("outputs/calibrate") / now
    runs = Runs(output, [constant.key for constant in CONSTANTS])
    if not runs.empty and not arguments.resume:
        fix = "it holds runs already: add --resume, or choose another directory"
        raise ConfigError("--output", str(output), fix)
    return output, runs


def _emulated_cases(cases: Sequence[Case], arguments: argparse.Namespace) -> list[Case]:
    """Those that are emulated now."""
    if arguments.recorded:
        return []
    return [case for case in cases if not arguments.held_out or case.part == HELD_OUT]


def _check(now: Sequence[Case], arguments: argparse.Namespace, runs: Runs) -> None:
    """Refuses what cannot be done before anything runs."""
    from testbed.emulated.probe import why_not
    from testbed.run import check

    if arguments.repetitions < 1:
        raise ConfigError("--repetitions", arguments.repetitions, "write a number of at least 1")
    for case in now:
        check(case.config("emulated"))
    if any(runs.missing(case, arguments.repetitions) for case in now):
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
    now = _emulated_cases(cases, arguments)
    kept = figures.load(FIGURES, [case for case in cases if case not in now])
    _check(now, arguments, runs)
    failures = emulate(now, arguments.repetitions, runs)
    about = facts()
    found = kept | _fresh(now, runs, arguments.repetitions, about)
    outcomes = judge(cases, found, failures)
    fitted = refit(outcomes) if arguments.fit else None
    pieces = blocks(outcomes, fitted, Origin(_command(arguments), about))
    print(to_terminal(pieces), flush=True)
    finished = all(not runs.missing(case, arguments.repetitions) for case in now)
    finished = finished and not any(outcome.failure for outcome in outcomes)
    whole = finished and all(outcome.emulated for outcome in outcomes)
    places = [output / DOCUMENT.name]
    if arguments.docs or (whole and len(cases) == len(CASES)):
        places.append(arguments.docs or DOCUMENT)
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(to_document(pieces))
        figures.save(place.with_suffix(".json"), {c: found[c] for c in cases if c in found})
    print(f"report: {', '.join(map(str, places))}")
    return finished


def _fresh(
    cases: Sequence[Case], runs: Runs, repetitions: int, about: Mapping[str, str]
) -> dict[Case, Emulated]:
    """The figures of the runs that this calibration made."""
    origin = "; ".join(f"{name}: {value}" for name, value in about.items() if name != "date")
    made = {
        case: figures.emulated(runs.emulated(case)[:repetitions], about["date"], origin)
        for case in cases
    }
    return {case: each for case, each in made.items() if each is not None}


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
