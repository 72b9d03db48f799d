"""Overrides as typed: plug-ins first, checked against the schema, errors told in one clean line.

Hydra refuses a wrong key as well, but names no valid one; so keys are checked before it composes,
and whatever it or OmegaConf raises afterwards is rewritten by :func:`explain`.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.runs import keys
from experiments.runs.choices import CONF, choices
from experiments.train.wan_files import with_wan_files
from geojax.axes import AXES
from geojax.config import groups
from geojax.errors import GeojaxError, nearest
from geojax.settings import load_plugins

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf.errors import OmegaConfBaseException


class UsageError(GeojaxError):
    """The command line is wrong; the message is what the user sees."""


_ASSIGNMENT = re.compile(r"^(?P<prefix>\+{0,2}|~)(?P<key>[^\s=+~-][^\s=]*)=")
# What Hydra's grammar, which is slow to load, surely takes, with its key and its value as they are.
_PLAIN = re.compile(
    r"\+{0,2}(?P<key>[a-z]\w*((\.[a-z]\w*)*|(/[a-z]\w*)+))=[\w./-]+", re.ASCII | re.IGNORECASE
)
_WITH_VALUE = (
    "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c",
    "--package", "-p", "--info", "-i", "--experimental-rerun",
)  # fmt: skip
_OTHER_FILES = ("--config-name", "-cn", "--config-path", "-cp")
_KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}


def prepare(arguments: Sequence[str]) -> list[str]:
    """Imports plug-ins; checks the keys of all overrides, and hands them to Hydra as it needs them.

    ``overlay.name=ring`` means ``overlay=ring``. Keys of an axis, and free-form ones, become
    settable without Hydra's ``++``; whether the chosen member reads them is checked when all is
    composed.

    Args:
      arguments: the command line without the program's name.

    Returns:
      The command line to hand to Hydra.

    Raises:
      UsageError: an override is malformed, names no key or group, or sweeps without ``-m``.
      ConfigError: a plug-in cannot be imported, or a file of ``wan=`` describes no WAN.
    """
    arguments = flags_last(with_wan_files(arguments))
    multirun = bool({"-m", "--multirun"} & set(arguments))
    own = own_folders(arguments)
    modules = plugins(arguments, own)
    load_plugins(modules)
    chosen = {argument.partition("=")[0] for argument in arguments}
    arguments = [_as_choice(argument, chosen) for argument in arguments]
    prepared = [_prepare_one(argument, multirun, own) for argument in arguments]
    elsewhere = [*own, *(each for each in arguments if each.startswith(_OTHER_FILES))]
    for argument in prepared:
        _check_choice(argument, any_name=bool(elsewhere))

    from experiments.runs import schema  # with Hydra, which what is refused before does without

    schema.register(modules, own)
    return prepared


def flags_last(arguments: Sequence[str]) -> list[str]:
    """Overrides before Hydra's options where they are mixed: its parser takes them in one go.

    >>> flags_last(["a=1", "-m", "b=2", "--cfg", "job"])
    ['a=1', 'b=2', '-m', '--cfg', 'job']
    """
    overrides, flags, places = [], [], []
    for place, argument in enumerate(arguments):
        is_value = place > 0 and arguments[place - 1] in _WITH_VALUE
        is_override = "=" in argument or argument.startswith("~")
        if is_value or argument.startswith("-") or not is_override:
            flags.append(argument)
        else:
            overrides.append(argument)
            places.append(place)
    together = not places or places[-1] - places[0] == len(places) - 1
    return [*arguments] if together else [*overrides, *flags]


def plugins(arguments: Sequence[str], own: Sequence[Path] = ()) -> list[str]:
    """The modules that ``plugins=[...]`` names, on the command line or in the chosen experiment.

    >>> plugins(["seed=1", "plugins=[my_package]"])
    ['my_package']
    """
    found: list[Any] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "experiment":
            names = [f"experiment/{name}.yaml" for name in value.split(",")]
            files = [folder / name for folder in (CONF, *own) for name in names]
            for file in filter(Path.is_file, files):
                if "plugins" in file.read_text():
                    from omegaconf import OmegaConf

                    found += _as_list(OmegaConf.select(OmegaConf.load(file), "plugins"))
        elif key == "plugins":
            found += _as_list(_parse(argument).value())
    return list(dict.fromkeys(map(str, found)))


def _as_list(stated: Any) -> list[Any]:
    return [stated] if isinstance(stated, str) else list(stated or [])


def own_folders(arguments: Sequence[str]) -> list[Path]:
    """The user's folders of YAML files: ``--config-dir DIR`` and ``hydra.searchpath=[DIR]``.

    Raises:
      UsageError: a file there has the name of one of geojax's, and Hydra would not read it.
    """
    named: list[Any] = []
    if any(argument.startswith(("--config-dir", "-cd")) for argument in arguments):
        import argparse

        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--config-dir", "-cd")
        named += _as_list(parser.parse_known_args(list(arguments))[0].config_dir)
    for argument in arguments:
        if argument.startswith("hydra.searchpath="):
            named += _as_list(_parse(argument).value())
    folders = [Path(str(name).removeprefix("file://")) for name in named]
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            if (CONF / file.relative_to(folder)).is_file():
                raise UsageError(f"{file}: geojax has a file of this name; give yours another one")
    return folders


def _as_choice(argument: str, chosen: set[str]) -> str:
    """``overlay.name=ring`` as ``overlay=ring`` if the group is not chosen; a plug-in as a list."""
    key, equals, value = argument.partition("=")
    if key == "plugins" and not value.startswith("["):
        return f"{key}=[{value}]"
    group, _, last = key.rpartition(".")
    axis = AXES.get(group)
    if not equals or axis is None or last != axis.chooser or group in chosen or value == "null":
        return argument
    return f"{group}={value}"


def _prepare_one(argument: str, multirun: bool, own: Sequence[Path]) -> str:
    match = _ASSIGNMENT.match(argument)
    if match is None:
        return argument
    key, sweep = _key_and_sweep(argument)
    if key.partition(".")[0].partition("/")[0] == "hydra":
        return argument
    if sweep is not None and not multirun:
        fix = f"add -m, or quote the value: '{key}=\"{sweep}\"'"
        raise UsageError(f"{key}={sweep} is a sweep: {fix}")
    group = key.rpartition(".")[0]
    is_group = any((folder / key).is_dir() for folder in (CONF, *own))
    if "/" in key or is_group or (keys.known(key) and group not in AXES):
        return argument
    if keys.known(key) or keys.free_form(key):
        return argument if match["prefix"] else f"++{argument}"
    raise UsageError(f"{key}: {suggest(key)}")


def _key_and_sweep(argument: str) -> tuple[str, str | None]:
    """What an override sets, and the values that it sweeps over; None: it has one."""
    plain = _PLAIN.fullmatch(argument)
    if plain:
        return plain["key"], None
    override = _parse(argument)
    swept = override.is_sweep_override()
    return override.key_or_group, override.get_value_string() if swept else None


def _check_choice(argument: str, *, any_name: bool) -> None:
    """Refuses what is no choice of its group, in Hydra's place.

    Hydra takes longer to say that a name is none, and says nothing useful of what is no name.
    """
    group, _, name = argument.partition("=")
    if group not in (*groups(), "experiment") or name in choices(group):
        return
    is_none = re.fullmatch(r"null|true|false|[+-]?[\d.]+", name, re.ASCII | re.IGNORECASE)
    is_name = re.fullmatch(r"(?!base_)[a-z]\w*", name, re.ASCII)
    if is_none or (is_name and not any_name):
        raise UsageError(f"{group} = {name!r}: {nearest(name, choices(group))}")


def _parse(argument: str) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import OverrideParseException

    try:
        return OverridesParser.create().parse_overrides([argument])[0]
    except OverrideParseException as error:
        key, _, value = argument.partition("=")
        raise UsageError(
            f"{argument}: the value cannot be read; quote it: '{key}=\"{value}\"'"
        ) from error


def suggest(key: str) -> str:
    """Says which valid key or group is meant.

    >>> suggest("optimzer.lr")
    "did you mean 'optimizer.lr'?"
    >>> suggest("alpha")
    "did you mean 'partition.alpha'?"
    """
    if key.startswith("hydra."):
        return "no such key of Hydra; --cfg hydra shows its keys"
    valid = keys.every_key()
    names = [*groups(), "experiment", *valid]
    endings = [name for name in valid if name.rpartition(".")[2] == key.rpartition(".")[2]]
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.75) or endings[:1]
    close = close or difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return "no such key or group; --help lists them, --cfg job shows every key"


def explain(error: BaseException) -> str:
    """Says what was wrong in a configuration and what is valid instead, mostly in one line.

    Args:
      error: what Hydra, OmegaConf or geojax raised.
    """
    if isinstance(error, GeojaxError):
        return str(error)
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    chain = list(_causes(error))
    for cause in chain:
        if not isinstance(cause, MissingConfigException):
            continue
        group, _, name = str(cause.missing_cfg_file).rpartition("/")
        if name.startswith("base_"):
            where, member = _first_line(cause).partition(": ")[0], name.removeprefix("base_")
            return f"{where}: there is no {group}={member}; does plugins=[...] name its module?"
        if cause.options:
            options = [option for option in cause.options if not option.startswith("base_")]
            return f"{group} = {name!r}: {nearest(name, options)}"
    for cause in chain:
        full_key = getattr(cause, "full_key", None)
        if isinstance(cause, OmegaConfBaseException) and full_key:
            return _explain_omegaconf(cause, str(full_key), chain)
        if isinstance(cause, OverrideParseException):
            return f"{cause.override}: not of the form key=value"
    return _first_line(error)


def refused(error: Exception) -> int:
    """Tells what was wrong; returns the command's exit code."""
    print(f"error: {explain(error)}", file=sys.stderr)
    return 2


def _explain_omegaconf(
    cause: OmegaConfBaseException, key: str, chain: Sequence[BaseException]
) -> str:
    file = next((m[1] for e in chain if (m := re.match(r"In '(.+?)'", str(e)))), None)
    where = f"in conf file {file}.yaml: " if file else ""
    if isinstance(cause, AttributeError | KeyError) or "not in" in _first_line(cause):
        return f"{where}{key}: {suggest(key)}"
    wrong = re.search(r"Value '(.*?)'.* (?:converted to|is not a valid) (\w+)", _first_line(cause))
    if wrong:
        return f"{where}{key} = {wrong[1]!r}: must be {_KINDS.get(wrong[2], wrong[2])}"
    return f"{where}{key}: {_first_line(cause)}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
