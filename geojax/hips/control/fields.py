"""What the fields of control messages may hold: how a value is checked, written and read."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Callable, Collection
from dataclasses import MISSING, dataclass, field
from typing import Any

import numpy as np

from geojax.overlay.policy.cutting import packed, unpacked

MOST = 2**31 - 1  # of rounds, epochs and counts: what the header of a frame has room for
MANY = 2**63 - 1  # of bytes and elements: what msgpack has room for
LONGEST = 1 << 16  # entries of a list at most
MOST_CHUNKS = 1 << 22
MOST_BITS = 1 << 18  # of chunks by their bits: half of what a body has room for
MOST_VALUES = 16  # of a question or an answer


def as_it_is(value: Any) -> Any:
    """How most values are written."""
    return value


@dataclass(frozen=True)
class Form:
    """The form of a value.

    Attributes:
      says: what is expected, for errors.
      read: from a message's body; raises ValueError if the value has another form.
      example: one value, as read.
      write: the inverse of ``read``.
    """

    says: str
    read: Callable[[Any], Any]
    example: Any
    write: Callable[[Any], Any] = as_it_is


def has(form: Form, default: Any = MISSING, *, omit: bool = False, payload: bool = False) -> Any:
    """A field of a message.

    Args:
      form: of its values.
      default: for a message without it.
      omit: it is left out of the body where it is None.
      payload: it is the payload, since it may be larger than a body.
    """
    return field(default=default, metadata={"form": form, "omit": omit, "payload": payload})


def form(says: str, check: Callable[[Any], bool], example: Any) -> Form:
    """A form whose values are what they are in the body."""

    def read(value: Any) -> Any:
        if not check(value):
            raise ValueError(f"expected {says}, came {reprlib.repr(value)}")
        return value

    return Form(says, read, example)


def whole(least: int = 0, most: int = MOST) -> Form:
    """A whole number from ``least`` to ``most``."""
    return form(
        f"a whole number from {least} to {most}",
        lambda value: type(value) is int and least <= value <= most,
        max(least, 0),
    )


def number(least: float = -math.inf) -> Form:
    """A finite number that is not below ``least``."""
    return form(
        "a finite number" + (f" of at least {least:g}" if math.isfinite(least) else ""),
        lambda value: type(value) in (int, float) and math.isfinite(value) and value >= least,
        max(least, 0.0),
    )


def text(most: int = 1000) -> Form:
    """A text of at most ``most`` characters."""
    return form(
        f"a text of at most {most} characters",
        lambda value: type(value) is str and len(value) <= most,
        "text",
    )


FLAG = form("true or false", lambda value: type(value) is bool, True)
DIGEST = form(
    "16 hexadecimal digits",
    lambda value: type(value) is str and re.fullmatch("[0-9a-f]{16}", value) is not None,
    "0123456789abcdef",
)
BYTES = form("a payload", lambda value: value is not None, b"")
ROUND = whole(-1, MOST - 1)  # −1: none yet


def maybe(inner: Form) -> Form:
    """A value of another form, or None."""

    def read(value: Any) -> Any:
        return None if value is None else inner.read(value)

    return Form(f"{inner.says}, or none", read, inner.example, inner.write)


def many(inner: Form) -> Form:
    """A list of values of one form; read as a tuple."""

    def read(value: Any) -> Any:
        _check_list(value)
        return tuple(map(inner.read, value))

    says = f"a list, each entry {inner.says}"
    return Form(says, read, (inner.example,), lambda value: [inner.write(each) for each in value])


def row(*inner: Form) -> Form:
    """A list with one value of each form; read as a tuple."""

    def read(value: Any) -> Any:
        if _check_list(value) != len(inner):
            raise ValueError(f"expected a list of {len(inner)}, came one of {len(value)}")
        return tuple(of.read(each) for of, each in zip(inner, value, strict=True))

    def write(value: Any) -> Any:
        return [of.write(each) for of, each in zip(inner, value, strict=True)]

    says = f"a list of {', '.join(each.says for each in inner)}"
    return Form(says, read, tuple(each.example for each in inner), write)


def by_group(inner: Form) -> Form:
    """Values by member group; the body has the groups' indices as text."""

    def group(key: Any) -> int:
        if type(key) is not str or not (key.isascii() and key.isdigit() and len(key) < 8):
            raise ValueError(f"expected groups by index, came {reprlib.repr(key)}")
        return int(key)

    def read(value: Any) -> Any:
        if type(value) is not dict or len(value) > LONGEST:
            raise ValueError(f"expected a mapping by group, came {reprlib.repr(value)}")
        return {group(key): inner.read(each) for key, each in value.items()}

    def write(value: Any) -> Any:
        return {str(key): inner.write(each) for key, each in value.items()}

    return Form(f"a mapping from groups to {inner.says}", read, {0: inner.example}, write)


def _check_list(value: Any) -> int:
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list, came {reprlib.repr(value)}")
    if len(value) > LONGEST:
        raise ValueError(f"expected at most {LONGEST} entries, came {len(value)}")
    return len(value)


def _values(value: Any) -> dict[str, Any]:
    if type(value) is not dict or len(value) > MOST_VALUES:
        raise ValueError(f"expected at most {MOST_VALUES} named values, came {reprlib.repr(value)}")
    for name, each in value.items():
        if type(name) is not str or not 0 < len(name) <= 40:
            raise ValueError(f"expected short names, came {reprlib.repr(name)}")
        whole_one = type(each) is int and abs(each) <= MANY
        finite = type(each) is float and math.isfinite(each)
        short = type(each) is str and len(each) <= 200
        if not (each is None or type(each) is bool or whole_one or finite or short):
            raise ValueError(
                f"expected {name} to be none, true, false, a whole or finite number or a short "
                f"text, came {reprlib.repr(each)}"
            )
    return value


def _bits(value: Any) -> tuple[int, ...]:
    if type(value) is not bytes or len(value) > MOST_BITS // 8:
        raise ValueError(f"expected bits as at most {MOST_BITS // 8} bytes")
    return tuple(np.flatnonzero(np.unpackbits(np.frombuffer(value, np.uint8))).tolist())


def _as_bits(indices: Collection[int]) -> bytes:
    bits = np.zeros(max(indices, default=-1) + 1, np.uint8)
    bits[list(indices)] = 1
    return np.packbits(bits).tobytes()


CHUNKS = Form("indices of chunks, each a bit that is set", _bits, (0, 3), _as_bits)

VALUES = Form(f"at most {MOST_VALUES} plain values by name", _values, {"value": 1.5})

_RUNS = many(row(whole(0, MANY), whole(1, MOST_CHUNKS)))


def _sizes(value: Any) -> tuple[int, ...]:
    runs = _RUNS.read(value)
    if sum(times for _, times in runs) > MOST_CHUNKS:
        raise ValueError(f"expected at most {MOST_CHUNKS} pieces")
    return unpacked(runs)


SIZES = Form("sizes as runs of equal ones: [size, how many]", _sizes, (8,), packed)
