"""The loops of codecs once more, compiled by numba, an optional extra: each reads and writes once.

They give the same payloads, residuals and values as numpy's, bit for bit, so nothing but speed
depends on them. A module compiles its loops when it is imported, and only a codec that uses them
imports it. Machine code is kept beside the sources, or in the user's cache, for the next process.
"""

from __future__ import annotations

import importlib.util


def installed() -> bool:
    """Whether the loops can be compiled here: numba is installed (``pip install geojax[fast]``)."""
    return importlib.util.find_spec("numba") is not None
