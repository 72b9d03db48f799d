"""Between device arrays and host arrays: every copy of the center goes through here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def to_host(array: jax.Array) -> np.ndarray:
    """A fresh, writable host copy.

    ``np.asarray`` would give a view of a CPU device's memory, which silently keeps that memory
    from ever being donated: never call it on an array that a program updates in place.
    """
    return np.array(array)


def first_to_host(array: jax.Array) -> np.ndarray:
    """A fresh host copy of what the first device holds of a mapped array."""
    return to_host(array.addressable_shards[0].data)[0]


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their path, e.g. of an optimizer's state."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def with_leaves(tree: Any, leaves: Mapping[str, np.ndarray], what: str) -> Any:
    """The tree with other leaves, given by path; the inverse of :func:`named_leaves`.

    Raises:
      ValueError: a leaf is missing, unknown, or has another shape or type; names ``what``.
    """
    expected = named_leaves(tree)
    if expected.keys() != leaves.keys():
        difference = sorted(expected.keys() ^ leaves.keys())
        raise ValueError(f"{what}: leaves missing or unknown: {', '.join(difference)}")
    for path, leaf in expected.items():
        given = leaves[path]
        if given.shape != leaf.shape or given.dtype != leaf.dtype:
            raise ValueError(
                f"{what}{path}: expected {leaf.dtype} of shape {leaf.shape}, "
                f"got {given.dtype} of shape {given.shape}"
            )
    return jax.tree.unflatten(jax.tree.structure(tree), [leaves[path] for path in expected])
