"""However many cores compute a simulated run's steps, and whenever they do: the same bytes."""

import asyncio
import logging
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
from simulated_runs import kill, simulated, small_config

from experiments.runs import schema
from experiments.train import cores as of_jobs
from experiments.train import standing
from geojax.config import PaceConfig, RunConfig, TestbedConfig
from geojax.errors import ConfigError, Diverged
from testbed.run import check
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


CORES = {"late": Late, "threads": lambda: ThreadPoolExecutor(2)}


def trained(*faults, **settings):
    """Three centers of different paces, which train a small network on digits."""
    given = {
        "rounds": 4, "model__name": "mlp", "data__name": "digits", "data__train_samples": 300,
        "data__test_samples": 100, "batch_size": 16, "lr": 0.05, "eval_every_s": 0.1,
        "overlay__chunk_elements": 1000, "pace__profile": {"kind": "two_groups", "h": 3},
        "timeouts__heartbeat": 0.02, "timeouts__dead": 0.3, "testbed__faults": list(faults),
        "events": "chunk",
    }  # fmt: skip
    return small_config(**(given | settings))


def left(config, how, monkeypatch, folder=None):
    """What a run leaves, with its steps computed in some way."""
    with monkeypatch.context() as patch:
        patch.setattr(run, "open_cores", lambda config: how)
        done = simulated(config, fails=None, folder=folder)
    reports = {
        name: {key: report.get(key) for key in ("sent", "totals", "steps")}
        for name, report in done.reports.items()
    }
    for report in reports.values():
        (report["totals"] or {}).pop("choice_s", None)  # on a real clock
    final = None if done.final is None else done.final.tobytes()
    return done.lines(), final, reports, done.spans, str(done.error)


def restart(node, at):
    return {"at": at, "kind": "restart", "node": node}


RUNS = {
    "fsa": {},
    "local steps": {"sync__name": "local_steps", "sync__local_steps": 3},
    "p3": {"sync__p3": True},
    "esync": {"sync__name": "esync"},
    "esync, in flight": {"sync__name": "esync", "sync__query": "in_flight"},
    "asgd": {"sync__name": "asgd"},
    "halos": {"sync__name": "halos", "workers": 2, "rounds": 3},
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
        "sync__name": "esync", "rounds": 8,
        "testbed__faults": [kill("c3", 0.105), restart("c3", 0.6)],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_it_is_the_run_of_one_core(name, monkeypatch):
    config = trained(**RUNS[name])
    one = left(config, cores.Inline(), monkeypatch)
    assert one[-1] == "None"
    for make in CORES.values():
        with make() as how:
            found = left(config, how, monkeypatch)
        assert found == one


def test_a_query_in_flight_takes_steps_back_and_a_death_leaves_one_alone(monkeypatch):
    """The runs above are those that they say they are."""
    _, _, _, spans, _ = left(trained(**RUNS["esync, in flight"]), cores.Inline(), monkeypatch)
    assert any(span.name == "given_up" for lane in spans.values() for span in lane)
    late = Late()
    left(trained(**RUNS["a death and a return in a step"]), late, monkeypatch)
    assert late.never == 1


def test_a_broken_run_goes_on_from_a_checkpoint(tmp_path, monkeypatch):
    settings = {"sync__name": "local_steps", "sync__local_steps": 2, "optimizer": "momentum"}
    whole = left(trained(**settings), cores.Inline(), monkeypatch)
    for name, make in CORES.items():
        kept = {**settings, "checkpoint_every": 1}
        with make() as how:
            folder = tmp_path / name
            folder.mkdir()
            broken = trained(kill("scheduler", 0.35), **kept)
            assert "scheduler was killed" in left(broken, how, monkeypatch, folder)[-1]
            found = left(trained(**kept, resume=True), how, monkeypatch, folder)
        assert found[1] == whole[1]


@pytest.mark.parametrize("skip", [False, True])
def test_an_error_of_a_step_comes_at_its_end(skip, monkeypatch):
    """The rate is far too high, so the second gradient of everybody is not finite."""
    config = trained(lr=1e30, rounds=3, nonfinite="skip" if skip else "stop")
    one = left(config, cores.Inline(), monkeypatch)
    assert '"nonfinite"' in one[0]
    for make in CORES.values():
        with make() as how:
            assert left(config, how, monkeypatch) == one


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


def test_threads_are_for_steps_that_one_cpu_device_computes(monkeypatch):
    monkeypatch.setattr(cores, "available", lambda: 3)
    for settings, threads in (
        ({}, 3),
        ({"testbed__cores": 2}, 2),
        ({"testbed__cores": 1}, None),
        ({"testbed__devices": 2}, None),
        ({"model__name": "synthetic"}, None),
    ):
        with cores.open_cores(trained(**settings)) as opened:
            assert getattr(opened, "_max_workers", None) == threads


def test_wrong_numbers_are_refused():
    for name, value, says in (
        ("simulated", 0, "must be 1 or more"),
        ("simulated", 1.5, "whole number"),
        ("local", 2, "a process of its own"),
        ("emulated", 2, "a process of its own"),
    ):
        config = trained(model__name="synthetic", testbed__name=name, testbed__cores=value)
        with pytest.raises(ConfigError, match=says) as refused:
            check(config)
        assert refused.value.key == "testbed.cores"


def test_they_decide_nothing_that_a_run_computes():
    hashes = {schema.config_hash(RunConfig(testbed=TestbedConfig(cores=n))) for n in (None, 1, 2)}
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
    joblib = {"_target_": "hydra_plugins.x.JoblibLauncher", "n_jobs": 2}
    basic = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
    assert of_jobs.of_job(TestbedConfig(cores=5), basic) == 5
    assert of_jobs.of_job(TestbedConfig(), basic) is None
    assert of_jobs.of_job(TestbedConfig(name="local"), joblib) is None
