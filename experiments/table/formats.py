"""A table as text: for the terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

from experiments.table.comparison import Column, Table

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "–": "--",
    "…": r"\ldots{}",
}


def to_rich(table: Table) -> str:
    """A table for a terminal; as wide as its content where the output is no terminal.

    What is the same in all rows is told in a line above. On a terminal that is too narrow the
    figures follow in several blocks, each with the settings that tell the rows apart.
    """
    from rich.console import Console

    console = Console()
    width = console.width if console.is_terminal else 10_000
    return _folded(table, width, None if console.is_terminal else width)


def _folded(table: Table, width: int, fixed: int | None = None) -> str:
    """As :func:`to_rich`, for lines of so many characters; ``fixed``: without colours."""
    from rich.console import Console

    same, shown = _constant(table)
    names = [index for index in shown if not _is_figure(table.columns[index])]
    figures = [index for index in shown if index not in names]
    heads = _width(table, shown, wrapped=False) > width  # else they need no second line
    blocks: list[list[int]] = [[]]
    for index in figures:
        if blocks[-1] and _width(table, [*names, *blocks[-1], index], heads) > width:
            blocks.append([])
        blocks[-1].append(index)
    console = Console(width=width, color_system="auto" if fixed is None else None)
    texts = []
    for block in blocks:
        with console.capture() as capture:
            console.print(_rich(table, [*names, *block], heads))
        texts.append([line.rstrip() for line in capture.get().splitlines()])
    lines = [f"all rows: {same}"] if same else []
    for text in texts:
        lines += [*([""] if text is not texts[0] else []), *filter(None, text)]
    return "\n".join([*lines, *table.notes]) + "\n"


def _constant(table: Table) -> tuple[str, list[int]]:
    """What is the same in all of several rows, in words, and the numbers of the other columns.

    Figures that were measured are never left out, nor is the only thing that names the rows.
    """
    if len(table.texts) < 2:
        return "", [*range(len(table.columns))]
    same = [
        index
        for index, column in enumerate(table.columns)
        if not _is_figure(column) and len({cells[index] for cells in table.texts}) == 1
    ]
    told = [f"{_one_line(table.columns[i].header)} {table.texts[0][i]}" for i in same]
    return ", ".join(told), [i for i in range(len(table.columns)) if i not in same]


def _is_figure(column: Column) -> bool:
    return (column.number and column.key != "seeds") or column.key == "note"


def _rich(table: Table, chosen: Sequence[int], wrapped: bool) -> Any:
    """The columns as a table; ``wrapped``: no head is wider than its column needs."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for index in chosen:
        column = table.columns[index]
        cells = [cells[index] for cells in table.texts]
        words = [word for line in column.header.split("\n") for word in line.split(" ")]
        narrow = max(map(len, (*cells, *words, *([] if wrapped else column.header.split("\n")))))
        lines = [part for line in column.header.split("\n") for part in wrap(line, narrow) or [""]]
        shown.add_column(
            Text("\n".join(lines)),
            justify="right" if column.number else "left",
            overflow="fold",
            no_wrap=column.number,
        )
    for cells in table.texts:
        shown.add_row(*(Text(cells[index]) for index in chosen))
    return shown


def _width(table: Table, chosen: Sequence[int], wrapped: bool) -> int:
    """Characters of a line, where a note may be wrapped to a column of 30."""
    from rich.console import Console
    from rich.measure import Measurement

    notes = [index for index in chosen if table.columns[index].key == "note"]
    rest = [index for index in chosen if index not in notes]
    console = Console(width=10_000)
    measured = Measurement.get(console, console.options, _rich(table, rest, wrapped)).maximum
    return measured + (32 if notes else 0)


def to_markdown(table: Table) -> str:
    """A GitHub table."""
    heads = [_one_line(column.header) for column in table.columns]
    rules = ["---:" if column.number else "---" for column in table.columns]
    rows = [[cell.replace("|", "\\|") for cell in cells] for cells in (heads, rules, *table.texts)]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join(lines + [f"\n{note}" for note in table.notes]) + "\n"


def to_latex(table: Table) -> str:
    """A ``tabular`` with rules of the booktabs package."""
    layout = "".join("r" if column.number else "l" for column in table.columns)
    heads = [_one_line(column.header) for column in table.columns]
    lines = [rf"\begin{{tabular}}{{{layout}}}", r"\toprule", _latex_row(heads), r"\midrule"]
    lines += [_latex_row(cells) for cells in table.texts]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines + [f"% {note}" for note in table.notes]) + "\n"


def to_csv(table: Table) -> str:
    """Plain numbers in the summary's units; an empty field was not measured."""
    import pandas as pd

    return pd.DataFrame(table.values).to_csv(index=False)


def to_json(table: Table) -> str:
    """A list of objects, plain numbers in the summary's units; null was not measured."""
    return json.dumps(table.values, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[Table], str]] = {
    "rich": to_rich,
    "md": to_markdown,
    "csv": to_csv,
    "json": to_json,
    "latex": to_latex,
}


def _one_line(header: str) -> str:
    return header.replace("\n", " ")


def _latex_row(cells: Sequence[str]) -> str:
    escaped = ["".join(_LATEX.get(character, character) for character in cell) for cell in cells]
    return f"{' & '.join(escaped)} \\\\"
