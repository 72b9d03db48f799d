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

from geojax.config import RunConfig
from geojax.hips.cluster import START
from geojax.hips.storage.checkpoint import resume_point
from geojax.models.registry import SyntheticConfig
from geojax.sync.registry import SYNCS
from testbed import run as runs
from testbed.wan.build import load_preset

CENTERS, ROUNDS, EVERY = ("c1", "c2", "c3"), 12, 6


def config(*, resume: bool) -> RunConfig:
    made = RunConfig()
    made.wan = load_preset("three_centers")
    made.testbed.name = "local"
    made.model = SyntheticConfig(bytes=40_000, pace_s=0.02)
    made.sync = SYNCS.settings("fedbuff", local_steps=2)
    made.rounds, made.checkpoint_every, made.resume = ROUNDS, EVERY, resume
    return made


class Kills(runs.RunProgress):
    """Kills the whole process group when there is a checkpoint that all nodes have."""

    def take(self, event: Mapping[str, Any]) -> None:
        if resume_point(Path(sys.argv[1]) / "checkpoints", CENTERS) != START:
            os.killpg(0, signal.SIGKILL)


def test_a_killed_run_goes_on_from_a_cut(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, start_new_session=True, check=False)
    assert done.returncode == -signal.SIGKILL
    point = resume_point(tmp_path / "checkpoints", CENTERS)
    assert point.round >= EVERY
    summary = runs.run(config(resume=True), tmp_path)
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    applied = [event for event in events if event["event"] == "applied"]
    pushes = Counter((event["center"], event["round"]) for event in applied)
    assert pushes == Counter((center, number) for center in CENTERS for number in range(ROUNDS))
    merges = ROUNDS * len(CENTERS) // 2
    assert Counter(event["version"] for event in applied) == dict.fromkeys(range(1, merges + 1), 2)
    rounds = Counter((e["node"], e["round"]) for e in events if e["event"] == "round")
    assert set(rounds.values()) == {1}
    assert len(rounds) == ROUNDS * len(CENTERS)
    assert summary["steps"] == 2 * len(rounds)


if __name__ == "__main__":
    runs.RunProgress = Kills  # type: ignore[misc]
    runs.run(config(resume=False), Path(sys.argv[1]))
