"""Where compiled programs are kept for the next process that needs them."""

from __future__ import annotations

import os
from pathlib import Path


def compile_cache() -> str:
    """``JAX_COMPILATION_CACHE_DIR``, or else a folder of the user's own caches."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return os.environ.get("JAX_COMPILATION_CACHE_DIR", str(caches / "geojax" / "compiled"))
