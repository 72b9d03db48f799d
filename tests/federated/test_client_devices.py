"""Clients dealt to several devices: the same bits as on one, in less time."""

import itertools
import logging
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simulated_runs import kill, simulated
from small_runs import CNN, ROWS, Row, config_of, distance, engine

from geojax.assemble.clients import client_trainer
from geojax.center import devices
from geojax.errors import Diverged
from geojax.federated.training import execution
from geojax.federated.training.execution import Job, Pending, build_execution, deal
from geojax.sync.client import Given
from geojax.sync.registry import build_sync
from testbed.run import prepare


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def trainer_of(folder, row, **settings):
    run = config_of(row, **settings)
    setup, _, _ = prepare(run, folder)
    return client_trainer(setup, setup.cluster.trainers[0], build_sync(run.sync).client)


@pytest.mark.parametrize(
    ("key", "count"), [("fedavg", 2), ("fedavg", 3), ("scaffold", 2), ("ida intrac", 2)]
)
def test_a_run_on_several_devices_is_that_on_one_to_the_bit(key, count):
    """Three devices divide no batch of 8: each has clients of its own."""
    spread = simulated(config_of(ROWS[key], testbed__devices=count))
    assert spread.final.tobytes() == engine(key).final.tobytes()
    assert spread.lines() == engine(key).lines()


@pytest.mark.parametrize("name", ["loop", "scan"])
def test_so_is_a_round_of_a_network_with_convolutions_and_float_state(name, tmp_path):
    """XLA's convolutions have other bits with another number of threads."""
    row = Row("fedavg", {"execution": name}, {**CNN, "sync__epochs": 1})
    one, two = (trainer_of(tmp_path, row, testbed__devices=count) for count in (1, 2))
    for trainer in (one, two):
        trainer.step()
    assert two.offer().tobytes() == one.offer().tobytes()
    assert np.abs(one.offer()).max() > 1e-3
    assert two.last_loss == one.last_loss


def test_clients_side_by_side_on_several_devices_train_the_same(tmp_path):
    """Another number of clients in a program may have other bits; three leave one place idle."""
    row = Row("scaffold", {"execution": "vmap"})
    one, two = (trainer_of(tmp_path, row, testbed__devices=count) for count in (1, 2))
    for trainer in (one, two):
        trainer.step()
        trainer.step()
    assert distance(two.offer(), one.offer()) < 1e-5


def test_a_resumed_run_ends_with_the_same_model(tmp_path):
    settings = {"checkpoint_every": 1, "testbed__devices": 2}
    faults = [kill("scheduler", 0.7 * engine("scaffold").end)]
    broken = config_of(ROWS["scaffold"], testbed__faults=faults, **settings)
    simulated(broken, fails=True, folder=tmp_path)
    resumed = simulated(config_of(ROWS["scaffold"], resume=True, **settings), folder=tmp_path)
    assert resumed.rounds_of("c1")[0] > 0
    assert resumed.final.tobytes() == engine("scaffold").final.tobytes()


def test_devices_of_the_cpu_are_apart_and_read_the_same_samples(tmp_path):
    run = config_of(ROWS["fedavg"], testbed__devices=3)
    setup, _, _ = prepare(run, tmp_path)
    data = setup.client_data()
    (first,) = data[0].samples.devices()
    assert first == devices.local_devices()[0]
    found = [next(iter(each.targets.devices())) for each in data]
    assert len({id(each.client) for each in found}) == 3
    assert len(devices.local_devices()) == 1, "one device has all threads of its client"
    (memory,) = {each.samples.unsafe_buffer_pointer() for each in data}
    assert memory == setup.dataset().train_x.ctypes.data


def test_every_device_has_its_share_of_the_steps(tmp_path, monkeypatch):
    """As many steps as :func:`deal` says, which are computed there."""
    found = []

    def loop(steps):
        client = own(steps)

        def watched(lane, job, most):
            pending = yield from client(lane, job, most)
            assert pending.trained.devices() == {lane.device}
            found.append((id(lane.device), len(job.batches)))
            return pending

        return watched

    own, row = execution._loop, Row("fedavg", {"execution": "loop"})
    monkeypatch.setattr(execution, "_loop", loop)
    trainer = trainer_of(tmp_path, row, testbed__devices=2, lr=0.0917)  # compiled here
    trainer.step()
    steps = [trainer.clients.steps(client) for client in range(len(trainer.clients))]
    first, second = (sorted(steps[client] for client in share) for share in deal(steps, 2))
    shares: dict[int, list[int]] = {}
    for device, count in found:
        shares.setdefault(device, []).append(count)
    assert sorted(map(sorted, shares.values())) == sorted([first, second])


def test_jobs_are_dealt_within_a_third_of_the_shortest_time():
    draws = np.random.default_rng(5)
    for number in range(12):
        count = 2 + number % 2
        steps = draws.integers(1, 40, int(draws.integers(1, 8)))
        dealt = deal(steps.tolist(), count)
        assert sorted(itertools.chain(*dealt)) == list(range(len(steps)))
        ways = np.array([*itertools.product(range(count), repeat=len(steps))])
        shortest = np.stack([(steps * (ways == each)).sum(1) for each in range(count)]).max(0).min()
        assert max(sum(steps[each] for each in share) for share in dealt) <= 4 / 3 * shortest


