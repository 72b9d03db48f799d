"""A table as text: for the terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from experiments.table.comparison import Table

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
    """A table for a terminal; as wide as its content where the output is no terminal."""
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in table.columns:
        justify = "right" if column.number else "left"
        shown.add_column(Text(column.header), justify=justify, overflow="fold")
    for cells in table.texts:
        shown.add_row(*map(Text, cells))
    console = Console()
    if not console.is_terminal:
        widest = Measurement.get(console, console.options.update(width=10_000), shown).maximum
        console = Console(width=max(widest, 80), color_system=None)
    with console.capture() as capture:
        console.print(shown)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    return "\n".join([*filter(None, lines), *table.notes]) + "\n"


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
