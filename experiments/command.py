"""What all commands share: a parser for their options, and how an error ends them."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator

from geojax.errors import GeojaxError


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m experiments.<module>``; its help keeps the line breaks."""
    return argparse.ArgumentParser(
        prog=f"python -m experiments.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Ends the command with exit code 2 when a ``GeojaxError`` ends the work; prints it."""
    try:
        yield
    except GeojaxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
