"""All axes of a configuration, and their members' settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import geojax.center.delayed_nesterov
import geojax.center.optimizers
import geojax.compression.registry
import geojax.data
import geojax.federated.registry
import geojax.models.registry
import geojax.overlay.registry
import geojax.selection.registry
import geojax.sync.registry  # noqa: F401  all of these register their axes
from geojax.config import RunConfig, groups
from geojax.errors import ConfigError, nearest
from geojax.registry import AXES
from geojax.settings import check_values, key_names, load_plugins


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """Rebuilds a configuration from :func:`geojax.config.to_dict`'s output.

    Plug-ins are imported first. Where an axis is not loaded (a node's process knows no WAN
    generators), only the keys that all of its members read are kept.
    """
    load_plugins(values.get("plugins", ()))
    config = RunConfig()
    for item in key_names(RunConfig):
        if item in values:
            setattr(config, item, _group(item, getattr(config, item), values[item]))
    return config


def _group(name: str, default: Any, value: Any) -> Any:
    if not is_dataclass(default):
        return value
    if name in AXES:
        chooser = AXES[name].chooser
        return AXES[name].settings(value.get(chooser, getattr(default, chooser)), **value)
    known = key_names(type(default))  # type: ignore[arg-type]
    return type(default)(**{key: value for key, value in value.items() if key in known})  # type: ignore[operator]


def complete(config: RunConfig) -> RunConfig:
    """Gives every axis the dataclass of its chosen member, in place; returns ``config``.

    Raises:
      ConfigError: there is no such member, or it does not read a key that is set.
    """
    for name, axis in AXES.items():
        setattr(config, name, axis.complete(getattr(config, name)))
    return config


def check(config: RunConfig) -> None:
    """Compares every value of a complete configuration with what its key may be.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    check_values("", config)
    for name in groups():
        check_values(name, getattr(config, name))


def change(config: RunConfig, settings: Mapping[str, Any]) -> RunConfig:
    """Sets keys as they are typed: ``{"overlay": "netstorm", "overlay.roots": 3}``.

    A group stands for its member, which keeps what the one before it read as well; its settings may
    be given whole. In place.

    Raises:
      ConfigError: there is no such member or key.

    >>> change(RunConfig(), {"overlay": "netstorm", "overlay.roots": 3}).overlay.roots
    3
    """
    complete(config)
    for path, value in sorted(settings.items(), key=lambda item: not _chooses(item[0])):
        group, _, key = path.rpartition(".")
        if is_dataclass(value):
            setattr(config, path, value)
            continue
        if _chooses(path):
            axis = AXES[group or key]
            setattr(config, axis.group, axis.instead(getattr(config, axis.group), value))
            continue
        if group in AXES:
            member = getattr(getattr(config, group), AXES[group].chooser)
            AXES[group].refuse_unread(member, {key: value})
        elif not group and key in groups():
            group, key = key, "name"
        target = getattr(config, group) if group else config
        if key not in key_names(type(target)):
            raise ConfigError(path, value, f"no such key; {nearest(key, key_names(type(target)))}")
        setattr(target, key, value)
    return config


def _chooses(path: str) -> bool:
    """Whether a key chooses a member of an axis: its group, or the group's own key for that."""
    group, _, key = path.rpartition(".")
    return path in AXES or (group in AXES and key == AXES[group].chooser)
