"""Fixtures of the data tests."""

import pytest

from geojax.data import fashion_mnist, mnist


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """An empty machine: no package, no cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(mnist, "find_archive", lambda: None)
    return tmp_path
