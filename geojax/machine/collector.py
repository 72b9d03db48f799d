"""Python's collector of cycles in the processes of a run."""

from __future__ import annotations

import gc

SELDOM = (100_000, 20, 50)  # collections of young, middle-aged and old objects


def collect_seldom() -> None:
    """Has this process look for cycles seldom.

    Its imports, and JAX as it traces a program, make many objects and few cycles. Called before
    JAX is imported.
    """
    gc.set_threshold(*SELDOM)
