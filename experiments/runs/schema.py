"""The configuration's schema, for Hydra and for the files that runs leave behind.

Every member's dataclass is registered as the schema node ``base_<member>`` of its group, which each
YAML file of that group starts from (``base_<group>`` where members have no keys of their own), and
the whole :class:`RunConfig` as ``base_config``. So a key or a type that the dataclasses do not have
is refused everywhere.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

import testbed.wan.generators  # noqa: F401  registers its axis
from geojax.axes import AXES, complete, groups
from geojax.config import RunConfig, to_dict
from geojax.settings import key_names, load_plugins

CONF = pathlib.Path(__file__).resolve().parents[2] / "conf"

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


def register(plugins: Iterable[str] = (), own: Sequence[pathlib.Path] = ()) -> None:
    """Makes the schema nodes known to Hydra, and the resolvers of the project's YAML files.

    ``${geojax.choices:}`` lists the choices of all groups. ``${geojax.sizes:TESTBED}`` is the codec
    of a synthetic model: real connections carry contents.

    Args:
      plugins: modules to import first; a member that has no YAML file is its own choice.
      own: the user's folders of YAML files, whose choices are listed too.
    """
    from experiments.runs import hydra_store  # Hydra, which runs and tables do without

    load_plugins(plugins)
    for group, default in groups().items():
        hydra_store.add(group, f"base_{group}", type(default))
        files = _files(group)
        for name in AXES.get(group, ()):
            settings = AXES[group].settings(name)
            hydra_store.add(group, f"base_{name}", settings)
            if name not in files:
                hydra_store.add(group, name, settings)
    hydra_store.add(None, "base_config", RunConfig)
    listed = functools.partial(_choices_text, own)
    OmegaConf.register_new_resolver("geojax.choices", listed, replace=True)
    OmegaConf.register_new_resolver("geojax.sizes", _codec_of_sizes, replace=True)


def _codec_of_sizes(testbed: str) -> str:
    return "size_only" if testbed == "simulated" else "dense"


def _files(group: str, folder: pathlib.Path = CONF) -> set[str]:
    return {path.stem for path in (folder / group).glob("*.yaml")}


def choices(group: str, own: Sequence[pathlib.Path] = ()) -> list[str]:
    """What a group can be, sorted: the names of its YAML files, and members without one."""
    files = [name for folder in (CONF, *own) for name in _files(group, folder)]
    return sorted({*files, *AXES.get(group, ())})


def _choices_text(own: Sequence[pathlib.Path]) -> str:
    names = [*groups(), "experiment"]
    width = max(map(len, names)) + 1
    return "\n".join(f"  {name:<{width}} {', '.join(choices(name, own))}" for name in names)


def build(composed: DictConfig) -> RunConfig:
    """Turns a composed configuration into a :class:`RunConfig`, checked against the schema.

    Plug-ins are imported first.

    Raises:
      ConfigError: an axis has no such member, or the member does not read a key.
    """
    values = typing.cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    load_plugins(values.get("plugins") or ())
    members = RunConfig()
    for group, axis in AXES.items():
        keys = values.get(group, {})
        name = keys.get(axis.chooser)
        axis.refuse_unread(name, keys)
        setattr(members, group, axis.settings(name))
    checked = OmegaConf.merge(OmegaConf.structured(members), composed)
    return typing.cast(RunConfig, OmegaConf.to_object(checked))


def load(path: pathlib.Path) -> RunConfig:
    """Reads a run directory's ``config.yaml``."""
    return build(typing.cast(DictConfig, OmegaConf.load(path)))


def save(config: RunConfig, path: pathlib.Path) -> None:
    """Writes a resolved configuration; the file appears whole or not at all."""
    partial = path.with_suffix(".partial")
    OmegaConf.save(OmegaConf.create(whole(config)), partial)
    partial.replace(path)


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


def free_form(path: str) -> bool:
    """Whether ``path`` lies inside a setting that holds any keys, e.g. ``pace.centers.c1``."""
    parts = path.split(".")
    return any(_hint(".".join(parts[:end])) in ("any", "map") for end in range(1, len(parts)))


def known(path: str) -> bool:
    """Whether ``path`` names a group or a key of the schema."""
    return _hint(path) is not None


def every_key() -> list[str]:
    """Every key of the schema and of all members, dotted, in the order of :class:`RunConfig`."""
    keys = []
    for name in key_names(RunConfig):
        inner = dict.fromkeys(key for schema in schemas(name) for key in key_names(schema))
        keys += [f"{name}.{key}" for key in inner] or [name]
    return keys


def schemas(group: str) -> list[type]:
    """The dataclasses that can stand at a group, the base first; "": the run's; else none."""
    if not group:
        return [RunConfig]
    members = [AXES[group].schema(name) for name in AXES.get(group, ())]
    return [type(groups()[group]), *members] if group in groups() else []


def _hint(path: str) -> str | None:
    """What the schema has at ``path``: "group", "any", "map", "value", or None for nothing."""
    group, _, key = path.rpartition(".")
    if not group and key in groups():
        return "group"
    for schema in schemas(group):
        hint = typing.get_type_hints(schema).get(key)
        if hint is Any or typing.get_origin(hint) is list:
            return "any"
        if hint is not None:
            return "map" if typing.get_origin(hint) is dict else "value"
    return None
