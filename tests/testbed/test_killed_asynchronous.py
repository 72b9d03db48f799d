"""An asynchronous run of real processes is killed at any moment, and goes on.

Run as a script, this file is such a run, which kills its driver and all its nodes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from geojax.config import RunConfig
from geojax.hips.cluster import START
from geojax.hips.storage.checkpoint import resume_point
from geojax.models.registry import SyntheticConfig
from geojax.sync.registry import SYNCS
from testbed import run as runs
from testbed.wan.build import load_preset

CENTERS, ROUNDS, EVERY = ("c1", "c2"), 12, 6
SYNC = {
    "fedbuff": SYNCS.settings("fedbuff", local_steps=2),
    "halos": SYNCS.settings("halos", local_steps=2, offers=3, dylu=False),
}


def nodes_of(sync: str) -> list[str]:
    """All that keep checkpoints."""
    workers = [f"{center}/w{at}" for center in CENTERS for at in range(2)]
    return [*CENTERS, *(workers if sync == "halos" else ())]


def config(sync: str, *, resume: bool) -> RunConfig:
    made = RunConfig()
    made.wan = load_preset("uniform", centers=2)
    made.testbed.name = "local"
    made.model = SyntheticConfig(bytes=40_000, pace_s=0.02)
    made.sync = SYNC[sync]
    made.lan.workers = 2 if sync == "halos" else 1
    made.rounds, made.checkpoint_every, made.resume = ROUNDS, EVERY, resume
    return made


class Kills(runs.RunProgress):
    """Kills the whole process group when there is a checkpoint that all nodes have."""

    def take(self, event: Mapping[str, Any]) -> None:
        if resume_point(Path(sys.argv[2]) / "checkpoints", nodes_of(sys.argv[1])) != START:
            os.killpg(0, signal.SIGKILL)


@pytest.mark.parametrize("sync", SYNC)
def test_a_killed_run_goes_on_from_a_cut(sync: str, tmp_path: Path) -> None:
    command = [sys.executable, __file__, sync, str(tmp_path)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, start_new_session=True, check=False)
    assert done.returncode == -signal.SIGKILL
    point = resume_point(tmp_path / "checkpoints", nodes_of(sync))
    assert point.round >= EVERY
    summary = runs.run(config(sync, resume=True), tmp_path)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    applied = [event for event in events if event["event"] == "applied"]
    pushes = Counter((event["center"], event["round"]) for event in applied)
    assert pushes == Counter((center, number) for center in CENTERS for number in range(ROUNDS))
    buffer = 2 if sync == "fedbuff" else 1
    merges = dict.fromkeys(range(1, ROUNDS * len(CENTERS) // buffer + 1), buffer)
    assert Counter(event["version"] for event in applied) == merges
    rounds = Counter((e["node"], e["round"]) for e in events if e["event"] == "round")
    assert set(rounds.values()) == {1}
    assert len(rounds) == ROUNDS * len(CENTERS)
    if sync == "halos":  # whose workers have rounds of their own
        rounds = Counter((e["node"], e["round"]) for e in events if e["event"] == "lan_round")
        pushed = [e for e in events if e["event"] == "lan_applied" and e["center"] not in CENTERS]
        assert rounds == Counter((e["center"], e["round"]) for e in pushed)
        assert set(rounds.values()) == {1}
    assert summary["steps"] == 2 * len(rounds)


if __name__ == "__main__":
    runs.RunProgress = Kills  # type: ignore[misc]
    runs.run(config(sys.argv[1], resume=False), Path(sys.argv[2]))
