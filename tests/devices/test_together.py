"""The steps of a round as one program: the same steps, choices, events and errors as by calls."""

import gc
import logging
import math
import weakref

import numpy as np
import pytest
from plain_fedgs import CENTERS, config, distance
from simulated_runs import simulated

from geojax.center.optimizers import SgdConfig
from geojax.config import DataConfig, DevicesConfig, ModelConfig, RunConfig
from geojax.data.dataset import load_dataset
from geojax.devices.execution import steps_together
from geojax.devices.fleet import Fleet
from geojax.devices.super_node import SuperNode
from geojax.devices.trainer import build_fleet_trainer
from geojax.errors import ConfigError, Diverged
from geojax.hips.roles.local_steps import LocalSteps
from geojax.models.registry import MlpConfig
from geojax.selection.gbp_cs import GbpCsConfig
from geojax.selection.registry import build_selection
from geojax.sync.fedgs import fedgs
from geojax.sync.registry import build_sync

DATA = load_dataset(DataConfig(name="digits", train_samples=200))
ROUND = 4  # steps


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def trainers(model="mlp", features=DATA.train_x, proximal=0.0, steps=(1, ROUND)):
    """One whose steps are calls, and one whose rounds are programs, both warm."""
    chosen = MlpConfig(dropout=0.3) if model == "mlp" else ModelConfig(name=model)
    config = RunConfig(
        model=chosen, data=DataConfig(name="digits"), lr=0.1, batch_size=6,
        devices=DevicesConfig(count=5), optimizer=SgdConfig(momentum=0.9),
    )  # fmt: skip
    made = []
    for together in steps:
        parts = np.array_split(np.argsort(DATA.train_y, kind="stable"), 5)
        fleet = Fleet(DATA.train_y, parts, batch_size=6, classes=10, seed=0)
        selection = build_selection(GbpCsConfig(devices=3, random_devices=1))
        shares = np.full(10, 0.1)
        node = SuperNode(fleet, selection, shares, seed=0, worker_index=0, round_steps=ROUND)
        trainer = build_fleet_trainer(
            config, node, features=features, labels=DATA.train_y, reports=True, proximal=proximal,
            together=lambda _, together=together: together,
        )  # fmt: skip
        trainer.warm_up(gradient=False)
        made.append(trainer)
    return made


def round_of(trainer, steps=ROUND):
    """Makes a round; returns what its steps were planned to cost, without the real time."""
    trainer.expect(steps)
    planned = []
    for _ in range(steps):
        planned.append(trainer.planned()._replace(choice_s=0.0))
        assert planned[-1] == trainer.planned()._replace(choice_s=0.0)
        trainer.step()
    return planned


@pytest.mark.parametrize("model", ["mlp", "small_cnn"])
def test_rounds_are_the_same_to_the_bit_on_a_cpu(model):
    calls, program = trainers(model)
    assert (calls.expect(ROUND), program.expect(ROUND)) == (1, ROUND)
    for steps in (ROUND, ROUND, 3, 1, ROUND):  # also fewer than the program was compiled for
        assert round_of(program, steps) == round_of(calls, steps)
        assert program.vector().tobytes() == calls.vector().tobytes()
        assert (program.steps, program.last_loss) == (calls.steps, calls.last_loss)
        assert program.node.step == calls.steps
        assert np.array_equal(program.node.fleet.taken, calls.node.fleet.taken)
        for each in (calls, program):
            each.load(np.float32(0.9) * each.vector())


def test_state_integers_and_a_proximal_term_go_the_same_way():
    calls, program = trainers("cnn_batchnorm", proximal=0.5)
    (without,) = trainers("cnn_batchnorm", steps=(1,))
    before = calls.vector()
    for each in (calls, program, without):
        round_of(each)
    moved = distance(before, calls.vector())
    assert distance(program.vector(), calls.vector()) <= 1e-4 * moved
    assert distance(program.vector(), without.vector()) > 1e-2 * moved
    assert program.state_dict()["integers"] == {"['counters/batches']": ROUND}


def test_samples_are_read_where_the_data_set_has_them_and_let_go_of():
    _, program = trainers()
    inner = program._trainer
    samples = inner._on_devices[0]
    assert samples.addressable_data(0).unsafe_buffer_pointer() == DATA.train_x.ctypes.data
    assert inner._mesh.place(DATA.train_x) is samples, "once for all base stations"
    left = weakref.ref(samples)
    del program, inner, samples, _
    gc.collect()
    assert left() is None


