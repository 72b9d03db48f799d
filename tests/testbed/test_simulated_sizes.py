"""Runs that move sizes only: the times are those of a run with content; refused elsewhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geojax.axes import change
from geojax.center.trainer import build_trainer, initial_vector
from geojax.compression.registry import build_codec
from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.hollow import hollow, is_hollow, join
from geojax.models.registry import SyntheticConfig
from testbed.run import check, run
from testbed.wan.build import load_preset

ROOT = Path(__file__).resolve().parents[2]


def config_of(compression: str, **changes: Any) -> RunConfig:
    config = RunConfig(rounds=4, hash_every=1)
    config.wan = load_preset("three_centers")
    config.model = SyntheticConfig(bytes=1_000_004, pace_s=0.1)
    config.compression.name, config.testbed.name = compression, "simulated"
    settings = {f"{g}.{key}": value for g, keys in changes.items() for key, value in keys.items()}
    return change(config, settings)


def events_of(config: RunConfig, folder: Path) -> list[dict[str, Any]]:
    folder.mkdir()
    run(config, folder)
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "digest"} for line in lines]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sync", [{"name": "fsa"}, {"name": "local_steps", "local_steps": 3}])
def test_sizes_take_the_time_of_content(tmp_path: Path, workers: int, sync: dict[str, Any]) -> None:
    changes = {"lan": {"workers": workers}, "sync": sync}
    kill: dict[str, Any] = {"testbed": {"faults": [{"at": 0.25, "kind": "kill", "node": "c2"}]}}
    kill["timeouts"] = {"heartbeat": 0.1, "dead": 1.0}
    dense = events_of(config_of("dense", **changes, **kill), tmp_path / "dense")
    sizes = events_of(config_of("size_only", **changes, **kill), tmp_path / "sizes")
    assert dense == sizes
    assert "dead" in {event["event"] for event in sizes}
    assert (tmp_path / "dense" / "models" / "final.npy").exists()
    assert not (tmp_path / "sizes" / "models" / "final.npy").exists()


@pytest.mark.parametrize(
    "changes",
    [{"model": {"name": "mlp"}}, {"testbed": {"name": "local"}}],
    ids=["model", "testbed"],
)
def test_sizes_alone_are_refused_where_something_is_computed_or_sent(changes: Any) -> None:
    with pytest.raises(ConfigError, match=r"compression\.name = .*size_only.*testbed=simulated"):
        check(config_of("size_only", **changes))


def test_nothing_dense_is_made_of_a_hollow_model() -> None:
    config = config_of("size_only", model={"bytes": 4 * 10**12})
    assert is_hollow(initial_vector(config))
    trainer = build_trainer(
        config, features=np.zeros(0), labels=np.zeros(0), worker_index=0, worker_count=1
    )
    trainer.load(hollow(10**12))
    assert trainer.gradient().shape == trainer.vector().shape == (10**12,)
    assert is_hollow(trainer.gradient())
    trainer.step()
    assert trainer.steps == 3
    codec = build_codec(config.compression)
    state = codec.init((), [(0, 10**11), (10**11, 10**12)])
    payloads, _ = codec.encode(trainer.vector(), state)
    assert [payload.nbytes for payload in payloads] == [4 * 10**11, 36 * 10**11]
    whole = join([codec.decode(codec.combine([payload] * 3)) for payload in payloads])
    assert is_hollow(whole)
    assert whole.shape == (10**12,)


def test_what_is_not_hollow_is_joined_as_it_is() -> None:
    joined = join([np.ones(2, np.float32), np.zeros(1, np.float32)])
    assert joined.tolist() == [1.0, 1.0, 0.0]
    assert not is_hollow(joined)


@pytest.mark.parametrize("overlay", ["tree", "balanced", "star"])
def test_the_benchmark_runs(overlay: str) -> None:
    small = ["--centers", "10", "--rounds", "2", "--chunks", "3", "--overlay", overlay]
    command = [sys.executable, "-m", "experiments.bench.simulator", *small]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert re.search(r"deliveries +│ +108 │", ran.stdout)
    assert re.search(r"per delivery +│ +[0-9.,]+ µs │", ran.stdout)
