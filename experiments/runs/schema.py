"""The configuration's schema, for Hydra and for the files that runs leave behind.

Every group's dataclass of :mod:`geojax.config` is registered as the schema node ``base_<group>``,
which each YAML file of that group starts from, and the whole :class:`RunConfig` as
``base_config``. So a key or a type that the dataclasses do not have is refused everywhere.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import typing
from dataclasses import fields, is_dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from geojax.config import RunConfig, to_dict

CONF = pathlib.Path(__file__).resolve().parents[2] / "conf"

_NOISE = frozenset({"resume", "data.path", "data.download", "trackers.name"})
_SAME_EVERYWHERE = (
    "digits",
    "fashion_mnist",
    "mnist",
)  # data whose content does not go by its path


def groups() -> dict[str, Any]:
    """The default settings of each group of :class:`RunConfig`, by group name, in its order."""
    default = RunConfig()
    values = {item.name: getattr(default, item.name) for item in fields(default)}
    return {name: value for name, value in values.items() if is_dataclass(value)}


def register() -> None:
    """Makes the schema nodes and the resolver of ``${geojax.choices:GROUP}`` known to Hydra."""
    store = ConfigStore.instance()
    for name, settings in groups().items():
        store.store(group=name, name=f"base_{name}", node=settings)
    store.store(name="base_config", node=RunConfig)
    OmegaConf.register_new_resolver("geojax.choices", _choices_text, replace=True)


def choices(group: str) -> list[str]:
    """The names of the YAML files of a group, sorted."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _choices_text() -> str:
    names = [*groups(), "experiment"]
    width = max(map(len, names)) + 1
    return "\n".join(f"  {name:<{width}} {', '.join(choices(name))}" for name in names)


def build(composed: DictConfig) -> RunConfig:
    """Turns a composed configuration into a :class:`RunConfig`, checked against the schema."""
    checked = OmegaConf.merge(OmegaConf.structured(RunConfig), composed)
    return typing.cast(RunConfig, OmegaConf.to_object(checked))


def load(path: pathlib.Path) -> RunConfig:
    """Reads a run directory's ``config.yaml``."""
    return build(typing.cast(DictConfig, OmegaConf.load(path)))


def save(config: RunConfig, path: pathlib.Path) -> None:
    """Writes a resolved configuration; the file appears whole or not at all."""
    partial = path.with_suffix(".partial")
    OmegaConf.save(OmegaConf.create(to_dict(config)), partial)
    partial.replace(path)


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


def is_noise(key: str) -> bool:
    """Whether a setting leaves alone what a run computes: out of its hash and of comparisons."""
    return key in _NOISE or "provenance" in key.split(".")


def config_hash(config: RunConfig) -> str:
    """SHA-256 of the settings that decide what a run computes, as canonical JSON."""
    counts = set() if config.data.name in _SAME_EVERYWHERE else {"data.path"}
    every = flatten(to_dict(config))
    flat = {key: every[key] for key in every if key in counts or not is_noise(key)}
    canonical = json.dumps(flat, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def free_form(path: str) -> bool:
    """Whether ``path`` lies inside a setting that holds any keys, e.g. ``pace.centers.c1``."""
    parts = path.split(".")
    return any(_hint(".".join(parts[:end])) in ("any", "map") for end in range(1, len(parts)))


def known(path: str) -> bool:
    """Whether ``path`` names a group or a key of the schema."""
    return _hint(path) is not None


def every_key() -> list[str]:
    """Every key of the schema, dotted, in the order of :class:`RunConfig`."""
    return list(flatten(to_dict(RunConfig())))


def _hint(path: str) -> str | None:
    """What the schema has at ``path``: "group", "any", "map", "value", or None for nothing."""
    at: type = RunConfig
    parts = path.split(".")
    for index, part in enumerate(parts):
        hint = typing.get_type_hints(at).get(part)
        if hint is None:
            return None
        last = index == len(parts) - 1
        if is_dataclass(hint):
            at = typing.cast(type, hint)
            if last:
                return "group"
        elif last:
            if hint is Any or typing.get_origin(hint) is list:
                return "any"
            return "map" if typing.get_origin(hint) is dict else "value"
        else:
            return None
    return None
