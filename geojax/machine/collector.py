"""Python's collector of cycles in the processes of a run."""

from __future__ import annotations

import atexit
import gc

SELDOM = (100_000, 20, 50)  # collections of young, middle-aged and old objects


def collect_seldom() -> None:
    """Has this process look for cycles seldom, and not when it ends.

    Its imports, and JAX as it traces a program, make many objects and few cycles. Called before
    they are made: at the end, looking at all of them takes a tenth of what a short run takes.
    """
    gc.set_threshold(*SELDOM)
    atexit.register(gc.freeze)
