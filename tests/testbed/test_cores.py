"""However many cores compute a simulated run's steps, and whenever they do: the same bytes."""

import asyncio
import json
import logging
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import joblib
import pytest
from simulated_runs import kill, simulated, small_config

from experiments.runs import stored
from experiments.train import cores as of_jobs
from experiments.train import standing
from geojax.center import devices
from geojax.center.mesh_trainer import MeshTrainer
from geojax.config import PaceConfig, RunConfig, TestbedConfig
from geojax.errors import ConfigError, Diverged
from testbed.run import check, prepare
from testbed.simulated import cores, run
from testbed.simulated.loop import run_virtual
from testbed.simulated.machine import VirtualMachine


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


class Late(Executor):
    """Does work when its result is asked for, and not before: the slowest of all threads."""

    def __init__(self):
        self.never = 0  # works whose nodes died before

    def submit(self, fn, /, *args, **kwargs):
        late = self

        class Work(Future):
            def result(self, timeout=None):
                if not self.done():
                    super().set_running_or_notify_cancel()
                    try:
                        self.set_result(fn(*args, **kwargs))
                    except Exception as error:  # noqa: BLE001 - raised below
                        self.set_exception(error)
                return super().result(timeout)

            def cancel(self):
                late.never += super().cancel()
                return self.cancelled()

        return Work()


def trained(*faults, **settings):
    """Three centers of different paces, which train a small network on digits."""
    given = {
        "rounds": 4, "model__name": "mlp", "data__name": "digits", "data__train_samples": 300,
        "data__test_samples": 100, "batch_size": 16, "lr": 0.05, "optimizer__momentum": 0.9,
        "eval_every_s": 0.1,
        "overlay__chunk_elements": 1000, "pace__profile": {"kind": "two_groups", "h": 3},
        "timeouts__heartbeat": 0.02, "timeouts__dead": 0.3, "testbed__faults": list(faults),
        "events": "chunk",
    }  # fmt: skip
    return small_config(**(given | settings))


def left(config, late=None, folder=None, fails=False):
    """What a run leaves; ``late``: computes its steps, if its threads do not."""
    with pytest.MonkeyPatch.context() as patch:
        if late is not None:
            patch.setattr(run, "open_cores", lambda config: [late])
        done = simulated(config, fails=fails, folder=folder)
    reports = {
        name: {key: report.get(key) for key in ("sent", "totals", "steps")}
        for name, report in done.reports.items()
    }
    for report in reports.values():
        (report["totals"] or {}).pop("choice_s", None)  # on a real clock
    final = None if done.final is None else done.final.tobytes()
    return done.lines(), final, reports, done.spans


def restart(node, at):
    return {"at": at, "kind": "restart", "node": node}


