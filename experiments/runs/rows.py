"""Finished and failed runs, read from their directories and grouped over seeds."""

from __future__ import annotations

import json
import math
import pathlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from experiments.runs import records
from experiments.runs.folders import holding
from experiments.runs.stored import defaults, flatten, is_noise
from geojax.config import groups
from geojax.sync.registry import SYNCS

Settings = dict[str, Any]

_COUNTED_IN_ROUNDS = ("rounds", "rounds_to_target")


class Stat(NamedTuple):
    """A measured figure over the seeds of one row."""

    mean: float
    std: float | None  # sample standard deviation; None with fewer than two values
    count: int


@dataclass(frozen=True)
class Run:
    """One run directory.

    Attributes:
      path: the directory.
      settings: its configuration, flattened.
      summary: its ``summary.json``.
      complete: whether ``settings`` is all of it; else what the summary says, the rest unknown.
    """

    path: pathlib.Path
    settings: Settings
    summary: dict[str, Any]
    complete: bool = True

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.summary.get("status") != records.FAILED

    @property
    def exchanges(self) -> int:
        """Exchanges that make a federated round of the run's algorithm; 1 in all other ones."""
        name = str(self.settings.get("sync.name"))
        return SYNCS[name](SYNCS.settings(name)).exchanges if name in SYNCS else 1

    def figure(self, key: str) -> float | None:
        """A figure of the summary by its dotted key, e.g. ``sync_s.mean``; None: not measured.

        The summary counts exchanges as rounds. Here, rounds of an algorithm that needs several
        for a federated round are federated ones; one that has begun counts.
        """
        value: Any = self.summary
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not math.isfinite(value):
            return None
        return float(math.ceil(value / self.exchanges) if key in _COUNTED_IN_ROUNDS else value)


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seed.

    Attributes:
      settings: what they have in common.
      runs: one a seed.
      repeats: how many older or failed runs of the same seeds are left out.
    """

    settings: Settings
    runs: tuple[Run, ...]
    repeats: int = 0

    @property
    def finished(self) -> tuple[Run, ...]:
        """The runs that came to their end: those that figures are made of."""
        return tuple(run for run in self.runs if run.finished)

    @property
    def errors(self) -> list[str]:
        """Why runs of this row failed, in order."""
        return [str(run.summary.get("error", "")) for run in self.runs if not run.finished]

    def stat(self, key: str) -> Stat | None:
        """A figure over the finished runs that measured it; None: none did."""
        values = [value for run in self.finished if (value := run.figure(key)) is not None]
        if not values:
            return None
        std = statistics.stdev(values) if len(values) > 1 else None
        return Stat(statistics.fmean(values), std, len(values))

    @property
    def missed(self) -> int:
        """How many finished runs had a target accuracy, measured accuracy, and did not reach it."""
        return sum(
            run.figure("target_accuracy") is not None
            and run.figure("final_accuracy") is not None
            and run.figure("time_to_target_s") is None
            for run in self.finished
        )

    @property
    def incidents(self) -> list[str]:
        """What disturbed finished runs of this row, in words; deaths, returns and so on."""
        told = [found for run in self.finished if (found := _told(run.summary.get("incidents")))]
        words = [text for found in told for text in found]
        count = f"{len(told)} of {len(self.finished)} runs: " if len(self.finished) > 1 else ""
        return [f"{count}{', '.join(dict.fromkeys(words))}"] if words else []


def _told(incidents: Any) -> list[str]:
    """One run's incidents in words.

    >>> _told({"deaths": {"c2": 1, "c2/w0": 1}, "faults": {"partition": 1}, "resumes": 2})
    ['died: c2 c2/w0', 'faults: 1 partition', 'resumed 2 times']
    """
    if not isinstance(incidents, dict):
        return []
    words = []
    for key, text in (("deaths", "died"), ("returns", "came back")):
        if nodes := incidents.get(key):
            words.append(f"{text}: {' '.join(sorted(nodes))}")
    if faults := incidents.get("faults"):
        words.append("faults: " + " ".join(f"{count} {kind}" for kind, count in faults.items()))
    if links := incidents.get("links_out"):
        words.append(f"{links} links were out")
    if resumes := incidents.get("resumes"):
        words.append("resumed" if resumes == 1 else f"resumed {resumes} times")
    return words


def collect(folders: Iterable[pathlib.Path]) -> list[Run]:
    """All runs below some folders, each once, in the order of their paths.

    A job that was resumed stands for the earlier run directory that it points to.
    """
    found: dict[pathlib.Path, Run] = {}
    for folder in folders:
        names = (records.SUMMARY, records.ELSEWHERE)
        for path in sorted(holding(folder, names), key=_natural):
            run_dir = records.follow(path).resolve()
            if run_dir not in found and (run_dir / records.SUMMARY).exists():
                found[run_dir] = _read(run_dir)
    return list(found.values())


def unfinished(folders: Iterable[pathlib.Path]) -> int:
    """How many run directories hold no summary: still running, or ended without a word."""
    configs = {path for folder in folders for path in holding(folder, (records.CONFIG,))}
    return sum(not (path / records.SUMMARY).exists() for path in configs)


def astray(folders: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Jobs' directories whose run lies in another one that is not there any more."""
    jobs = [path for folder in folders for path in holding(folder, (records.ELSEWHERE,))]
    return [path for path in jobs if not (records.follow(path) / records.CONFIG).exists()]


