"""DiLoCo and Streaming DiLoCo beside plain loops, and what they equal in special cases."""

import itertools
import logging
import os
import re
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.center.optimizers import NESTEROV, build_optimizer
from geojax.center.trainer import build_spec, initial_vector
from geojax.data.batches import BatchOrder
from geojax.data.dataset import load_dataset
from geojax.data.dealing import partition
from geojax.errors import ConfigError
from geojax.hips.control.joining import digest
from geojax.hips.roles.center_state import CenterState
from geojax.hips.roles.worker import Worker
from geojax.sync.streaming_diloco import StreamingDilocoConfig
from testbed.run import check

H, ROUNDS, WORKERS = 4, 6, 3
ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-5  # ‖a − b‖ / ‖b‖


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def config(name="diloco", **settings):
    training = {
        "model__name": "mlp", "data__name": "digits", "rounds": ROUNDS, "batch_size": 8,
        "lr": 0.1, "eval_every_s": 100.0, "overlay__chunk_elements": 1000, "sync__name": name,
        "sync__local_steps": H, "model__hidden": [16, 12],
    }  # fmt: skip
    return small_config(**{**training, **settings})


def streaming(**settings):
    return config("streaming_diloco", **settings)


def distance(a, b):
    assert np.linalg.norm(b) > 0
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


# ---- the twins: read these first


def diloco_by_hand(config, *, lr=0.7, beta=0.9):
    """DiLoCo of plain SGD as one loop: Algorithm 1 of Douillard et al. (2023)."""
    gradient, batches = problem(config)
    outer, velocity = initial_vector(config), 0.0
    for number in range(config.rounds):
        deltas = []
        for batch in batches:
            inner = outer
            for k in range(number * H, (number + 1) * H):
                inner = inner - config.lr * gradient(inner, batch(k))
            deltas.append(outer - inner)
        delta = sum(deltas) / len(deltas)
        velocity = beta * velocity + delta
        outer = outer - lr * (delta + beta * velocity)
    return np.asarray(outer)


