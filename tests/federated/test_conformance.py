"""The conformance table of federated algorithms: one row each, all meet every check.

The tolerance is stated once: ‖a − b‖ ≤ 2e-5 · ‖b‖ over the parameters.
"""

import logging
from dataclasses import replace

import jax
import numpy as np
import pytest
from simulated_runs import kill, simulated
from small_runs import ROWS, compared, config_of, distance, engine, twin_vector

from geojax.assemble.allowances import of_workers
from geojax.assemble.clients import client_trainer
from geojax.federated.build import build_model
from geojax.federated.registry import FEDERATED
from geojax.sync.registry import build_sync
from geojax.wire.message import Kind, Message
from testbed.run import prepare

TOLERANCE = 2e-5

# Compiling convolutions takes long: one form of fusion stands for all three, but at night.
NIGHTLY = {"fedfusion conv", "fedfusion single"}
each_row = pytest.mark.parametrize(
    "key", [pytest.param(key, marks=[pytest.mark.nightly] * (key in NIGHTLY)) for key in ROWS]
)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def test_every_federated_algorithm_has_a_row():
    assert {row.name for row in ROWS.values()} == set(FEDERATED)


@each_row
def test_three_rounds_of_two_centers_are_those_of_the_twin(key):
    row = ROWS[key]
    run = config_of(row)
    start = build_model(run, build_sync(run.sync).client).initial(run.seed)
    by_hand = twin_vector(run, row.name, **row.keys, **row.twin)
    assert distance(compared(run, start), by_hand) > 500 * TOLERANCE, "it trains"
    assert distance(compared(run, engine(key).final), by_hand) <= TOLERANCE


@each_row
def test_all_centers_end_with_the_same_model_which_is_better_than_the_first(key):
    outcome = engine(key)
    assert len(set(outcome.finals.values())) == 1
    losses = [event["loss"] for event in outcome.of("evaluation")]
    assert all(np.isfinite(losses))
    assert losses[-1] < losses[0]


@each_row
def test_runs_with_one_seed_are_the_same_to_the_bit(key):
    again = simulated(config_of(ROWS[key]))
    assert again.final.tobytes() == engine(key).final.tobytes()
    assert again.lines() == engine(key).lines()


STATEFUL = ["scaffold", "feddyn", "moon", "fedadam", "fedfusion multi", "ida"]


@pytest.mark.parametrize("key", STATEFUL)
def test_a_resumed_run_ends_with_the_same_model(key, tmp_path):
    settings = {"checkpoint_every": 1}
    end = engine(key).end
    faults = [kill("scheduler", 0.7 * end)]
    broken = config_of(ROWS[key], testbed__faults=faults, **settings)
    simulated(broken, fails=True, folder=tmp_path)
    resumed = simulated(config_of(ROWS[key], resume=True, **settings), folder=tmp_path)
    rounds = resumed.rounds_of("c1")
    assert 0 < rounds[0] < config_of(ROWS[key]).rounds
    assert resumed.final.tobytes() == engine(key).final.tobytes()


@pytest.mark.parametrize("key", ["fedavg", "scaffold", "feddyn", "fednova"])
def test_some_clients_in_each_round_are_those_of_the_twin(key):
    row = ROWS[key]
    chosen = {"selection__name": "random", "selection__devices": 2}
    run = config_of(row, **chosen)
    by_hand = twin_vector(run, row.name, **row.keys, **row.twin)
    assert distance(compared(run, simulated(run).final), by_hand) <= TOLERANCE
    assert distance(compared(run, engine(key).final), by_hand) > 100 * TOLERANCE


def test_without_devices_each_worker_is_a_client():
    run = config_of(ROWS["fedavg"], devices__count=0)
    assert distance(simulated(run).final, twin_vector(run, "fedavg")) <= TOLERANCE
    two = config_of(ROWS["fedavg"], devices__count=0, workers=2)
    assert distance(simulated(two).final, twin_vector(two, "fedavg")) <= TOLERANCE


def test_clients_may_be_chosen_by_their_classes():
    run = config_of(
        ROWS["fedavg"], selection__name="gbp_cs", selection__devices=2, selection__random_devices=1
    )
    assert distance(simulated(run).final, twin_vector(run, "fedavg")) <= TOLERANCE


