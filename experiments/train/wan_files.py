"""``wan=/path/file.yaml`` on the command line: any file that ``python -m testbed`` takes.

What is in the file is written out in the run's own configuration, matrices as links, so that the
run can be read wherever it lies, and its hash says whether the WAN is the same.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from geojax.errors import ConfigError
from testbed.wan.presets import FILES, load_preset

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

_folders: list[TemporaryDirectory] = []  # Hydra reads them until this process ends


def with_wan_files(arguments: Sequence[str]) -> list[str]:
    """Overrides whose WANs are choices of a group, which paths are not.

    Args:
      arguments: the command line; ``wan=`` may name several files, and choices among them.

    Returns:
      The command line, with a folder of such choices on Hydra's search path if there are paths.

    Raises:
      ConfigError: there is no such file, or it describes no WAN.
    """
    found = [*arguments]
    for at, argument in enumerate(arguments):
        key, _, value = argument.partition("=")
        names = value.split(",")
        if key == "wan" and any(name.endswith(FILES) for name in names):
            from tempfile import TemporaryDirectory

            folder = TemporaryDirectory(prefix="geojax-wan-")
            _folders.append(folder)
            chosen = [_choice(name, number, Path(folder.name)) for number, name in enumerate(names)]
            found[at] = f"wan={','.join(chosen)}"
            found = _on_search_path(found, folder.name)
    return found


def _choice(name: str, number: int, folder: Path) -> str:
    """The name of a choice that stands for a file; other names stand for themselves."""
    if not name.endswith(FILES):
        return name
    from omegaconf import OmegaConf

    from testbed.wan.generators import GENERATORS

    wan = load_preset(name)
    base = wan.generator if wan.generator in GENERATORS else "wan"
    values = {"defaults": [f"base_{base}", "_self_"], **dataclasses.asdict(wan)}
    choice = f"file_{number}_" + re.sub(r"\W", "_", Path(name).stem)  # as Hydra reads values
    (folder / "wan").mkdir(exist_ok=True)
    OmegaConf.save(OmegaConf.create(values), folder / "wan" / f"{choice}.yaml")
    return choice


def _on_search_path(arguments: list[str], folder: str) -> list[str]:
    key = "hydra.searchpath="
    stated = [argument for argument in arguments if argument.startswith(key)]
    if not stated:
        return [*arguments, f"{key}[file://{folder}]"]
    inside = stated[0].removeprefix(key).strip()
    if not (inside.startswith("[") and inside.endswith("]")):
        raise ConfigError("hydra.searchpath", inside, "write a list: [FOLDER]")
    other = inside[1:-1].strip()
    together = f"{key}[{other + ',' if other else ''}file://{folder}]"
    return [together if argument == stated[0] else argument for argument in arguments]
