"""Different ways to the same training give the same parameters.

The tolerance is stated once: ‖a − b‖ ≤ 1e-5 · ‖b‖ over the parameters.
"""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from networks import module_of
from simulated_runs import kill, simulated, small_config

from geojax.center.trainer import build_spec, initial_vector
from geojax.data.batches import BatchOrder
from geojax.data.dataset import load_dataset
from geojax.data.dealing import partition
from geojax.hips.control.member import Membership

TOLERANCE = 1e-5
ROUNDS = 20


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def config(**settings):
    training = {
        "model__name": "mlp", "data__name": "digits", "rounds": ROUNDS, "batch_size": 8,
        "lr": 0.1, "eval_every_s": 100.0, "overlay__chunk_elements": 1000,
    }  # fmt: skip
    return small_config(**{**training, **settings})


def distance(a, b):
    assert np.linalg.norm(b) > 0
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# ---- the twin: read this first


QUICKLY = {"xla_backend_optimization_level": 0}


@functools.partial(jax.jit, compiler_options=QUICKLY)
@jax.grad
def gradient(parameters, images, labels):
    flat = images.reshape(len(images), -1)
    hidden = jax.nn.relu(flat @ parameters["Dense_0/kernel"] + parameters["Dense_0/bias"])
    logits = hidden @ parameters["Dense_1/kernel"] + parameters["Dense_1/bias"]
    return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels].mean()


def one_process(config, workers=3):
    """Plain SGD on one machine, on the batches of all workers joined. No code of the library
    but the data, the order of the batches and the initial parameters."""
    data = load_dataset(config.data)
    batches = batches_of(config, data, workers)
    parameters = named(config, initial_vector(config))
    for k in range(config.rounds):
        joined = np.concatenate([batch(k) for batch in batches])
        slope = gradient(parameters, data.train_x[joined], data.train_y[joined])
        parameters = {
            name: parameters[name] - config.lr * np.asarray(slope[name]) for name in parameters
        }
    return vector_of(config, parameters)


def batches_of(config, data, workers):
    """For every worker: number of a batch -> positions of its samples in the training set."""
    names = [f"worker {number}" for number in range(workers)]
    parts = partition(config.partition, data.train_y, names, config.seed)
    orders = [
        BatchOrder(len(part), config.batch_size, config.seed, index)
        for index, part in enumerate(parts.values())
    ]
    return [
        lambda k, part=part, order=order: part[order(k)]
        for part, order in zip(parts.values(), orders, strict=True)
    ]


def named(config, vector):
    layers = build_spec(config).layers
    return {layer.name: vector[layer.offset : layer.stop].reshape(layer.shape) for layer in layers}


def vector_of(config, arrays):
    return np.concatenate(
        [np.asarray(arrays[layer.name]).ravel() for layer in build_spec(config).layers]
    )


# ---- FSA is one process with a larger batch


@functools.cache
def fsa():
    return simulated(config()).final


def test_fsa_on_three_centers_is_one_process_with_three_times_the_batch():
    assert distance(fsa(), one_process(config())) <= TOLERANCE


def test_the_tolerance_tells_training_from_not_quite_the_same_training():
    twin = one_process(config())
    assert distance(initial_vector(config()), twin) > 1000 * TOLERANCE
    assert distance(one_process(config(rounds=ROUNDS - 1)), twin) > 100 * TOLERANCE
    assert distance(one_process(config(lr=0.1001)), twin) > TOLERANCE


def test_fsa_with_skewed_parts_is_still_one_process():
    skewed = {"partition__name": "dirichlet", "partition__alpha": 0.3}
    assert distance(simulated(config(**skewed)).final, one_process(config(**skewed))) <= TOLERANCE


def test_fsa_from_another_root_and_in_other_chunks_is_the_same_to_the_bit():
    other = simulated(config(overlay__root="c3", overlay__chunk_elements=77)).final
    assert other.tobytes() == fsa().tobytes()


# ---- float state is merged as a value