def test_more_steps_than_a_program_has_follow_by_calls():
    calls, program = trainers()
    assert program.expect(ROUND + 1) == ROUND
    assert round_of(program, ROUND + 1)[-1].samples == 18
    round_of(calls, ROUND + 1)
    assert program.vector().tobytes() == calls.vector().tobytes()


def test_what_needs_the_parameters_waits_for_the_last_step():
    (program,) = trainers(steps=(ROUND,))
    vector, kept = program.vector(), program.state_dict()
    program.expect(ROUND)
    program.step()
    assert math.isnan(program.last_loss)
    for ask in (
        program.vector, program.gradient, program.state_dict, lambda: program.load(vector),
        lambda: program.load_state(kept), lambda: program.expect(ROUND),
        lambda: program.load_part(0, 1, vector[:1]), lambda: program._trainer.skip_to(0),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="3 of the steps expected are still to be made"):
            ask()
    for _ in range(ROUND - 1):
        program.step()
    assert np.isfinite(program.last_loss)
    assert not np.array_equal(program.vector(), vector)


def test_what_is_not_finite_is_told_by_the_last_step_with_its_number():
    node = trainers(steps=(1,))[0].node
    *before, third = (node(step) for step in range(3))
    features = DATA.train_x.copy()
    features[np.setdiff1d(third, np.concatenate(before))] = np.inf
    calls, program = trainers(features=features)
    for trainer, made in ((calls, 3), (program, ROUND)):
        trainer.expect(ROUND)
        for _ in range(made - 1):
            trainer.step()
        with pytest.raises(Diverged, match="worker 0, step 3: the loss or its gradient is not"):
            trainer.step()
        assert trainer.steps == trainer.node.step == made
        assert math.isnan(trainer.last_loss)
        trainer.load(np.zeros_like(trainer.vector()))  # the next round may go on


# ---- runs


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"overlay": "netstorm", "overlay__chunk_elements": 500, "compression": "fp16"},
        {"selection": "gbp_cs", "selection__random_devices": 1, "checkpoint_every": 1},
    ],
)
def test_runs_have_the_same_events_and_the_same_model(settings):
    loop, scan = (simulated(config(sync__execution=each, **settings)) for each in ("loop", "scan"))
    assert scan.final.tobytes() == loop.final.tobytes()
    assert scan.lines() == loop.lines()
    for node in CENTERS:
        loops, scans = (dict(run.reports[node]["totals"]) for run in (loop, scan))
        for totals in (loops, scans):
            totals.pop("choice_s", None)  # real time
        assert scans == loops
        assert scan.reports[node]["steps"] == loop.reports[node]["steps"]


def test_auto_is_what_is_faster():
    def together(backend="cpu", steps=7, **settings):
        run = config(**settings)
        algorithm = fedgs(steps=steps, execution=run.sync.execution)
        return steps_together(run, algorithm, backend)

    assert together() == together(sync__execution="scan") == together(model="small_cnn") == 7
    assert together(sync__execution="loop") == together(devices__gradient="each") == 1
    assert together(model="resnet18") == 1  # convolutions that are slow inside a loop
    assert together(model="resnet18", sync__execution="scan") == 7
    assert together("gpu", model="resnet18") == 7
    with pytest.raises(ConfigError, match=r"sync\.execution = 'scan': devices\.gradient=each sums"):
        simulated(config(sync__execution="scan", devices__gradient="each"))


def test_steps_that_are_decided_in_a_round_are_calls():
    def known(settings):
        steps = LocalSteps(
            algorithm := build_sync(settings.sync).local_steps, asks=None, push_s=lambda: 0.0,
            clock=None, recorder=None,
        )  # fmt: skip
        return steps.known(0), algorithm

    assert known(config())[0] == 3
    expected, policy = known(config(sync="esync", sync__local_steps=None))
    assert expected == 0
    assert policy.in_round is not None
    dynamic = fedgs(steps=3, execution="scan")._replace(local_steps=policy)
    assert steps_together(config(), dynamic, "cpu") == 1
    (program,) = trainers(steps=(ROUND,))
    assert program.expect(expected) == 1
