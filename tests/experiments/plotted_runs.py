"""Small runs on a path of three centers, a - b - c, for the tests of pictures."""

from __future__ import annotations

import json
from pathlib import Path

from simulated_runs import small_config

from experiments.runs import records, schema
from geojax.axes import change
from geojax.config import RunConfig, WanConfig
from testbed.run import run

LINKS = (("a", "b"), ("b", "a"), ("b", "c"), ("c", "b"))


def path_config(**settings) -> RunConfig:
    """A star around a, which c reaches through b; every link of 8 Mbit/s."""
    config = small_config(rounds=5, **settings)
    links = [{"between": pair, "rate": 8, "rtt": 10} for pair in (["a", "b"], ["b", "c"])]
    dynamics = config.wan.dynamics
    config.wan = WanConfig("path", None, ["a", "b", "c"], links, dynamics=dynamics)
    return config if config.overlay.name == "ring" else change(config, {"overlay.root": "a"})


def executed(config: RunConfig, run_dir: Path) -> Path:
    """Runs a configuration and leaves what a command would have left."""
    run_dir.mkdir(parents=True)
    schema.save(config, run_dir / "config.yaml")
    records.finish(run_dir, config, run(config, run_dir))
    return run_dir


def events_of(run_dir: Path) -> list[dict]:
    """What is in ``events.jsonl``."""
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def add_events(run_dir: Path, *events: dict) -> None:
    """Puts events into ``events.jsonl``, in order of time."""
    every = sorted([*events_of(run_dir), *events], key=lambda event: event["t"])
    (run_dir / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in every))