def centers_by_hand(config):
    """FSA on a model with BatchNorm: each center normalizes its own batch, so there is no joint
    batch; but the mean of the gradients, and that of the statistics, can be taken by hand."""
    data = load_dataset(config.data)
    batches, samples = batches_of(config, data, 3), (data.train_x, data.train_y)
    model = module_of("cnn_batchnorm", data.train_x.shape[1:], 10)
    arrays = named(config, initial_vector(config))
    spec = build_spec(config)
    trained = [layer.name for layer in spec.layers if layer.kind == "parameter"]
    state = [layer.name for layer in spec.layers if layer.kind == "state"]
    assert state
    counter = {"counters/batches": np.int32(0)}

    def loss(parameters, statistics, images, labels):
        flat = {**{f"params/{name}": a for name, a in parameters.items()}, **statistics, **counter}
        variables = unflatten_dict(flat, sep="/")
        logits, changed = model.apply(
            variables, images, train=True, mutable=["batch_stats", "counters"]
        )
        chosen = jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]
        return -chosen.mean(), {n: flatten_dict(changed, sep="/")[n] for n in state}

    differentiate = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICKLY)
    for k in range(config.rounds):
        parameters = {name: arrays[name] for name in trained}
        statistics = {name: arrays[name] for name in state}
        found = [
            jax.tree.map(np.asarray, differentiate(parameters, statistics, images, labels))
            for images, labels in ((each[batch(k)] for each in samples) for batch in batches)
        ]
        for name in trained:
            arrays[name] = arrays[name] - config.lr * sum(g[name] for g, _ in found) / 3
        for name in state:
            arrays[name] = sum(after[name] for _, after in found) / 3
    return vector_of(config, arrays)


def test_model_state_is_averaged_and_parameters_step_on_the_mean_gradient():
    settings = config(model__name="cnn_batchnorm", rounds=5)
    by_hand = centers_by_hand(settings)
    final = simulated(settings).final
    split = build_spec(settings).parameters
    assert distance(final[:split], by_hand[:split]) <= TOLERANCE
    assert distance(final[split:], by_hand[split:]) <= TOLERANCE


# ---- tiers


def six_centers(**settings):
    return config(
        wan__generator="uniform", wan__centers=6, wan__links=[], wan__rate=50.0, wan__rtt=30.0,
        **settings,
    )  # fmt: skip


@pytest.mark.parametrize("sync", ["fsa", "local_steps"])
def test_three_centers_of_two_workers_are_six_centers_of_one(sync):
    settings = {"sync__name": sync, "rounds": 10}
    if sync == "local_steps":
        settings["sync__local_steps"] = 3
    two_tiers = simulated(config(workers=2, **settings)).final
    one_tier = simulated(six_centers(**settings)).final
    assert distance(two_tiers, one_tier) <= TOLERANCE


def test_six_workers_are_one_process_with_six_times_the_batch():
    settings = config(workers=2, rounds=10)
    assert distance(simulated(settings).final, one_process(settings, workers=6)) <= TOLERANCE


# ---- one local step


def test_one_local_step_of_sgd_is_fsa():
    one_step = simulated(config(sync__name="local_steps", sync__local_steps=1)).final
    assert distance(one_step, fsa()) <= TOLERANCE


def test_more_local_steps_are_not():
    more = simulated(config(sync__name="local_steps", sync__local_steps=2)).final
    assert distance(more, fsa()) > 100 * TOLERANCE


# ---- replicas


def digests(monkeypatch, config):
    """Every center's digest after every round: round -> center -> digest."""
    told = {}
    report_digest = Membership.report_digest

    def listen(self, number, digest):
        told.setdefault(number, {})[self.me] = digest
        report_digest(self, number, digest)

    with monkeypatch.context() as patch:
        patch.setattr(Membership, "report_digest", listen)
        simulated(config)
    return told


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "training",
    [
        {"lr": 0.1},
        {"optimizer__name": "adam", "lr": 0.01},
        {"sync__name": "local_steps", "sync__local_steps": 2, "optimizer__momentum": 0.9},
    ],
    ids=["fsa sgd", "fsa adam", "local_steps"],
)
def test_all_centers_are_bit_identical_after_every_round(training, workers, monkeypatch):
    told = digests(monkeypatch, config(workers=workers, rounds=6, hash_every=1, **training))
    assert sorted(told) == list(range(6))
    for number, by_center in told.items():
        assert set(by_center) == {"c1", "c2", "c3"}
        assert len(set(by_center.values())) == 1, f"round {number}"
    assert len({by_center["c1"] for by_center in told.values()}) == 6, "the model changes"


def test_all_centers_are_bit_identical_after_every_round_that_follows_a_death(monkeypatch):
    faults = [kill("c2", 0.3)]
    told = digests(monkeypatch, config(rounds=10, hash_every=1, testbed__faults=faults))
    assert set(told[9]) == {"c1", "c3"}
    assert all(len(set(by_center.values())) == 1 for by_center in told.values())
