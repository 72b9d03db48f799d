"""Where compiled programs are kept for the next process that needs them."""

from __future__ import annotations

import os
from pathlib import Path


def compile_cache() -> str:
    """``JAX_COMPILATION_CACHE_DIR``, or else a folder of the user's own caches.

    Empty where there is none: the user has no home, or may not write there.
    """
    stated = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if stated is not None:
        return stated
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(caches) / "geojax" / "compiled"
    try:
        if folder.is_absolute():  # else there is no home
            folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    return str(folder) if os.access(folder, os.W_OK) else ""