RUNS = {
    "fsa": {},
    "local steps": {"sync__name": "local_steps", "sync__local_steps": 3},
    "p3": {"sync__p3": True},
    "esync": {"sync__name": "esync"},
    "esync, in flight": {"sync__name": "esync", "sync__query": "in_flight"},
    "asynchronous": {"sync__name": "mixed_sync"},
    "halos": {"sync__name": "halos", "sync__offers": 3, "workers": 2, "rounds": 3},
    "streaming diloco": {
        "sync__name": "streaming_diloco", "sync__local_steps": 4, "sync__fragments": 2,
        "sync__overlap": 1,
    },
    "fedgs": {
        "sync__name": "fedgs", "sync__local_steps": 3, "devices__count": 6, "batch_size": 4,
        "selection__name": "gbp_cs", "selection__devices": 4, "selection__random_devices": 1,
    },
    "fedavg": {"sync__name": "fedavg", "sync__epochs": 1},
    "a death and a return in a step": {
        "sync__name": "esync", "rounds": 14,
        "testbed__faults": [kill("c3", 0.36), restart("c3", 0.5)],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_it_is_the_run_of_one_core(name):
    one = left(trained(**RUNS[name]))
    assert left(trained(**RUNS[name], testbed__cores=2)) == one
    assert left(trained(**RUNS[name]), Late()) == one


def test_a_query_in_flight_takes_steps_back_and_a_death_leaves_one_alone():
    """The runs above are those that they say they are."""
    late = Late()
    _, _, _, spans = left(trained(**RUNS["esync, in flight"]), late)
    assert any(span.name == "given_up" for lane in spans.values() for span in lane)
    assert late.never == 0
    lines, *_ = left(trained(**RUNS["a death and a return in a step"]), late)
    assert late.never == 1
    assert '"back"' in lines


def test_a_broken_run_goes_on_from_a_checkpoint_with_any_number_of_cores(tmp_path):
    settings = {"sync__name": "local_steps", "sync__local_steps": 2}
    whole = left(trained(**settings))
    settings["checkpoint_every"] = 1
    for before, after in ((1, 2), (2, 1)):
        folder = tmp_path / str(before)
        folder.mkdir()
        broken = trained(kill("scheduler", 0.35), **settings, testbed__cores=before)
        left(broken, folder=folder, fails=True)
        found = left(trained(**settings, resume=True, testbed__cores=after), folder=folder)
        assert found[1] == whole[1]


@pytest.mark.parametrize("nonfinite", ["skip", "stop"])
def test_an_error_of_a_step_comes_at_its_end(nonfinite, monkeypatch):
    """The second one of c2; each lasts 0.3 s."""
    gradient = MeshTrainer.gradient

    def diverges(trainer):
        found = gradient(trainer)
        if trainer._order.worker_index == 1 and trainer.steps == 2:
            raise Diverged("not finite", ["a layer"])
        return found

    monkeypatch.setattr(MeshTrainer, "gradient", diverges)
    settings = {"rounds": 3, "nonfinite": nonfinite, "pace__profile": None, "pace__factor": 30}
    stops = nonfinite == "stop"
    one = left(trained(**settings), fails=stops)
    seen = map(json.loads, one[0].splitlines())
    (event,) = [each for each in seen if each["event"] == "nonfinite"]
    assert 0.6 < event["t"] < 0.9
    assert left(trained(**settings, testbed__cores=2), fails=stops) == one
    assert left(trained(**settings), Late(), fails=stops) == one


def test_a_step_is_computed_while_its_pace_passes():
    async def step(fails):
        made = VirtualMachine(PaceConfig(), threads)
        start = made._loop.time()
        try:
            return await made.compute(fails, 2.0), made.steps
        except Diverged:
            return made._loop.time() - start, made.steps

    def diverges():
        raise Diverged("not finite", [])

    with ThreadPoolExecutor(1) as threads:
        assert run_virtual(step(lambda: "result")) == ("result", 1)
        assert run_virtual(step(diverges)) == (2.0, 0)


def test_what_two_threads_do_meets():
    """Two steps that wait for each other end, so they are computed at the same time."""
    both = threading.Barrier(2)

    async def steps():
        machines = [VirtualMachine(PaceConfig(), threads) for _ in range(2)]
        waits = [each.compute(lambda: both.wait(60), 1.0) for each in machines]
        return sorted(await asyncio.gather(*waits)), machines[0]._loop.time()

    with ThreadPoolExecutor(2) as threads:
        assert run_virtual(steps()) == ([0, 1], 1.0)


def test_there_are_as_many_as_workers_whose_steps_are_programs_of_their_own(monkeypatch):
    monkeypatch.setattr(cores, "available", lambda: 8)
    for settings, count in (
        ({}, 3),
        ({"workers": 4}, 8),
        ({"testbed__cores": 2}, 2),
        ({"testbed__devices": 2}, 1),
        ({"model__name": "synthetic"}, 1),
        ({"sync__name": "fedavg"}, 1),
    ):
        setup, _, _ = prepare(trained(**settings), Path())
        assert setup.config.testbed.cores == count


def test_each_worker_has_one_of_them():
    opened = cores.open_cores(trained(testbed__cores=2))
    assert [type(each) for each in opened] == [ThreadPoolExecutor] * 2
    found = [devices.devices_of(trained(testbed__cores=2), index) for index in range(3)]
    assert found[0] == found[2] != found[1]
    assert [type(each) for each in cores.open_cores(trained())] == [cores.Inline]


def test_wrong_numbers_are_refused():
    for name, value, says in (
        ("simulated", 0, "at least 1"),
        ("simulated", 1.5, "whole number"),
        ("local", 2, "a process of its own"),
        ("emulated", 2, "a process of its own"),
    ):
        config = trained(model__name="synthetic", testbed__name=name, testbed__cores=value)
        with pytest.raises(ConfigError, match=says) as refused:
            check(config)
        assert refused.value.key == "testbed.cores"


@pytest.mark.parametrize("limit", [None, "1", "100"])
def test_as_many_as_joblib_counts_may_be_used(limit, monkeypatch):
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    if limit is not None:
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", limit)
    assert cores.available() == joblib.cpu_count()


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, []), ({"cpu.max": "max 100000\n"}, []), ({"cpu.max": "150000 100000\n"}, [2]),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, []),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, [1]),
    ],
)  # fmt: skip
def test_a_control_group_may_limit_them(tmp_path, files, limit):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores._of_control_group(tmp_path) == limit


def test_they_decide_nothing_that_a_run_computes():
    hashes = {stored.config_hash(RunConfig(testbed=TestbedConfig(cores=n))) for n in (None, 1, 2)}
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("asked", "n_jobs", "jobs", "share"),
    [
        (None, 2, None, 4), (None, 3, None, 2), (None, 16, None, 1), (None, -1, None, 1),
        (None, -1, 3, 2), (None, -3, 100, 1), (None, 4, 2, 4), (6, 2, None, 3), (1, 2, None, 1),
        (0, 2, None, 0), (None, None, None, 8),
    ],
)  # fmt: skip
def test_jobs_that_run_at_once_share_them(asked, n_jobs, jobs, share, monkeypatch):
    monkeypatch.setattr(cores, "available", lambda: 8)
    monkeypatch.setattr(standing, "jobs", lambda: jobs)
    launcher = {"_target_": "hydra_plugins.x.JoblibLauncher", "n_jobs": n_jobs}
    assert of_jobs.of_job(TestbedConfig(cores=asked), launcher) == share


def test_other_launchers_and_testbeds_leave_them_alone():
    of_joblib = {"_target_": "hydra_plugins.x.JoblibLauncher", "n_jobs": 2}
    basic = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
    assert of_jobs.of_job(TestbedConfig(cores=5), basic) == 5
    assert of_jobs.of_job(TestbedConfig(), basic) is None
    assert of_jobs.of_job(TestbedConfig(name="local"), of_joblib) is None
