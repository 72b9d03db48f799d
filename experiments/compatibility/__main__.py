"""What goes with what: ``python -m experiments.compatibility [--write]``.

Every codec with every synchronization mode and every kind of global servers either trains in a
short simulated run, or is refused before it starts. All of these runs are made, and
``docs/compatibility.md`` says what came of them; without ``--write`` the two are compared.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.progress import track

from experiments import command
from experiments.compatibility.axes import (
    CODECS,
    MODES,
    REFUSED,
    SERVERS,
    SEVERAL,
    STEPS,
    Case,
    config_of,
    everything,
    written,
)
from geojax.errors import ConfigError, GeojaxError
from geojax.sync.registry import build_sync
from testbed.run import check, prepare
from testbed.simulated.run import simulate

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
TRAINS = "+"
LEARNS = 0.95  # the last loss ÷ the first one, at most


class Outcome(NamedTuple):
    """What came of a case.

    Attributes:
      refusal: why it is refused at start; empty: it is not.
      problem: what is wrong with the run, or with the refusal; empty: nothing.
    """

    refusal: str = ""
    problem: str = ""


def outcome(case: Case) -> Outcome:
    """Makes the run of a case, if it is not refused."""
    config = config_of(case.settings, workers=case.workers)
    try:
        with tempfile.TemporaryDirectory(prefix="geojax-compatibility-") as folder:
            setup, wan, faults = prepare(config, pathlib.Path(folder))
            setup.models.mkdir()
            events: list[dict[str, Any]] = []
            simulate(setup, wan, faults, events.append)
    except ConfigError as error:
        return Outcome(refusal=str(error))
    except GeojaxError as error:
        return Outcome(problem=f"it failed: {error}")
    losses = [event["loss"] for event in events if event["event"] == "evaluation"]
    ends = [event for event in events if event["event"] == "final"]
    if not all(map(math.isfinite, losses)) or losses[-1] > LEARNS * losses[0]:
        return Outcome(problem=f"it does not learn: losses {losses}")
    if [event["round"] for event in ends] != [config.rounds - 1] * len(setup.cluster.servers):
        return Outcome(problem=f"not every center made all rounds: {ends}")
    together = build_sync(config.sync).admission.exchange == "tree"
    if together and len({event["digest"] for event in ends}) > 1:
        return Outcome(problem="the centers end with different parameters")
    return Outcome()


def problems(outcomes: Mapping[Case, Outcome]) -> list[str]:
    """What is wrong, a line each; a case may not be refused with some number of workers only."""
    wrong = [
        f"{written(c.settings)} ({c.workers}): {o.problem}"
        for c, o in outcomes.items()
        if o.problem
    ]
    refusals: dict[tuple[str, ...], str] = {}
    for case, found in outcomes.items():
        if refusals.setdefault(case[:3], found.refusal) != found.refusal:
            wrong.append(f"{written(case.settings)}: the refusal depends on the workers")
    return wrong


def refusal(settings: Mapping[str, Any]) -> str:
    """Why settings are refused; raises ``ValueError`` if they are not."""
    try:
        check(config_of(settings))
    except ConfigError as error:
        return str(error)
    raise ValueError(f"expected to be refused: {written(settings)}")


def document(outcomes: Mapping[Case, Outcome]) -> str:
    """The text of ``docs/compatibility.md``.

    Args:
      outcomes: of the whole product, all without a problem.
    """
    found = {case[:3]: each.refusal for case, each in outcomes.items()}
    marks = {
        reason: f"({at})"
        for at, reason in enumerate(filter(None, dict.fromkeys(found.values())), 1)
    }
    pieces = [_HEAD]
    for servers, settings in SERVERS.items():
        rows = [
            [codec, *(marks.get(found[codec, mode, servers], TRAINS) for mode in MODES)]
            for codec in CODECS
        ]
        title = f"## {servers[0].upper()}{servers[1:]}"
        pieces += [title, f"`{written(settings)}`", _table(["codec", *MODES], rows)]
    reasons = [[mark, reason] for reason, mark in marks.items()]
    pieces += ["## Why some are refused", _table(["", "what geojax says"], reasons)]
    others = [[f"`{written(settings)}`", refusal(settings)] for settings in REFUSED]
    pieces += [_OTHERS, _table(["settings", "what geojax says"], others), _SETTINGS]
    used = [[name, f"`{written(each)}`"] for name, each in {**CODECS, **MODES}.items()]
    pieces.append(_table(["name", "settings"], used))
    several = [[name, f"`{written(each)}`"] for name, each in SEVERAL.items()]
    pieces += [_SEVERAL, _table(["name", "settings"], several)]
    return "\n\n".join(pieces) + "\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


_HEAD = f"""# What goes with what

Made by `python -m experiments.compatibility --write`; do not edit, run it again.

A {TRAINS} says that a short simulated run of three centers learns (an MLP on the digits,
{STEPS} steps, with one worker and with two in every center; `halos`, which one worker is refused
for, with two), that all losses are finite, and that
centers which go together end with the same parameters, bit for bit. A number says that it is
refused before the run starts, and why: see below."""

_OTHERS = """## Other settings that do not go together

No table has room for these. They are refused at start, too."""

_SETTINGS = """## The settings behind the names"""

_SEVERAL = "With two workers in a center these have besides:"


def main() -> int:
    """Makes all runs; writes the document, or compares."""
    parser = command.parser("compatibility", __doc__)
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name}")
    options = parser.parse_args()
    os.environ.setdefault("NPROC", "1")  # one XLA thread: centers must agree bit for bit
    logging.getLogger("geojax").setLevel(logging.ERROR)
    outcomes = {case: outcome(case) for case in track(everything(), "runs", transient=True)}
    wrong = problems(outcomes)
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        return 1
    text = document(outcomes)
    if options.write:
        DOCUMENT.write_text(text)
        return 0
    kept = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    changes = difflib.unified_diff(
        kept.splitlines(), text.splitlines(), str(DOCUMENT), "found now", lineterm=""
    )
    told = list(changes)
    print(*(told or [f"{DOCUMENT.name} says what was found"]), sep="\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
