"""What a run directory says about its run: claimed once, finished or failed, found again."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Iterator
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from experiments.runs import schema
from geojax.config import RunConfig
from geojax.errors import GeojaxError

SUMMARY, CONFIG, ELSEWHERE = "summary.json", "config.yaml", "elsewhere.json"
FINISHED, FAILED = "finished", "failed"


def identity(config: RunConfig) -> dict[str, Any]:
    """The part of ``summary.json`` that is known before a run starts."""
    return {
        "config_hash": schema.config_hash(config),
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
    """Versions of Python and of the packages that decide a run's numbers, where installed."""
    found = {"python": platform.python_version()}
    for package in ("geojax", "jax", "jaxlib", "flax", "optax", "numpy", "hydra-core"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def finish(run_dir: pathlib.Path, config: RunConfig, summary: dict[str, Any]) -> None:
    """Writes ``summary.json`` of a run that came to its end."""
    measured = {key: value for key, value in summary.items() if value is not None}
    record = identity(config) | measured | {"status": FINISHED}
    record["config_hash"] = schema.config_hash(config)
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


def follow(run_dir: pathlib.Path) -> pathlib.Path:
    """Where a job's run lies: in its directory, or in an earlier one that it was resumed from."""
    target = read_json(run_dir / ELSEWHERE).get("run_dir")
    return pathlib.Path(target) if target else run_dir


def belongs(run_dir: pathlib.Path, wanted: str) -> bool:
    """Whether the run in (or behind) this directory has the configuration hash ``wanted``."""
    path = follow(run_dir) / CONFIG
    return path.exists() and _hash_of(path) == wanted


def search(parent: pathlib.Path, wanted: str) -> tuple[pathlib.Path | None, pathlib.Path | None]:
    """Looks below ``parent`` for runs of one configuration.

    Args:
      parent: where to look, at any depth.
      wanted: the configuration's hash.

    Returns:
      The directory of a finished run and the one of the latest broken run; None: there is none.
    """
    broken = []
    for path in sorted(parent.rglob(CONFIG)):
        summary = read_json(path.with_name(SUMMARY))
        if (summary.get("config_hash") or _hash_of(path)) != wanted:
            continue
        if summary.get("status") == FINISHED:
            return path.parent, None
        broken.append(path)
    latest = max(broken, key=lambda path: path.stat().st_mtime, default=None)
    return None, latest.parent if latest else None


def outcomes(sweep_dir: pathlib.Path) -> tuple[int, int]:
    """How many jobs of a sweep failed, and how many there are, at any depth.

    A job that failed in one directory and finished in another one has not failed.
    """
    jobs = {path.parent for n in (CONFIG, SUMMARY, ELSEWHERE) for path in sweep_dir.rglob(n)}
    found = {follow(job) for job in jobs}
    summaries = {path: read_json(path / SUMMARY) for path in sorted(found)}
    done = {path for path in found if summaries[path].get("status") == FINISHED}
    hashes = {summaries[path].get("config_hash") for path in done} - {None}
    failed = [p for p in found - done if summaries[p].get("config_hash") not in hashes]
    return len(failed), len(failed) + len(done)


def _hash_of(path: pathlib.Path) -> str | None:
    """The hash of a stored configuration; None when an older schema wrote it."""
    try:
        return schema.config_hash(schema.load(path))
    except OmegaConfBaseException:
        return None


def live(run_dir: pathlib.Path) -> bool:
    """Whether a process works on this run directory right now."""
    try:
        with claim(run_dir):
            return False
    except GeojaxError:
        return True


@contextlib.contextmanager
def claim(run_dir: pathlib.Path) -> Iterator[None]:
    """Holds a run directory for this process; a second process is refused.

    Raises:
      GeojaxError: another process works on this directory right now.
    """
    with (run_dir / CONFIG).open("r+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise GeojaxError(f"{run_dir}: another process is running this job now") from error
        yield