def test_a_warm_trainer_compiles_nothing_more_on_any_device(tmp_path):
    trainer = trainer_of(tmp_path, ROWS["fedavg"], testbed__devices=2, lr=0.127)
    compiled = []

    def listen(event, seconds, **_):
        if "backend_compile" in event:
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    trainer.warm_up()
    assert compiled
    compiled.clear()
    trainer.step()
    assert not compiled


def test_a_client_that_diverges_is_named(tmp_path):
    """The second one, whose device is not the first."""
    trainer = trainer_of(tmp_path, ROWS["scaffold"], testbed__devices=2)
    state = trainer.state_dict()
    state["kept"]["c"][1] = np.inf
    trainer.load_state(state)
    with pytest.raises(Diverged, match="client 1 of worker 0, step 0"):
        trainer.step()


@pytest.mark.parametrize("at", ["call", "result"])
def test_an_error_names_its_client_and_leaves_nothing_behind(at):
    """At the call, where programs are compiled, and where results are waited for."""

    class Lost:
        def __array__(self, *_, **__):
            raise RuntimeError("lost")

    def client(lane, job, most):
        del lane, most
        if at == "call" and job.draw[2] == 4:
            raise RuntimeError("lost")
        yield
        good = jnp.zeros(3)
        trained = Lost() if job.draw[2] == 4 else good
        return Pending(trained, good, jnp.zeros(()))

    threads = threading.active_count()
    local = devices.separate_devices(2)
    execute = execution._one_by_one(client, local)
    given = Given(np.zeros(3, np.float32), np.zeros(0, np.float32), {}, {})
    jobs = [Job({}, np.array([0, 0, each, 6], np.uint32), np.zeros((1, 1))) for each in (3, 4, 5)]
    with pytest.raises(RuntimeError, match="lost") as error:
        list(execute(given, [None, None], jobs, 1))
    assert error.value.__notes__ == ["client 4, round 6"]
    assert threading.active_count() == threads


def test_a_round_without_clients_ends_at_once():
    model = SimpleNamespace(state=0)
    steps = SimpleNamespace(begin=abs, step=abs, model=model)
    given = Given(np.zeros(3, np.float32), np.zeros(0, np.float32), {}, {})
    for name in ("loop", "scan", "vmap"):
        execute = build_execution(name, steps, devices.separate_devices(2))
        assert list(execute(given, [None, None], [], 1)) == []


class Clock:
    """Devices that take a second a step; only waiting for one of their results takes time."""

    def __init__(self):
        self.now, self.ends = 0, {}

    def client(self, lane, job, most):
        del most
        begun = max(self.now, self.ends.get(lane.device, 0))
        self.ends[lane.device] = begun + len(job.batches)
        loss = _Loss(self, self.ends[lane.device])
        yield
        return Pending(np.zeros(3, np.float32), np.zeros(0), loss)


class _Loss:
    def __init__(self, clock, at):
        self.clock, self.at = clock, at

    def is_ready(self):
        return self.clock.now >= self.at

    def block_until_ready(self):
        self.clock.now = max(self.clock.now, self.at)
        return self

    def __float__(self):
        self.block_until_ready()
        return 0.0


def executed(client, steps, count):
    local = devices.separate_devices(count)
    given = Given(np.zeros(3, np.float32), np.zeros(0, np.float32), {}, {})
    jobs = [
        Job({}, np.array([0, 0, number, 6], np.uint32), np.zeros((each, 1)))
        for number, each in enumerate(steps)
    ]
    return list(execution._one_by_one(client, local)(given, [None] * count, jobs, max(steps)))


@pytest.mark.parametrize("steps", [[20, 10, 4, 4, 4, 4], [3, 3, 30, 5, 5, 5, 5, 5, 5], [9, 1, 1]])
def test_a_device_with_a_long_client_keeps_no_other_waiting(steps):
    """A call is a whole client, as with ``scan``: no device is ever idle before its last one."""
    clock = Clock()
    assert len(executed(clock.client, steps, 2)) == len(steps)
    dealt = [sum(steps[each] for each in share) for share in deal(steps, 2)]
    assert sorted(clock.ends.values()) == sorted(dealt)


def test_an_error_of_a_client_that_is_waited_for_names_it():
    """And not the next one, which its device has been given already."""

    def client(lane, job, most):
        pending = yield from clock.client(lane, job, most)
        if job.draw[2] == 0:
            pending.loss.block_until_ready = broken
        return pending

    def broken():
        raise RuntimeError("lost")

    clock = Clock()
    with pytest.raises(RuntimeError, match="lost") as error:
        executed(client, [5, 4, 3], 1)
    assert error.value.__notes__ == ["client 0, round 6"]
