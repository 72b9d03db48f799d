"""Where compiled programs are kept for the next process that needs them."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from pathlib import Path

_TELLING = ("model name", "flags", "CPU part", "Features")  # of a processor, in /proc/cpuinfo


@functools.cache
def cpu_kind(info: Path = Path("/proc/cpuinfo")) -> str:
    """A word for this machine's kind of processor: machines that share a folder may differ.

    A program that was compiled for another kind may have instructions that this one lacks.
    """
    lines = info.read_text().splitlines() if info.exists() else []
    kind = sorted({line for line in lines if line.startswith(_TELLING)}) or [platform.platform()]
    return hashlib.sha256("\n".join(kind).encode()).hexdigest()[:12]


def compile_cache() -> str:
    """``JAX_COMPILATION_CACHE_DIR``, or else a folder of the user's own caches, by kind of CPU.

    Empty where there is none: the user has no home, or may not write there.
    """
    stated = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if stated is not None:
        return stated
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(caches) / "geojax" / "compiled" / cpu_kind()
    try:
        if folder.is_absolute():  # else there is no home
            folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return ""
    return str(folder) if os.access(folder, os.W_OK) else ""
