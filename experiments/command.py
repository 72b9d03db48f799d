"""What all commands share: a parser for their options, and how an error ends them."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import sys
from collections.abc import Iterator

from geojax.errors import GeojaxError, telling_of_machine

_PLAIN = {"±": "+/-", "×": "x", "÷": "/", "–": "-", "−": "-", "…": "...", "†": "*"}


def plain_where_needed() -> None:
    """Lets output that cannot show a character, such as ASCII's ±, show a plain one instead."""
    codecs.register_error("geojax.plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="geojax.plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in text), error.end


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of ``python -m experiments.<module>``; its help keeps the line breaks."""
    plain_where_needed()
    return argparse.ArgumentParser(
        prog=f"python -m experiments.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """Ends the command with exit code 2 when a ``GeojaxError`` ends the work; prints it.

    So do conditions of the machine, see :func:`geojax.errors.telling_of_machine`.
    """
    try:
        with telling_of_machine():
            yield
    except GeojaxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
