"""Finds WAN descriptions by name or path without Hydra, for tools and tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geojax.config import LanConfig, WanConfig
from geojax.errors import ConfigError, nearest
from geojax.fields import sequence
from geojax.settings import key_names, load_plugins
from testbed.wan import matrices
from testbed.wan.generators import GENERATORS

PRESETS = Path(__file__).resolve().parents[2] / "conf" / "wan"
FILES = (".yaml", ".yml", ".json", ".csv")  # end the paths of WANs; names have no such end
SCHEMA = "base_"  # begins the names under which Hydra knows dataclasses


def preset_names() -> tuple[str, ...]:
    """Names of the WANs that come with the project."""
    if not PRESETS.is_dir():
        fix = "no presets there; use a source checkout or an editable install, or give a path"
        raise ConfigError("wan", str(PRESETS), fix)
    return tuple(sorted(path.stem for path in PRESETS.glob("*.yaml")))


def load_preset(name_or_path: str | Path, **overrides: Any) -> WanConfig:
    """Reads a WAN description.

    Args:
      name_or_path: a preset's name, a plug-in's generator, or the path of a file (it ends with
        ``.yaml`` or ``.json``, or with ``.csv`` for :mod:`matrices <testbed.wan.matrices>` alone).
      **overrides: fields of :class:`WanConfig`; mappings are merged, everything else replaced.

    Returns:
      The configuration; :func:`testbed.wan.build.build_wan` validates its values.

    >>> load_preset("uniform", centers=5).centers
    5
    """
    own = name_or_path in GENERATORS and name_or_path not in preset_names()
    values = {"generator": name_or_path} if own else _read(_path(name_or_path))
    values.setdefault("name", Path(name_or_path).stem)
    values = _merge(values, overrides)
    return GENERATORS.settings(values.get("generator"), **values)


def _path(name_or_path: str | Path, folder: Path | None = None) -> Path:
    text = str(name_or_path)
    if text.endswith(FILES):
        path = Path(text)
        if not path.is_file():
            raise ConfigError("wan", text, "no such file")
        return path
    if folder is not None and (folder / f"{text}.yaml").is_file():
        return folder / f"{text}.yaml"
    if text not in preset_names():
        fix = f"no such WAN; {nearest(text, preset_names())}; or a path that ends with one of "
        fix += ", ".join(FILES)
        raise ConfigError("wan", text, fix)
    return PRESETS / f"{text}.yaml"


def _read(path: Path, within: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's values over those of the files in its ``defaults`` list, as Hydra composes them."""
    if path in within:
        raise ConfigError("wan.defaults", str(path), "this file builds on itself")
    own = _loaded(path)
    if not isinstance(own, dict):
        raise ConfigError("wan", str(path), "the file must hold a mapping of WAN keys")
    if matrices.names_of(own):
        own = matrices.written_out(own, path)
    defaults = sequence("wan.defaults", own.pop("defaults", []), "WAN names")
    values: dict[str, Any] = {}
    for entry in defaults if "_self_" in defaults else [*defaults, "_self_"]:
        if entry == "_self_":
            values = _merge(values, own)
        elif entry not in {f"{SCHEMA}{name}" for name in ("wan", *GENERATORS)}:
            values = _merge(values, _read(_path(entry, path.parent), (*within, path)))
    return values


def _loaded(path: Path) -> Any:
    """What a file holds, whatever it is."""
    if path.suffix == ".csv":
        return matrices.read_csv(path)
    from omegaconf import OmegaConf  # slow to load, and every command knows this module
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    kind = "JSON" if path.suffix == ".json" else "YAML"
    try:
        if kind == "JSON":
            return json.loads(path.read_text())
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except (ValueError, YAMLError, OmegaConfBaseException) as error:  # not UTF-8: a ValueError
        raise ConfigError("wan", str(path), f"no valid {kind}: {error}") from error


def _merge(values: Mapping[Any, Any], over: Mapping[Any, Any]) -> dict[str, Any]:
    """``values`` with ``over`` laid on top: mappings are merged, everything else is replaced."""
    merged = {str(key): value for key, value in values.items()}
    for key, value in over.items():
        below = merged.get(str(key))
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = _merge(below, value)
        merged[str(key)] = value
    return merged


def parse_arguments(arguments: Sequence[str]) -> tuple[WanConfig, LanConfig, int]:
    """Reads ``wan=NAME wan.KEY=VALUE lan.KEY=VALUE seed=N plugins=[MODULE]`` as typed.

    Returns:
      The arguments of :func:`testbed.wan.build.build_wan`.

    >>> wan, lan, seed = parse_arguments(["wan=uniform", "wan.rate=50", "lan.workers=2", "seed=7"])
    >>> wan.rate, lan.workers, seed
    (50, 2, 7)
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    chosen: str | None = None
    settings: list[str] = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise ConfigError(argument, None, "write KEY=VALUE, e.g. wan=three_centers")
        if key == "wan":
            chosen = value
        elif key in ("seed", "plugins") or key.startswith(("wan.", "lan.")):
            settings.append(argument)
        else:
            valid = ("wan", "wan.KEY", "lan.KEY", "seed", "plugins")
            raise ConfigError(key, value, f"no such setting here; {nearest(key, valid)}")
    if not chosen:
        raise ConfigError("wan", chosen, f"name a WAN, one of {', '.join(preset_names())}")
    try:
        stated = OmegaConf.to_container(OmegaConf.from_dotlist(settings), resolve=True)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(settings), None, f"cannot be read: {error}") from error
    assert isinstance(stated, dict)
    load_plugins(stated.get("plugins", []))
    lan = stated.get("lan", {})
    for name, value in lan.items():
        if name not in key_names(LanConfig):
            fix = f"no such key; {nearest(name, key_names(LanConfig))}"
            raise ConfigError(f"lan.{name}", value, fix)
    return load_preset(chosen, **stated.get("wan", {})), LanConfig(**lan), stated.get("seed", 0)
