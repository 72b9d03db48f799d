"""Checksums of frames: zlib's numbers, with and without the package that computes them faster."""

from __future__ import annotations

import importlib
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.wire import checksum


@given(parts=st.lists(st.binary(max_size=300)), repeats=st.sampled_from([1, 1000]))
def test_part_by_part_it_is_zlibs_number(parts: list[bytes], repeats: int) -> None:
    parts = [part * repeats for part in parts]
    value = 0
    for part in parts:
        value = checksum.crc32(memoryview(bytearray(part)), value)
    assert value == zlib.crc32(b"".join(parts))


def test_zlib_stands_in_where_isal_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    try:
        assert importlib.reload(checksum).crc32 is zlib.crc32
    finally:
        monkeypatch.undo()
        importlib.reload(checksum)


def test_isal_is_taken_where_it_is_installed() -> None:
    isal_zlib = pytest.importorskip("isal.isal_zlib", reason="isal is not installed (extra 'fast')")
    assert checksum.crc32 is isal_zlib.crc32
