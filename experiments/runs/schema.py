"""The configuration's schema, for Hydra and for the files that runs leave behind.

Every member's dataclass is registered as the schema node ``base_<member>`` of its group, which each
YAML file of that group starts from (``base_<group>`` where members have no keys of their own), and
the whole :class:`RunConfig` as ``base_config``. So a key or a type that the dataclasses do not have
is refused everywhere.
"""

from __future__ import annotations

import functools
import pathlib
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

import testbed.wan.generators  # noqa: F401  registers its axis
from experiments.runs.choices import files, listed
from experiments.runs.stored import whole
from geojax.axes import AXES
from geojax.config import RunConfig, groups
from geojax.settings import load_plugins


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
        named = files(group)
        for name in AXES.get(group, ()):
            settings = AXES[group].settings(name)
            hydra_store.add(group, f"base_{name}", settings)
            if name not in named:
                hydra_store.add(group, name, settings)
    hydra_store.add(None, "base_config", RunConfig)
    OmegaConf.register_new_resolver("geojax.choices", functools.partial(listed, own), replace=True)
    OmegaConf.register_new_resolver("geojax.sizes", _codec_of_sizes, replace=True)


def _codec_of_sizes(testbed: str) -> str:
    return "size_only" if testbed == "simulated" else "dense"


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
