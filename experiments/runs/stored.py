"""What a run's ``config.yaml`` holds, and the hash of it; needs neither Hydra nor OmegaConf."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import testbed.wan.generators  # noqa: F401  registers its axis
from geojax.axes import AXES, complete, from_dict
from geojax.config import RunConfig, to_dict

_NOISE = frozenset({"resume", "data.path", "data.download", "testbed.cores", "trackers.name"})
# How a run is watched and kept, not what it computes: a broken run goes on when these change.
_OPERATIONAL = frozenset(
    {
        "checkpoint_every",
        "events",
        *(f"timeouts.{name}" for name in ("start", "connect", "dead", "round", "warn")),
    }
)
_SAME_EVERYWHERE = (
    "digits",
    "fashion_mnist",
    "mnist",
)  # data whose content does not go by its path


def read(path: pathlib.Path) -> RunConfig:
    """Reads what :func:`experiments.runs.schema.save` of this version has written, and nobody else.

    What others may have written is for :func:`experiments.runs.schema.load` to check, which takes
    OmegaConf and five times as long.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return from_dict(yaml.load(path.read_bytes(), Loader=loader))  # noqa: S506  it is a safe one


def whole(config: RunConfig) -> dict[str, Any]:
    """All values, the defaults of the members' own keys among them."""
    return to_dict(complete(replace(config)))


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """One entry per setting, keyed by its full dotted key; lists stay whole.

    >>> flatten({"lr": 0.1, "overlay": {"name": "star", "root": None}})
    {'lr': 0.1, 'overlay.name': 'star', 'overlay.root': None}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def defaults(stored: Mapping[Any, Any]) -> dict[str, Any]:
    """What a stored configuration means where it is silent, dotted: its members' defaults."""
    values = to_dict(RunConfig())
    for group, axis in AXES.items():
        name = (stored.get(group) or {}).get(axis.chooser)
        if name in axis:
            values[group] = to_dict(axis.settings(name))
    return flatten(values)


def is_noise(key: str) -> bool:
    """Whether a setting leaves alone what a run computes: out of its hash and of comparisons."""
    return key in _NOISE or "provenance" in key.split(".")


def config_hash(config: RunConfig) -> str:
    """SHA-256 of the settings that decide what a run computes, as canonical JSON.

    Timeouts are not among them, as raising one must not lose a broken run; where nodes die, they
    decide when that is noticed (see :func:`experiments.runs.records.belongs`).
    """
    counts = set() if config.data.name in _SAME_EVERYWHERE else {"data.path"}
    every = flatten(whole(config))
    flat = {
        key: every[key]
        for key in every
        if key in counts or not (is_noise(key) or key in _OPERATIONAL)
    }
    canonical = json.dumps(flat, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
