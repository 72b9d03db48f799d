"""What Hydra composes from, without work done twice: schemas built on demand, files read once.

Hydra composes a configuration twice for one run and once more for every job of a sweep, and reads
all files each time. Here it reads each file once in a process; so a sweep that goes on for hours is
one of the files as they were when it began.
"""

from __future__ import annotations

from typing import Any

from hydra._internal import defaults_list
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf


class _Schema(ConfigNode):
    """An entry whose ``node`` is built from a dataclass when it is asked for."""

    def __init__(self, group: str | None, name: str, settings: Any):
        self.group, self.name, self.package, self.provider = group, name, None, None
        self.settings = settings
        self.built: list[Any] = []  # shared with the copies that the store hands out

    def __getattr__(self, name: str) -> Any:
        if name != "node":
            raise AttributeError(name)
        if not self.built:
            self.built.append(OmegaConf.structured(self.settings))
        return self.built[0]


def add(group: str | None, name: str, settings: Any) -> None:
    """Puts a dataclass, or an object of one, into a group of the store; None: at the top."""
    repo = ConfigStore.instance().repo
    inner = repo if group is None else repo.setdefault(group, {})
    inner[f"{name}.yaml"] = _Schema(group, f"{name}.yaml", settings)


_read_config, _make_map = ConfigRepository.load_config, defaults_list._create_interpolation_map
_files: dict[tuple[str, str], Any] = {}


def _load_config(self: ConfigRepository, config_path: str) -> Any:
    """Of a folder or a package, what was read before; Hydra changes none of it."""
    source = self._find_object_source(config_path, ObjectType.CONFIG)
    if source is None or source.scheme() not in ("file", "pkg"):
        return _read_config(self, config_path)
    key = source.path, config_path
    if key not in _files:
        _files[key] = _read_config(self, config_path)
    return _files[key]


def _interpolation_map(overrides: Any, defaults: Any, self_added: bool) -> Any:
    """The choices made so far, only where a list of defaults has an interpolation to resolve."""
    if any(one.is_interpolation() for one in defaults):
        return _make_map(overrides, defaults, self_added)
    return OmegaConf.create()


# Hydra copies its sources for every composition and for every group that --help lists, and with
# them the store of all schemas. One store is enough: what it hands out are copies.
ConfigStore.__deepcopy__ = lambda self, _: self  # pyright: ignore[reportAttributeAccessIssue]
ConfigRepository.load_config = _load_config
defaults_list._create_interpolation_map = _interpolation_map
