"""The calibration's report: the same tables for the terminal and for ``docs/calibration.md``."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.calibrate.cases import FIT, HELD_OUT, Case
from experiments.calibrate.fit import CONSTANTS, Fit, relative_error
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
    return [*made, *_verdict(outcomes), *_half(HELD_OUT, outcomes), *_constants(outcomes, found),
            *_half(FIT, outcomes), "## The cases", case_table([o.case for o in outcomes]),
            *_DEFINITIONS]  # fmt: skip


_DEFINITIONS = (
    "## What the figures mean",
    "Both testbeds run the same configuration with the same seed: same rounds, same changes of "
    "rates at the same experiment time. *Sync time* of a round is from the last offer made to the "
    "last whole result held. Its mean is over **all** rounds, the first included, in which "
    "connections are set up and TCP begins with its initial window; *first round* shows the error "
    "of that one alone. The simulated run is deterministic, so it has no spread; *emulated* is the "
    "mean over the repetitions ± the sample standard deviation of their means. *Error* is "
    "(simulated − emulated) ÷ emulated. *CPU* is the largest busy share of all cores, whoever used "
    f"them; above {CPU_LIMIT:.0%} it is marked with !.",
    "No rate, message size or delay of the held-out half occurs in the half that the constants are "
    "fitted on.",
)


def case_table(cases: Sequence[Case]) -> Table:
    """What the cases are."""
    heads = ("case", "half", "WAN", "rates (Mbit/s)", "RTT (ms)", "message (MB)", "rounds", "kind")
    keys = ("case", "half", "wan", "rates", "rtt", "bytes", "rounds", "kind")
    columns = [
        Column(k, h, number=k in ("bytes", "rounds")) for k, h in zip(keys, heads, strict=True)
    ]
    texts = [
        [
            case.name, case.half, case.shape(), _span(case.rates()), _span(case.delays()),
            f"{case.nbytes / 1e6:g}", str(case.rounds), ", ".join(case.traits()),
        ]
        for case in cases
    ]  # fmt: skip
    return Table(columns, texts, [dict(zip(keys, row, strict=True)) for row in texts])


def _verdict(outcomes: Sequence[Outcome]) -> list[Block]:
    errors = {o.case.name: o.error for o in outcomes if o.case.half == HELD_OUT}
    known = {name: error for name, error in errors.items() if error is not None}
    if not known:
        return ["No case of the held-out half was measured."]
    mean = statistics.fmean(map(abs, known.values()))
    worst = max(known, key=lambda name: abs(known[name]))
    unknown = len(errors) - len(known)
    lines = [
        f"**Held-out half, {_count(len(known))}: mean absolute error {mean:.1%} of the mean sync "
        f"time (goal ≤ {MEAN_GOAL:.0%}: {_met(mean <= MEAN_GOAL)}), worst case {worst} with "
        f"{known[worst]:+.1%} (goal ≤ {WORST_GOAL:.0%}: "
        f"{_met(abs(known[worst]) <= WORST_GOAL)}).**"
    ]
    return [*lines, *([f"Without a result: {_count(unknown)}."] if unknown else [])]


def _count(cases: int) -> str:
    return "1 case" if cases == 1 else f"{cases} cases"


def _met(met: bool) -> str:
    return "met" if met else "missed"


def _half(half: str, outcomes: Sequence[Outcome]) -> list[Block]:
    shown = [outcome for outcome in outcomes if outcome.case.half == half]
    if not shown:
        return []
    title = "## The held-out half" if half == HELD_OUT else "## The half that was fitted"
    return [title, _outcome_table(shown)]


def _outcome_table(outcomes: Sequence[Outcome]) -> Table:
    factor = next(c.default for c in CONSTANTS if c.key == "testbed.goodput_factor")
    columns = [
        Column("case", "case"),
        Column("simulated_s", "simulated (s)", number=True),
        Column("emulated_s", "emulated (s)", number=True),
        Column("repetitions", "runs", number=True),
        Column("error", "error", number=True),
        Column("first_round_error", "first round", number=True),
        Column("cpu_share", "CPU", number=True),
        Column("note", "what the figures say"),
    ]
    texts, values = [], []
    for o in outcomes:
        simulated = None if o.simulated is None else o.simulated.mean
        first = None if o.first_rounds is None else relative_error(*o.first_rounds)
        spread = (
            "" if o.spread is None or o.measured is None else f" ± {_like(o.spread, o.measured)}"
        )
        busy = "" if o.cpu_share is None or o.cpu_share <= CPU_LIMIT else " !"
        note = explain(o, factor)
        texts.append(
            [
                o.case.name, seconds(simulated), seconds(o.measured) + spread,
                str(len(o.emulated)), _percent(o.error), _percent(first),
                ABSENT if o.cpu_share is None else f"{o.cpu_share:.0%}{busy}", note,
            ]
        )  # fmt: skip
        values.append(
            {
                "case": o.case.name, "simulated_s": simulated, "emulated_s": o.measured,
                "emulated_std_s": o.spread, "repetitions": len(o.emulated), "error": o.error,
                "fitted_error": o.fitted_error, "first_round_error": first,
                "cpu_share": o.cpu_share, "note": note,
            }
        )  # fmt: skip
    return Table(columns, texts, values)


def _constants(outcomes: Sequence[Outcome], found: Fit | None) -> list[Block]:
    title = "## The constants"
    if found is None:
        return [title, "Nothing was fitted: no case of that half was measured."]
    columns = [
        Column("key", "constant"),
        Column("meaning", "meaning"),
        Column("default", "frozen in geojax/config.py", number=True),
        Column("fit", "fit", number=True),
    ]
    values = [
        {
            "key": c.key,
            "meaning": c.meaning,
            "default": found.frozen[c.key],
            "fit": found.values[c.key],
        }
        for c in CONSTANTS
    ]
    units = {c.key: f" {c.unit}" if c.unit else "" for c in CONSTANTS}
    texts = [
        [
            str(v["key"]),
            str(v["meaning"]),
            *(f"{v[k]:g}{units[str(v['key'])]}" for k in ("default", "fit")),
        ]
        for v in values
    ]
    moved = [str(v["key"]) for v in values if v["default"] != v["fit"]]
    same = "The frozen defaults are the fit." if not moved else (
        f"The frozen defaults differ from this fit in {', '.join(moved)}."
    )  # fmt: skip
    lines = [
        f"{same} Mean absolute error of the half that was fitted: {found.default_error:.2%} with "
        f"the defaults, {found.error:.2%} with the fit ({found.runs} simulated runs)."
    ]
    errors = [o.fitted_error for o in outcomes if o.case.half == HELD_OUT]
    held_out = [abs(error) for error in errors if error is not None]
    if moved and held_out:
        lines.append(
            f"With the fit, the held-out half would have {statistics.fmean(held_out):.1%}, at "
            f"worst {max(held_out):.1%}."
        )
    if found.at_edge:
        lines.append(f"At the edge of what was tried: {', '.join(found.at_edge)}.")
    return [title, Table(columns, texts, values), " ".join(lines)]


def to_terminal(pieces: Sequence[Block]) -> str:
    """The report for a terminal."""
    return "\n".join(to_rich(each) if isinstance(each, Table) else f"{each}\n" for each in pieces)


def to_document(pieces: Sequence[Block]) -> str:
    """The report as a Markdown file."""
    texts = [to_markdown(each).strip() if isinstance(each, Table) else each for each in pieces]
    return "\n\n".join(texts) + "\n"


def _span(values: Sequence[float]) -> str:
    """The range of some ascending numbers, or the only one."""
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g}–{values[-1]:g}"


def _percent(value: float | None) -> str:
    return ABSENT if value is None else f"{value:+.1%}"


def _like(value: float, other: float) -> str:
    """A number with as many decimals as ``other`` has when shown in seconds."""
    decimals = len(seconds(other).partition(".")[2])
    return f"{value:.{decimals}f}"