def streaming_by_hand(config, fragments, *, overlap, blend, carry=False, lr=0.7, beta=0.9):
    """Streaming DiLoCo as one loop over steps; ``fragments``: masks over the vector."""
    gradient, batches = problem(config)
    interval = H // len(fragments)
    outer, velocity = initial_vector(config), np.zeros(build_spec(config).size)
    inner = [outer.copy() for _ in batches]
    due = {}  # by step: the fragment whose result counts then, and its outer parameters
    for k in range(config.rounds * interval):
        if k in due and overlap == 0:
            blended(inner, *due[k][:2], blend)
        inner = [
            np.array(one - config.lr * gradient(one, batch(k)))
            for one, batch in zip(inner, batches, strict=True)
        ]
        if k in due and overlap > 0 and carry:
            mine, result, left = due[k]
            for one, was in zip(inner, left, strict=True):
                one[mine] = result[mine] + (one[mine] - was[mine])
        elif k in due and overlap > 0:
            blended(inner, *due[k][:2], blend)
        if (k + 1) % interval == 0:
            mine = fragments[k // interval % len(fragments)]
            delta = mine * sum(outer - one for one in inner) / len(inner)
            velocity = np.where(mine, beta * velocity + delta, velocity)
            outer = np.where(mine, outer - lr * (delta + beta * velocity), outer)
            due[k + max(overlap, 1)] = mine, outer, [one.copy() for one in inner]
    return outer


def blended(inner, mine, outer, blend):
    for one in inner:
        one[mine] = blend * one[mine] + (1 - blend) * outer[mine]


@cache
def gradient_of(layers):
    """The gradient of the loss of an MLP with these layers at a vector."""

    def loss(vector, images, labels):
        arrays = [vector[one.offset : one.stop].reshape(one.shape) for one in layers]
        hidden = images.reshape(len(images), -1)
        for at in range(0, len(arrays), 2):
            hidden = jax.nn.relu(hidden) if at else hidden
            hidden = hidden @ arrays[at] + arrays[at + 1]
        return -jax.nn.log_softmax(hidden)[jnp.arange(len(labels)), labels].mean()

    return jax.jit(jax.grad(loss))


def problem(config):
    """That gradient on the configured data, and the batches of every worker."""
    data, compiled = load_dataset(config.data), gradient_of(build_spec(config).layers)
    names = [f"worker {number}" for number in range(WORKERS)]
    parts = partition(config.partition, data.train_y, names, config.seed)
    batches = []
    for index, part in enumerate(parts.values()):
        order = BatchOrder(len(part), config.batch_size, config.seed, index)
        batches.append(lambda k, part=part, order=order: part[order(k)])
    return lambda vector, at: compiled(vector, data.train_x[at], data.train_y[at]), batches


def test_diloco_is_its_loop():
    settings = config()
    final = simulated(settings).final
    assert distance(final, diloco_by_hand(settings)) <= TOLERANCE
    assert distance(final, diloco_by_hand(settings, beta=0.89)) > TOLERANCE


@pytest.mark.parametrize(
    ("pattern", "overlap", "blend"), [("strided", 2, 0.5), ("sequential", 1, 0.0)]
)
def test_streaming_diloco_is_its_loop(pattern, overlap, blend):
    settings = streaming(
        rounds=9, sync__fragments=2, sync__pattern=pattern,
        sync__overlap=overlap, sync__blend=blend,
    )  # fmt: skip
    number = {"strided": [0, 1, 0], "sequential": [0, 0, 1]}[pattern]
    owner = np.repeat(np.repeat(number, 2), [layer.size for layer in build_spec(settings).layers])
    masks = [owner == 0, owner == 1]
    final = simulated(settings).final
    twin = partial(streaming_by_hand, settings, masks, overlap=overlap)
    assert distance(final, twin(blend=blend)) <= TOLERANCE
    assert distance(final, twin(blend=blend + 0.01)) > TOLERANCE


def test_what_is_trained_during_an_exchange_can_be_carried_over_it():
    settings = streaming(rounds=9, sync__fragments=2, sync__overlap=2, sync__carry=True)
    owner = np.repeat(
        np.repeat([0, 1, 0], 2), [layer.size for layer in build_spec(settings).layers]
    )
    twin = partial(streaming_by_hand, settings, [owner == 0, owner == 1], overlap=2, blend=0.0)
    final = simulated(settings).final
    assert distance(final, twin(carry=True)) <= TOLERANCE
    assert distance(final, twin()) > TOLERANCE


def test_carried_over_the_whole_round_with_plain_sgd_outside_it_is_cocod_sgd():
    settings = streaming(
        sync__overlap=H, sync__carry=True, outer_optimizer__name="sgd", outer_optimizer__lr=1.0,
        overlay__pieces=2,
    )  # fmt: skip
    gradient, batches = problem(settings)
    own = [initial_vector(settings)] * len(batches)
    for number in range(settings.rounds):  # Algorithm 1: x_i <- mean + (progress of this period)
        mean, began = sum(own) / len(own), list(own)
        for k in range(number * H, (number + 1) * H):
            own = [
                one - settings.lr * gradient(one, batch(k))
                for one, batch in zip(own, batches, strict=True)
            ]
        if number:
            own = [mean + (one - was) for one, was in zip(own, began, strict=True)]
    final = simulated(settings).final
    assert distance(final, sum(own) / len(own)) <= TOLERANCE
    assert distance(final, mean) > TOLERANCE


# ---- special cases


def test_the_outer_step_is_optax_with_nesterovs_momentum():
    outer = np.array([1.0, -2.0])
    optimizer, velocity = build_optimizer(NESTEROV, NESTEROV.lr or 0.0), np.zeros(2)
    expected, state = outer.copy(), optimizer.init(outer)
    for delta in ([0.3, 0.1], [-0.1, 0.4], [2.0, -3.0]):
        updates, state = optimizer.update(np.array(delta), state, outer)
        outer = optax.apply_updates(outer, updates)
        velocity = 0.9 * velocity + delta
        expected = expected - 0.7 * (delta + 0.9 * velocity)
    np.testing.assert_allclose(outer, expected, rtol=1e-6)


def test_with_plain_sgd_of_length_one_outside_it_is_local_sgd_to_the_bit():
    plain = {"outer_optimizer__name": "sgd", "outer_optimizer__lr": 1.0}
    assert simulated(config(**plain)).final.tobytes() == (
        simulated(config("local_steps", **plain)).final.tobytes()
    )


def test_with_one_fragment_and_without_overlap_streaming_is_diloco_to_the_bit():
    settings = {"model__name": "cnn_batchnorm", "model__hidden": None, "rounds": 2, "workers": 2}
    one, other = simulated(config(**settings)), simulated(streaming(**settings))
    assert one.final.tobytes() == other.final.tobytes()
    assert one.end == other.end


# ---- fragments on the network; a synthetic model of 6 layers


def synthetic(**settings):
    return small_config(**{
        "model__stages": 6, "sync__name": "streaming_diloco", "sync__local_steps": 6,
        "sync__fragments": 3, "rounds": 12, **settings,
    })  # fmt: skip


def test_a_round_moves_one_fragment_and_the_others_stay():
    edges = [number * 1000 // 6 for number in range(7)]
    for rounds, fragments in ((1, "0"), (2, "01"), (3, "012")):
        final = simulated(synthetic(rounds=rounds)).final
        moved = [bool(np.any(final[a:b])) for a, b in itertools.pairwise(edges)]
        assert moved == [number in fragments for number in "012012"]


SLOW = {"elements": 300_000, "chunk_elements": 20_000}


def test_a_fragment_travels_while_the_workers_train():
    """A round takes the longer of training and travelling, not their sum."""
    alone = simulated(synthetic(**SLOW, rounds=9)).end
    over = simulated(synthetic(**SLOW, rounds=9, sync__overlap=2)).end
    compute = 9 * 2 * 0.01  # steps of 10 ms
    travel = alone - compute
    assert travel > 9 * 0.02, "the fragment takes longer than the steps between two"
    assert over < alone - 0.8 * compute
    quick = simulated(synthetic(rounds=9, sync__overlap=2, model__pace_s=0.2)).end
    assert quick == pytest.approx(9 * 2 * 0.2, rel=0.1), "training hides all of it"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("overlap", "kept"), [(0, {}), (2, {"blend": 0.5}), (2, {"carry": True})])
def test_a_resumed_run_ends_with_the_same_model(workers, overlap, kept, tmp_path):
    kept = {f"sync__{key}": value for key, value in kept.items()}
    settings = {"workers": workers, "sync__overlap": overlap, **kept}
    plain = simulated(synthetic(**settings))
    whole = simulated(synthetic(checkpoint_every=2, **settings))
    assert whole.final.tobytes() == plain.final.tobytes()
    faults = [kill("scheduler", 0.4)]
    broken = synthetic(checkpoint_every=2, testbed__faults=faults, **settings)
    simulated(broken, fails=True, folder=tmp_path)
    resumed = simulated(synthetic(checkpoint_every=2, resume=True, **settings), folder=tmp_path)
    assert resumed.final.tobytes() == whole.final.tobytes()
    assert resumed.finals == whole.finals
    assert (resumed.rounds_of("c1") or resumed.rounds_of("c1/w0"))[0] > 0


@pytest.mark.parametrize("node", ["c1", "c2", "c2/w1"])
@pytest.mark.parametrize("overlap", [0, 2])
def test_who_comes_back_begins_from_all_outer_parameters(node, overlap, monkeypatch):
    after, began = {}, []
    advance, start = CenterState.advance, Worker.start

    def advanced(self, number, vector):
        after[number] = digest(vector)
        return advance(self, number, vector)

    def started(self, vector, number):
        began.append((number, digest(vector)))
        return start(self, vector, number)

    monkeypatch.setattr(CenterState, "advance", advanced)
    monkeypatch.setattr(Worker, "start", started)
    faults = [kill(node, 0.2), {"at": 0.4, "kind": "restart", "node": node}]
    outcome = simulated(synthetic(workers=2, sync__overlap=overlap, testbed__faults=faults))
    assert len(set(outcome.finals.values())) == 1
    again = [(number, known) for number, known in began if number > 0]
    assert again
    assert all(after[number - 1] == known for number, known in again)


# ---- what is refused


REFUSED = {
    r"sync\.fragments = 4: .*sync\.local_steps=8": {"sync__fragments": 4},
    r"sync\.carry = True: sync\.blend = 0\.5": {"sync__carry": True, "sync__overlap": 1,
        "sync__blend": 0.5},
    r"sync\.carry = True: nothing is trained": {"sync__carry": True},
    r"sync\.overlap = 3: longer than the 2 steps.*sync\.overlap=2": {"sync__overlap": 3},
    r"sync\.overlap = 6: all of sync\.local_steps = 6": {
        "sync__overlap": 6, "sync__fragments": 1,
    },
    r"sync\.fragments = 6: model=synthetic has only 2 layers.*sync\.fragments=2": {
        "model__stages": 2, "sync__fragments": 6,
    },
    r"wan\.server_center = 'external': .*sync\.fragments=1": {
        "wan__server_center": "external", "wan__external": {"rate": 100, "rtt": 20},
    },
    r"sync\.pattern = 'stride': did you mean 'strided'": {"sync__pattern": "stride"},
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_is_refused_with_what_can(message):
    with pytest.raises(ConfigError, match=message):
        simulated(synthetic(**REFUSED[message]))


def test_whatever_a_refusal_offers_passes():
    for steps, fragments, overlap in itertools.product(range(1, 13), range(1, 7), range(15)):
        asked = {"local_steps": steps, "fragments": fragments, "overlap": overlap}
        try:
            StreamingDilocoConfig(**asked).check()
        except ConfigError as refusal:
            offers = re.findall(r"sync\.(\w+)=(\d+)", refusal.fix)
            assert offers
            for name, value in offers:
                StreamingDilocoConfig(**{**asked, name: int(value)}).check()


def test_more_fragments_than_layers_of_a_network_are_refused():
    refusal = r"sync\.fragments = 20: model=mlp has only 3 .*Dense_0, .*use sync\.fragments=2 "
    settings = {"sync__local_steps": 20, "model__hidden": [8, 8]}
    with pytest.raises(ConfigError, match=refusal):
        check(streaming(**settings, sync__fragments=20))
    check(streaming(**settings, sync__fragments=2))


def test_to_count_layers_starts_no_backend_of_jax():
    program = """if True:
        from jax._src import xla_bridge
        from test_diloco import check, streaming
        check(streaming(sync__fragments=2))
        assert not xla_bridge.backends_are_initialized()
    """
    paths = os.pathsep.join(["tests", "tests/sync", "."])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": paths},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_inner_optimizer_of_matrices_needs_local_steps():
    with pytest.raises(ConfigError, match=r"optimizer\.name = 'muon': .*sync=diloco"):
        simulated(small_config(model__name="mlp", data__name="digits", optimizer__name="muon"))
