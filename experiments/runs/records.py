"""What a run directory says about its run: claimed once, finished or failed, found again."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Iterator
from typing import Any

from experiments.runs.folders import holding
from experiments.runs.stored import config_hash
from geojax.config import RunConfig
from geojax.errors import GeojaxError

SUMMARY, CONFIG, ELSEWHERE = "summary.json", "config.yaml", "elsewhere.json"
LOCK = "lock"
_DEPTH = 4  # of run directories below a folder of sweeps: sweep, two overrides, seed
FINISHED, FAILED = "finished", "failed"


def identity(config: RunConfig) -> dict[str, Any]:
    """The part of ``summary.json`` that is known before a run starts."""
    return {
        "config_hash": config_hash(config),
        "experiment": config.experiment,
        "testbed": config.testbed.name,
        "seed": config.seed,
        "axes": {
            "compression": config.compression.name,
            "sync": config.sync.name,
            "overlay": config.overlay.name,
            "selection": config.selection.name,
        },
        "model": config.model.name,
        "wan": config.wan.name,
        "bandwidth_scale": config.wan.bandwidth_scale,
        "delay_scale": config.wan.delay_scale,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers, where installed.

    Numba, which decides none, tells that codecs could take compiled loops.
    """
    found = {"python": platform.python_version()}
    for package in ("geojax", "jax", "jaxlib", "flax", "optax", "numpy", "numba", "hydra-core"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def finish(run_dir: pathlib.Path, config: RunConfig, summary: dict[str, Any]) -> None:
    """Writes ``summary.json`` of a run that came to its end."""
    measured = {key: value for key, value in summary.items() if value is not None}
    record = identity(config) | measured | {"status": FINISHED}
    record["config_hash"] = config_hash(config)
    write_json(run_dir / SUMMARY, record)


def fail(run_dir: pathlib.Path, config: RunConfig, error: str) -> None:
    """Writes ``summary.json`` of a run that failed; what the run had measured is kept."""
    record = identity(config) | read_json(run_dir / SUMMARY)
    write_json(run_dir / SUMMARY, record | {"status": FAILED, "error": error})


def write_json(path: pathlib.Path, values: dict[str, Any]) -> None:
    """Writes a JSON file that appears whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(values, indent=2) + "\n")
    partial.replace(path)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """A JSON object from a file; empty when there is no such file or it holds no JSON object."""
    try:
        values = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def used(run_dir: pathlib.Path) -> bool:
    """Whether a run has already left its records in this directory."""
    return any((run_dir / name).exists() for name in (CONFIG, SUMMARY, ELSEWHERE))


def point(run_dir: pathlib.Path, target: pathlib.Path) -> None:
    """Leaves word in a job's directory that its run lies in another one.

    The way there is kept twice, so that both may be moved together, or one of them alone.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    near = os.path.relpath(target.resolve(), run_dir.resolve())
    write_json(run_dir / ELSEWHERE, {"run_dir": str(target.absolute()), "relative": near})


def follow(run_dir: pathlib.Path) -> pathlib.Path:
    """Where a job's run lies: in its directory, or in an earlier one that it was resumed from."""
    told = read_json(run_dir / ELSEWHERE)
    near, target = told.get("relative"), told.get("run_dir")
    if near and (run_dir.resolve() / near / CONFIG).exists():
        return pathlib.Path(os.path.normpath(run_dir.resolve() / near))
    return pathlib.Path(target) if target else run_dir


def belongs(run_dir: pathlib.Path, config: RunConfig) -> bool:
    """Whether this configuration may go on in the directory, or its run behind, or is done there.

    A run belongs to a configuration that computes the same; one that has finished only if it also
    left all that the configuration asks for.
    """
    kept = _stored(follow(run_dir) / CONFIG, config)
    if kept is None or config_hash(kept) != config_hash(config):
        return False
    summary = read_json(follow(run_dir) / SUMMARY)
    return summary.get("status") != FINISHED or _as_good(kept, config, summary)


def search(
    parent: pathlib.Path, config: RunConfig
) -> tuple[pathlib.Path | None, pathlib.Path | None]:
    """Looks below ``parent`` for runs of one configuration, as deep as sweeps are.

    Args:
      parent: where to look; nothing is found in a file system's root.
      config: of the run.

    Returns:
      The directory of a finished run and the one of the latest broken run; None: there is none.
    """
    if parent == parent.parent:
        return None, None
    broken = []
    for folder in holding(parent, (CONFIG,), _DEPTH):
        if not belongs(folder, config):
            continue
        if read_json(folder / SUMMARY).get("status") == FINISHED:
            return folder, None
        broken.append(folder)
    latest = max(broken, key=lambda path: (path / CONFIG).stat().st_mtime, default=None)
    return None, latest


def outcomes(sweep_dir: pathlib.Path) -> tuple[int, int]:
    """How many jobs of a sweep failed, and how many there are, at any depth.

    A job that failed in one directory and finished in another one has not failed.
    """
    found = {follow(job) for job in holding(sweep_dir, (CONFIG, SUMMARY, ELSEWHERE))}
    summaries = {path: read_json(path / SUMMARY) for path in sorted(found)}
    done = {path for path in found if summaries[path].get("status") == FINISHED}
    hashes = {summaries[path].get("config_hash") for path in done} - {None}
    failed = [p for p in found - done if summaries[p].get("config_hash") not in hashes]
    return len(failed), len(failed) + len(done)


def _stored(path: pathlib.Path, like: RunConfig) -> RunConfig | None:
    """A stored configuration; None where there is none that this version reads.

    Plug-ins are imported only if ``like`` has them: the file may be anybody's.
    """
    from omegaconf import DictConfig, OmegaConf  # slow to load, and a job needs it not
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from experiments.runs import schema

    try:
        values = OmegaConf.load(path)
        if not isinstance(values, DictConfig) or not {"sync", "wan"} <= set(values):
            return None
        if {*(values.get("plugins") or ())} - {*like.plugins}:
            return None
        return schema.build(values)
    except (OSError, ValueError, TypeError, YAMLError, OmegaConfBaseException, GeojaxError):
        return None


def _as_good(kept: RunConfig, wanted: RunConfig, summary: dict[str, Any]) -> bool:
    """Whether a finished run left what ``wanted`` asks for, too.

    Timeouts decide nothing in a run that nothing disturbed.
    """
    same = not summary.get("incidents") or kept.timeouts == wanted.timeouts
    return same and kept.events == wanted.events


def live(run_dir: pathlib.Path) -> bool:
    """Whether a process works on this run directory right now."""
    try:
        with claim(run_dir):
            return False
    except GeojaxError:
        return True


@contextlib.contextmanager
def claim(run_dir: pathlib.Path) -> Iterator[int]:
    """Holds a run directory for this process, and for those that inherit the descriptor.

    The lock is on a file of its own, which is never replaced.

    Raises:
      GeojaxError: another process works on this directory right now.
    """
    with (run_dir / LOCK).open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise GeojaxError(f"{run_dir}: another process is running this job now") from error
        yield held.fileno()
