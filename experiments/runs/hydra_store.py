"""What Hydra composes from, without work done twice: schemas built on demand, files read once.

Hydra composes a configuration twice for one run and once more for every job of a sweep, and reads
all files each time. Here it reads each file once in a process; so a sweep that goes on for hours is
one of the files as they were when it began. And it composes once for one run, unless there may be a
``hydra.mode`` to be found first.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

import yaml
from hydra._internal import defaults_list
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf, _utils

from experiments.runs.choices import CONF


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


_make_loader = _utils.get_yaml_loader
_read_config, _make_map = ConfigRepository.load_config, defaults_list._create_interpolation_map
_files: dict[tuple[str, str], Any] = {}


def _load_config(self: ConfigRepository, config_path: str) -> Any:
    """Of a folder or a package, what was read before; Hydra changes none of it."""
    source = self._find_object_source(config_path, ObjectType.CONFIG)
    if source is None or source.scheme() not in ("file", "pkg"):
        return _read_config(self, config_path)
    key = source.path, config_path
    if key not in _files:
        _files[key] = _read(self, config_path)
    return _files[key]


def _read(repository: ConfigRepository, config_path: str) -> Any:
    """Of a file, by LibYAML; an error is left to PyYAML's own parser, which says more."""
    with contextlib.suppress(yaml.YAMLError), _quickly():
        return _read_config(repository, config_path)
    return _read_config(repository, config_path)


@contextlib.contextmanager
def _quickly() -> Iterator[None]:
    _utils.get_yaml_loader = _loader
    try:
        yield
    finally:
        _utils.get_yaml_loader = _make_loader


@functools.cache
def _loader() -> Any:
    """OmegaConf's loader on LibYAML's parser, where PyYAML has it: five times as fast."""
    own = _make_loader()
    if not yaml.__with_libyaml__:
        return own

    class Loader(yaml.cyaml.CParser, own):  # pyright: ignore[reportAttributeAccessIssue]
        def __init__(self, stream: Any):
            yaml.cyaml.CParser.__init__(self, stream)  # pyright: ignore[reportAttributeAccessIssue]
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    return Loader


def _interpolation_map(overrides: Any, defaults: Any, self_added: bool) -> Any:
    """The choices made so far, only where a list of defaults has an interpolation to resolve."""
    if any(one.is_interpolation() for one in defaults):
        return _make_map(overrides, defaults, self_added)
    return OmegaConf.create()


_find_mode = Hydra.get_mode


def _mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """``hydra.mode``, which no file of ``conf/`` sets: only others need to be composed for it."""
    files = {each.path for each in self.config_loader.get_sources() if each.scheme() == "file"}
    others = re.compile(r"hydra\.(mode|searchpath)")
    if files <= {str(CONF)} and not any(map(others.search, overrides)):
        return None
    return _find_mode(self, config_name, overrides)


# Hydra copies its sources for every composition and for every group that --help lists, and with
# them the store of all schemas. One store is enough: what it hands out are copies.
ConfigStore.__deepcopy__ = lambda self, _: self  # pyright: ignore[reportAttributeAccessIssue]
ConfigRepository.load_config = _load_config
defaults_list._create_interpolation_map = _interpolation_map
Hydra.get_mode = _mode
