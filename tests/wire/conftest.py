"""What the tests of the wire share: nothing that they open may stay open."""

from __future__ import annotations

import gc
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest


def _open_descriptors() -> set[str]:
    folder = Path("/proc/self/fd")
    if not folder.exists():
        return set()
    links = set()
    for descriptor in folder.iterdir():
        try:
            links.add(f"{descriptor.name}: {os.readlink(descriptor)}")
        except FileNotFoundError:  # the listing's own
            continue
    return {link for link in links if "socket:" in link}


@pytest.fixture(scope="module", autouse=True)
def _small_heap() -> Iterator[None]:
    """Keeps the collector off what earlier modules left: it runs after every test here."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def leaves_nothing_open() -> Iterator[None]:
    """Fails a test that leaves a thread or a socket behind."""
    before = _open_descriptors()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    threads = [t.name for t in threading.enumerate() if t.name.startswith("geojax-")]
    assert not threads
    assert not [str(w.message) for w in caught if w.category is ResourceWarning]
    assert _open_descriptors() <= before