def _natural(path: pathlib.Path) -> list[tuple[int, str]]:
    """Sorts job 10 after job 9."""
    return [(int(part) if part.isdigit() else -1, part) for part in path.parts]


def _read(run_dir: pathlib.Path) -> Run:
    from omegaconf import OmegaConf  # slow to load, and --help needs it not

    summary = records.read_json(run_dir / records.SUMMARY)
    if not summary:
        summary = {"status": records.FAILED, "error": f"{records.SUMMARY} holds no JSON object"}
    config = run_dir / records.CONFIG
    stored = OmegaConf.to_container(OmegaConf.load(config)) if config.exists() else None
    if not isinstance(stored, dict) or not stored:
        return Run(run_dir, _settings_of(summary), summary, complete=False)
    # A setting that is younger than the run had its default value then.
    settings = defaults(stored) | flatten({str(k): v for k, v in stored.items()})
    return Run(run_dir, settings, summary)


def _settings_of(summary: dict[str, Any]) -> Settings:
    """What a summary says of its configuration, when the configuration is not beside it."""
    settings = {f"{axis}.name": name for axis, name in summary.get("axes", {}).items()}
    for key in ("model", "wan", "testbed"):
        if key in summary:
            settings[f"{key}.name"] = summary[key]
    for key in ("bandwidth_scale", "delay_scale"):
        if key in summary:
            settings[f"wan.{key}"] = summary[key]
    return settings | {key: summary[key] for key in ("experiment", "seed") if key in summary}


def group(runs: Iterable[Run]) -> list[Row]:
    """Puts runs that differ only in their seed into one row, in order of first appearance.

    Of several runs of one seed the newest finished one counts; the newest, where all failed. Runs
    whose configuration is not known are all kept.
    """
    rows: dict[str, list[Run]] = {}
    for run in runs:
        rows.setdefault(identity(run.settings), []).append(run)
    found = []
    for members in rows.values():
        kept = _one_a_seed(members)
        repeats = len(members) - len(kept)
        found.append(Row(_comparable(members[0].settings), kept, repeats))
    return found


def _one_a_seed(runs: Sequence[Run]) -> tuple[Run, ...]:
    chosen: dict[Any, Run] = {}
    for run in runs:
        key = run.settings.get("seed") if run.complete else run.path
        if key not in chosen or _rank(run) > _rank(chosen[key]):
            chosen[key] = run
    return tuple(chosen.values())


def _rank(run: Run) -> tuple[bool, int]:
    return run.finished, (run.path / records.SUMMARY).stat().st_mtime_ns


def identity(settings: Settings, without: str | None = None) -> str:
    """What a row is the same by: all settings but seed and noise, and but one group if named."""
    kept = _comparable(settings)
    if without is not None:
        kept = {key: value for key, value in kept.items() if not belongs(key, without)}
    return json.dumps(kept, sort_keys=True)


def belongs(key: str, axis: str) -> bool:
    """Whether ``key`` is the setting ``axis`` or lies in the group that ``axis`` names."""
    return key == axis or key.startswith(f"{axis.removesuffix('.name')}.")


def _comparable(settings: Settings) -> Settings:
    return {k: value for k, value in settings.items() if k != "seed" and not is_noise(k)}


def differing(rows: Sequence[Row]) -> list[str]:
    """The settings that tell the rows apart, in the order of the configuration.

    A group's own settings count only where they vary among rows with the same member of that
    group: ``wan.links`` differs between two WANs, but it is the WAN's name that tells them apart.
    """
    order = ["experiment", *(f"{name}.name" for name in groups())]
    every = dict.fromkeys(key for row in rows for key in row.settings)
    keys = [key for key in order if key in every] + [key for key in every if key not in order]
    return [key for key in keys if _varies(key, rows)]


def _varies(key: str, rows: Sequence[Row]) -> bool:
    prefix, dot, leaf = key.partition(".")
    chooser = f"{prefix}.name"
    seen: dict[str, set[str]] = {}
    for row in rows:
        if key not in row.settings and not row.runs[0].complete:
            continue
        member = row.settings.get(chooser, "") if dot and leaf != "name" else ""
        seen.setdefault(str(member), set()).add(json.dumps(row.settings.get(key)))
    return any(len(values) > 1 for values in seen.values())


def label(key: str) -> str:
    """How a setting is called in a table: a group's member by the group's name.

    >>> label("overlay.name"), label("sync.local_steps"), label("rounds")
    ('overlay', 'sync.local_steps', 'round limit')
    """
    return "round limit" if key == "rounds" else key.removesuffix(".name")


def full_key(name: str, rows: Sequence[Row]) -> str | None:
    """The settings key that ``name`` stands for in these rows; None: they have no such setting."""
    for key in (name, f"{name}.name"):
        if any(key in row.settings for row in rows):
            return key
    return None
