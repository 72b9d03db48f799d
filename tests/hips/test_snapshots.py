"""Models on the grid of experiment time: every point once, whoever lives."""

import logging

import numpy as np
import pytest
from exchange_group import run_virtual
from simulated_runs import kill, simulated, small_config

from geojax.assemble import Setup
from geojax.config import TimeoutsConfig
from geojax.hips.storage.snapshots import SharedPieces, Snapshots, StoredPieces
from geojax.telemetry.recorder import Recorder


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


class Aside:
    async def aside(self, work):
        return work()


def figures(vector):
    return {"accuracy": float(vector[0]), "loss": 0.0}


class Center:
    """One center's snapshots, every second."""

    def __init__(self, folder, name, events, pieces):
        self.snapshots = Snapshots(
            1.0, figures, recorder=Recorder(name, events.append), machine=Aside(), folder=folder,
            chunks=0, pieces=pieces, clock=lambda: 0.0, timeouts=TimeoutsConfig(),
        )  # fmt: skip

    def merged(self, now, number, *, speaks=True):
        run_virtual(self.snapshots.merged(now, number, model(number), speaks=speaks))

    def finish(self, end, number):
        run_virtual(self.snapshots.finish(end, number, model(number), speaks=True))


def model(number):
    return np.array([number / 10], np.float32)


def told(events):
    return [(event["t"], event["round"], round(event["accuracy"], 3)) for event in events]


@pytest.fixture(params=["at once", "after the run"])
def centers(request, tmp_path):
    shared = SharedPieces() if request.param == "at once" else None
    events = []
    return (
        *(
            Center(tmp_path, name, events, shared or StoredPieces(tmp_path, name))
            for name in ("c1", "c2")
        ),
        events,
    )


def test_a_grid_point_gets_the_model_that_was_the_last_one_then(centers):
    one, _, events = centers
    one.merged(0.4, -1)  # 0 lies before
    one.merged(2.5, 0)  # 1 and 2
    one.merged(2.9, 1)
    one.merged(3.0, 2)  # 3 does not lie before 3
    one.merged(4.1, 3)
    one.finish(4.5, 4)
    assert told(events) == [
        (0.0, -1, -0.1), (1.0, 0, 0.0), (2.0, 0, 0.0), (3.0, 3, 0.3), (4.0, 3, 0.3), (4.5, 4, 0.4)
    ]  # fmt: skip


def test_only_the_center_that_speaks_keeps_models(centers):
    one, two, events = centers
    two.merged(2.5, -1, speaks=False)
    one.merged(2.6, -1)
    one.finish(2.8, 0)
    assert told(events) == [(0.0, -1, -0.1), (1.0, -1, -0.1), (2.0, -1, -0.1), (2.8, 0, 0.0)]


def test_who_speaks_next_keeps_what_the_dead_did_not_come_to(centers):
    one, two, events = centers
    one.merged(0.5, -1)
    two.merged(0.6, -1, speaks=False)
    two.merged(2.5, 0, speaks=False)  # c1 dies before it gets there
    two.merged(4.5, 1)
    two.finish(4.6, 2)
    assert told(events) == [
        (0.0, -1, -0.1), (1.0, 0, 0.0), (2.0, 0, 0.0), (3.0, 1, 0.1), (4.0, 1, 0.1), (4.6, 2, 0.2)
    ]  # fmt: skip


def test_what_the_dead_has_kept_is_not_kept_again(centers):
    one, two, events = centers
    two.merged(2.4, -1, speaks=False)
    one.merged(2.5, -1)
    two.merged(3.5, 0)
    two.finish(3.6, 1)
    assert [at for at, _, _ in told(events)] == [0.0, 1.0, 2.0, 3.0, 3.6]


def test_the_final_model_is_written(centers, tmp_path):
    centers[0].finish(1.5, 7)
    assert np.load(tmp_path / "final.npy").tolist() == model(7).tolist()


# ---- in whole runs


def evaluations(monkeypatch, *faults, **settings):
    with monkeypatch.context() as patch:
        patch.setattr(Setup, "evaluator", lambda self: figures)
        outcome = simulated(
            small_config(rounds=8, eval_every_s=0.02, testbed__faults=list(faults), **settings)
        )
    return [(round(event["t"], 9), event["round"]) for event in outcome.of("evaluation")]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("back", [False, True])
def test_every_point_is_evaluated_once_when_the_first_center_dies(workers, back, monkeypatch):
    for at in np.arange(0.01, 0.4, 0.023):
        faults = [kill("c1", float(at))]
        if back:
            faults.append({"at": float(at) + 0.1, "kind": "restart", "node": "c1"})
        seen = evaluations(monkeypatch, *faults, workers=workers)
        times = sorted(time for time, _ in seen)
        grid = [round(0.02 * k, 9) for k in range(len(times) - 1)]
        assert times[:-1] == grid, f"c1 killed at {at} s"
        rounds = [number for _, number in sorted(seen)]
        assert rounds == sorted(rounds)
        assert rounds[-1] == 7
