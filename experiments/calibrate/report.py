"""The calibration's report: the same tables for the terminal and for ``docs/calibration.md``."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.calibrate import frozen
from experiments.calibrate.cases import FITTED, HELD_OUT, Case
from experiments.calibrate.fit import CONSTANTS, Fit, defaults, relative_error
from experiments.calibrate.history import FREEZE, HISTORY
from experiments.calibrate.outcome import (
    CPU_LIMIT,
    MEAN_GOAL,
    WORST_GOAL,
    Outcome,
    explain,
    seconds,
)
from experiments.table.comparison import ABSENT, Column, Table
from experiments.table.formats import to_markdown, to_rich

STARS = ("star", "sharded_star")

Block = str | Table
"""A paragraph (Markdown, also readable as it is) or a table."""


@dataclass(frozen=True)
class Origin:
    """Where and how the report was made.

    Attributes:
      command: repeats it.
      facts: date, machine, versions and the like, by name.
    """

    command: str
    facts: Mapping[str, str]


def blocks(outcomes: Sequence[Outcome], found: Fit | None, origin: Origin) -> list[Block]:
    """The report, piece by piece."""
    facts = [f"- {name}: {value}" for name, value in origin.facts.items()]
    made = [
        "# Calibration of the simulator",
        f"Made by `{origin.command}`; do not edit, run it again.",
        "\n".join(facts),
    ]
    seen = ["## What was seen when", *HISTORY, _still_frozen()]
    return [*made, *_verdict(outcomes), *seen, *_part(HELD_OUT, outcomes),
            *_part(FITTED, outcomes), *_constants(found),
            "## The cases", case_table([o.case for o in outcomes]), *_DEFINITIONS]  # fmt: skip


_DEFINITIONS = (
    "## What the figures mean",
    "Both testbeds run the same configuration with the same seed: same rounds, same changes of "
    "rates at the same experiment time. *Sync time* of a round is from the last offer made to the "
    "last whole result held. Its mean is over **all** rounds, the first included, in which "
    "connections are set up and TCP begins with its initial window; *first round* shows the error "
    "of that one alone. The simulated run is deterministic, so it has no spread; *emulated* is the "
    "mean over the repetitions ± the sample standard deviation of their means, *on* the day of "
    "these runs. *Error* is (simulated − emulated) ÷ emulated. *CPU* is the largest busy share of "
    f"all cores, whoever used them; above {CPU_LIMIT:.0%} it is marked with !.",
    "No rate, message size or delay of the held-out cases occurs in a fitted one. The emulated "
    "figures are kept in [calibration.json](calibration.json), with date, machine and versions; "
    "`python -m experiments.calibrate --recorded` makes this page from them and from new "
    "simulations.",
)

_CASE_COLUMNS = {
    "case": "case",
    "part": "part",
    "wan": "WAN",
    "rates": "rates (Mbit/s)",
    "rtt": "RTT (ms)",
    "bytes": "message (MB)",
    "chunk": "chunk (elements)",
    "rounds": "rounds",
    "overlay": "overlay",
    "settings": "further settings",
    "kind": "kind",
}


def case_table(cases: Sequence[Case]) -> Table:
    """What the cases are."""
    columns = [
        Column(key, head, number=key in ("bytes", "chunk", "rounds"))
        for key, head in _CASE_COLUMNS.items()
    ]
    values = [
        {"case": c.name, "part": c.part, **c.described(), "kind": ", ".join(c.traits())}
        for c in cases
    ]
    return Table(columns, [[row[key] for key in _CASE_COLUMNS] for row in values], values)


def _still_frozen() -> str:
    """Whether the defaults of today are those that were frozen."""
    moved = frozen.moved()
    if moved:
        return f"**Since then the defaults of {', '.join(moved)} have changed: no verdict holds.**"
    return f"Today's defaults are the frozen ones ({FREEZE}, {frozen.DATE})."


def _verdict(outcomes: Sequence[Outcome]) -> list[Block]:
    held_out = [o for o in outcomes if o.case.part == HELD_OUT]
    known = {o.case.name: o.error for o in held_out if o.error is not None}
    if not known:
        return ["No held-out case has been emulated yet; *simulated* is a prediction."]
    mean = statistics.fmean(map(abs, known.values()))
    worst = max(known, key=lambda name: abs(known[name]))
    stars = [
        f"{o.case.name} {o.error:+.1%}"
        for o in held_out
        if o.error is not None and o.case.overlay in STARS
    ]
    lines = [
        f"**Held out, {_count(len(known))}: mean absolute error {mean:.1%} of the mean sync "
        f"time (goal ≤ {MEAN_GOAL:.0%}: {_met(mean <= MEAN_GOAL)}), worst case {worst} with "
        f"{known[worst]:+.1%} (goal ≤ {WORST_GOAL:.0%}: "
        f"{_met(abs(known[worst]) <= WORST_GOAL)}).**",
        *([f"Stars among them: {', '.join(stars)}."] if stars else []),
    ]
    unknown = len(held_out) - len(known)
    return [*lines, *([f"Without a result: {_count(unknown)}."] if unknown else [])]


def _count(cases: int) -> str:
    return "1 case" if cases == 1 else f"{cases} cases"


def _met(met: bool) -> str:
    return "met" if met else "missed"


def _part(part: str, outcomes: Sequence[Outcome]) -> list[Block]:
    shown = [outcome for outcome in outcomes if outcome.case.part == part]
    if not shown:
        return []
    table = _outcome_table(shown)
    if part == HELD_OUT:
        return ["## The held-out cases", table]
    errors = [abs(o.error) for o in shown if o.error is not None]
    pieces: list[Block] = ["## The cases that were fitted"]
    if errors:
        pieces.append(
            f"Mean absolute error {statistics.fmean(errors):.1%}, at worst {max(errors):.1%}; not "
            "evidence, as the constants were chosen on these cases."
        )
    return [*pieces, table]


def _outcome_table(outcomes: Sequence[Outcome]) -> Table:
    factor = defaults()["testbed.goodput_factor"]
    columns = [
        Column("case", "case"),
        Column("simulated_s", "simulated (s)", number=True),
        Column("emulated_s", "emulated (s)", number=True),
        Column("repetitions", "runs", number=True),
        Column("date", "on"),
        Column("error", "error", number=True),
        Column("first_round_error", "first round", number=True),
        Column("cpu_share", "CPU", number=True),
        Column("note", "what the figures say"),
    ]
    values = [_outcome_row(outcome, factor) for outcome in outcomes]
    texts = []
    for row in values:
        spread, cpu = row["emulated_std_s"], row["cpu_share"]
        plus_minus = "" if spread is None else f" ± {_like(spread, row['emulated_s'])}"
        busy = "" if cpu is None or cpu <= CPU_LIMIT else " !"
        texts.append(
            [
                row["case"], seconds(row["simulated_s"]), seconds(row["emulated_s"]) + plus_minus,
                str(row["repetitions"]), row["date"] or ABSENT, _percent(row["error"]),
                _percent(row["first_round_error"]),
                ABSENT if cpu is None else f"{cpu:.0%}{busy}", row["note"],
            ]
        )  # fmt: skip
    return Table(columns, texts, values)


def _outcome_row(outcome: Outcome, factor: float) -> dict[str, Any]:
    first, emulated = outcome.first_rounds, outcome.emulated
    return {
        "case": outcome.case.name,
        "simulated_s": None if outcome.simulated is None else outcome.simulated.mean,
        "emulated_s": None if emulated is None else emulated.mean,
        "emulated_std_s": None if emulated is None else emulated.spread,
        "repetitions": 0 if emulated is None else emulated.repetitions,
        "date": None if emulated is None else emulated.date,
        "error": outcome.error,
        "first_round_error": None if first is None else relative_error(*first),
        "cpu_share": None if emulated is None else emulated.cpu_share,
        "note": explain(outcome, factor),
    }


def _constants(found: Fit | None) -> list[Block]:
    columns = [
        Column("key", "constant"),
        Column("meaning", "meaning"),
        Column("default", "frozen in geojax/config.py", number=True),
        *([] if found is None else [Column("fit", "fit", number=True)]),
    ]
    values, texts = [], []
    for c in CONSTANTS:
        unit = f" {c.unit}" if c.unit else ""
        figures = {"default": c.default, **({} if found is None else {"fit": found.values[c.key]})}
        values.append({"key": c.key, "meaning": c.meaning, **figures})
        texts.append([c.key, c.meaning, *(f"{value:g}{unit}" for value in figures.values())])
    pieces: list[Block] = ["## The constants", Table(columns, texts, values)]
    return pieces if found is None else [*pieces, _fitted(found)]


def _fitted(found: Fit) -> str:
    moved = [key for key, value in found.values.items() if value != found.frozen[key]]
    same = "The frozen defaults are the fit." if not moved else (
        f"The frozen defaults differ from this fit in {', '.join(moved)}."
    )  # fmt: skip
    edge = f" At the edge of what was tried: {', '.join(found.at_edge)}." if found.at_edge else ""
    return (
        f"{same} Mean absolute error of the fitted cases: {found.default_error:.2%} with "
        f"the defaults, {found.error:.2%} with the fit ({found.runs} simulated runs).{edge}"
    )


def to_terminal(pieces: Sequence[Block]) -> str:
    """The report for a terminal."""
    return "\n".join(to_rich(each) if isinstance(each, Table) else f"{each}\n" for each in pieces)


def to_document(pieces: Sequence[Block]) -> str:
    """The report as a Markdown file."""
    texts = [to_markdown(each).strip() if isinstance(each, Table) else each for each in pieces]
    return "\n\n".join(texts) + "\n"


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.1%}"


def _like(value: float, other: float) -> str:
    """A number with as many decimals as ``other`` has when shown in seconds."""
    decimals = len(seconds(other).partition(".")[2])
    return f"{value:.{decimals}f}"