def test_weights_are_near_one_so_that_sums_stay_in_the_range_of_half_precision():
    """As n_k times τ_k they would not: 700 samples, 180 steps."""
    ends = []
    for codec in ("dense", "fp16"):
        run = config_of(
            ROWS["fednova"], compression__name=codec, devices__count=0, data__train_samples=1437
        )
        ends.append(simulated(run).final)
    assert distance(ends[1], ends[0]) < 5e-3


@pytest.mark.parametrize("key", ["fedavg", "scaffold", "ida", "ida fedavg"])
def test_weights_of_workers_sum_to_their_number_or_nearly(key, tmp_path):
    run = config_of(ROWS[key])
    setup, _, _ = prepare(run, tmp_path)
    rule = build_sync(run.sync).client
    trainers = [client_trainer(setup, worker, rule) for worker in setup.cluster.trainers]
    allowed = of_workers(setup, build_sync(run.sync))
    for name, trainer in zip(setup.cluster.trainers, trainers, strict=True):
        trainer.step()
        said = Message(Kind.OFFER, weight=trainer.weight, contributors=1, steps=1)
        assert not allowed[name].refuses(said)
        if rule.exchanges == 1:  # all clients take part, so the weight is known
            assert allowed[name].refuses(replace(said, weight=1.01 * trainer.weight))
    assert sum(trainer.weight for trainer in trainers) == pytest.approx(len(trainers))
    if rule.exchanges == 2:
        weights = [trainer.weight for trainer in trainers]
        mean = np.average([trainer.offer() for trainer in trainers], axis=0, weights=weights)
        vector = trainers[0].vector()
        vector[: trainers[0].spec.parameters] += mean[: trainers[0].spec.parameters]
        for trainer in trainers:
            trainer.load(vector)
            trainer.step()
            assert 0.1 < trainer.weight < 10


def test_models_that_wait_for_the_second_exchange_are_kept(tmp_path):
    run = config_of(ROWS["ida intrac"])
    setup, _, _ = prepare(run, tmp_path)
    rule = build_sync(run.sync).client
    one, two = (client_trainer(setup, setup.cluster.trainers[0], rule) for _ in range(2))
    one.step()
    two.load_state(one.state_dict())
    mean = one.vector()
    mean[: one.spec.parameters] += one.offer()[: one.spec.parameters]
    for trainer in (one, two):
        trainer.load(mean)
        assert trainer.planned().batches == 0
        trainer.step()
    assert one.offer().tobytes() == two.offer().tobytes()
    assert one.weight == two.weight > 0
    two.skip_to(1)
    two.step()
    assert two.weight == 0, "who missed the first exchange counts nothing"


def test_a_warm_trainer_compiles_nothing_more(tmp_path):
    run = config_of(ROWS["fedavg"], lr=0.123)  # a rate of its own, so that it is compiled here
    setup, _, _ = prepare(run, tmp_path)
    compiled = []

    def listen(event, seconds, **_):
        if "backend_compile" in event:
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    rule = build_sync(run.sync).client
    trainers = [client_trainer(setup, worker, rule) for worker in setup.cluster.trainers]
    trainers[0].warm_up()
    assert compiled
    compiled.clear()
    for trainer in trainers:
        trainer.warm_up()
        trainer.step()
    assert not compiled


@pytest.mark.parametrize("codec", ["fp16", "bisparse"])
def test_what_travels_beside_the_model_goes_through_codecs_and_overlays(codec):
    run = config_of(ROWS["scaffold"], compression__name=codec, overlay__name="ring")
    outcome = simulated(run)
    assert len(set(outcome.finals.values())) == 1
    losses = [event["loss"] for event in outcome.of("evaluation")]
    assert losses[-1] < losses[0]


def test_a_center_that_dies_between_two_exchanges_of_a_round_does_not_stop_the_others():
    end = engine("ida").end
    outcome = simulated(config_of(ROWS["ida"], testbed__faults=[kill("c1", 0.5 * end)]))
    assert set(outcome.finals) == {"c2"}
    assert np.isfinite(outcome.final).all()
