"""Optima of linear programs that an earlier run on this machine has found.

Loading SciPy takes longer than all linear programs of a short run, and the runs of a sweep have the
same ones. So where there are few, they are kept beside the compiled programs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from importlib.metadata import version
from pathlib import Path

from geojax.overlay.bounds import release
from geojax.overlay.bounds.release import Members, rate_of
from geojax.overlay.view import NetworkView
from testbed.compiled import compile_cache

FEW = 16  # linear programs of a run that are kept
_CODE = (
    "release.py",
    "fluid.py",
    "linear_program.py",
)  # what an optimum follows from, beside SciPy


def kept_rate_of(view: NetworkView, members: tuple[str, ...], later: Members) -> float:
    """The same as :func:`geojax.overlay.bounds.release.rate_of`, to the last bit."""
    folder = compile_cache()
    if not folder:
        return rate_of(view, members, later)
    kept = Path(folder) / "optima" / _name(view, members, later)
    with contextlib.suppress(OSError, ValueError):  # none yet, or cut off by a full disk
        return float.fromhex(kept.read_text())
    found = rate_of(view, members, later)
    partial = kept.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):  # a folder that may not be written, or a full disk
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(found.hex())
        partial.replace(kept)
    return found


def _name(view: NetworkView, members: tuple[str, ...], later: Members) -> str:
    """Of all that the optimum follows from, in the order in which the solver sees it."""
    folder = Path(release.__file__).parent
    problem = (
        version("scipy"), version("numpy"), *((folder / name).read_text() for name in _CODE),
        view.centers, list(view.rate.items()), list(view.egress.items()),
        list(view.ingress.items()), members, [member for member in members if member in later],
    )  # fmt: skip
    return hashlib.blake2s(repr(problem).encode()).hexdigest()
