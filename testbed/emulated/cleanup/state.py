"""What a run has made on this machine, in a file that outlives it.

Only the standard library; the watchdog reads this too.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from testbed.pids import Process, identify

FOLDERS = (Path("/run/geojax"), Path(tempfile.gettempdir()) / "geojax-run")


def default_folder() -> Path:
    """``/run/geojax``, or a folder in the temporary directory where /run cannot be written."""
    for folder in FOLDERS:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK) and _is_ours(folder):
            return folder
    raise OSError(f"cannot write to any of {', '.join(map(str, FOLDERS))}")


@dataclass
class RunState:
    """The record of one run.

    Attributes:
      run_id: the run's name, also the file's.
      prefix: how the names of the run's interfaces begin.
      owner: the process that made it.
      shells: the processes that hold the run's network namespaces (Mininet's host shells).
      others: forwarder, agents and node processes; all live in those namespaces.
    """

    run_id: str
    prefix: str
    owner: Process
    shells: list[Process] = field(default_factory=list)
    others: list[Process] = field(default_factory=list)
    folder: Path = field(default_factory=default_folder)

    @property
    def path(self) -> Path:
        """Where the record is kept."""
        return self.folder / f"{self.run_id}.json"

    def add_shell(self, pid: int) -> None:
        """Records the holder of a namespace."""
        self._add(self.shells, pid)

    def add_other(self, pid: int) -> None:
        """Records a process in one of the namespaces."""
        self._add(self.others, pid)

    def save(self) -> None:
        """Writes the file; a reader sees the old or the new record, never half of one."""
        text = json.dumps(
            {
                "run_id": self.run_id,
                "prefix": self.prefix,
                "owner": self.owner,
                "shells": self.shells,
                "others": self.others,
            }
        )
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self.path)

    def forget(self) -> None:
        """Removes the file: nothing is left of the run."""
        self.path.unlink(missing_ok=True)

    def _add(self, processes: list[Process], pid: int) -> None:
        process = identify(pid)
        if process is not None:  # else it has ended already
            processes.append(process)
            self.save()


def load(path: Path) -> RunState | None:
    """Reads a record; None if there is none, or none that can be read.

    Raises:
      ValueError: if the file is no record of a run.
    """
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    try:
        return RunState(
            run_id=values["run_id"],
            prefix=values["prefix"],
            owner=Process(*values["owner"]),
            shells=[Process(*entry) for entry in values["shells"]],
            others=[Process(*entry) for entry in values["others"]],
            folder=path.parent,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: no record of an emulated WAN ({error!r})") from error


def all_paths() -> list[Path]:
    """The records of this user's runs on this machine, living or stale.

    Records tell which processes to end, so what another user wrote is not looked at.
    """
    return sorted(
        path
        for folder in FOLDERS
        if folder.is_dir() and _is_ours(folder)
        for path in folder.glob("*.json")
        if _is_ours(path)
    )


def _is_ours(path: Path) -> bool:
    return path.lstat().st_uid == os.geteuid()
