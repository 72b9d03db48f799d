"""What the benchmarks share: a parser for their options, and tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from experiments import command
from geojax.errors import GeojaxError


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m experiments.bench.<name>``."""
    return command.parser(f"bench.{name}", description)


def empty_table(title: str, columns: Sequence[str], *, words: int = 1) -> Table:
    """A table without rows: its first ``words`` columns are text, the others numbers."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index < words else "right")
    return table


def show(measure: Callable[[], Table], width: int = 110) -> int:
    """Measures and prints the table, at least ``width`` characters wide.

    Returns:
      The exit code: 2 if a ``GeojaxError`` ended it, which is printed instead.
    """
    try:
        table = measure()
    except GeojaxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console(width=max(width, Console().width)).print(table)
    return 0
