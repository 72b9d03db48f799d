"""The bench of executions of clients, on work of no size."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.bench.federated import MODELS, Ours, config_of, data_of, measure, work_of
from experiments.bench.peers import contest, models, work
from geojax.errors import ConfigError, GeojaxError


def options(**changed):
    values = {
        "models": "mlp", "executions": "loop,vmap", "sync": "fedavg", "clients": 2, "samples": 9,
        "batch_size": 4, "epochs": 1, "rounds": 1, "repetitions": 2, "devices": 1, "peers": "",
        "peer_python": [],
    }  # fmt: skip
    return argparse.Namespace(**{**values, **changed})


def test_every_execution_has_a_row_and_one_is_the_default():
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(measure(options(executions="scan,vmap")))
    rows = [line for line in captured.get().splitlines() if "│ mlp" in line]
    assert [("scan" in row, "vmap" in row) for row in rows] == [(True, False), (False, True)]
    assert ["default" in row for row in rows] == [True, False]
    assert sum("fastest" in row for row in rows) == 1


def test_a_round_of_fedgs_does_the_same_work_by_calls_and_as_one_program():
    work = options(executions="fleet,loop,vmap", samples=12, clients=3, repetitions=1)
    table = measure(work)  # refuses a round that ends elsewhere
    names, words, *_, deviations = (list(column.cells) for column in table.columns[1:])
    assert names == ["loop", "vmap", "fleet, loop", "fleet, scan"]
    assert ["sync=fedgs" in each for each in words] == [False, False, False, True]
    assert 0 < float(deviations[2]) < 0.2  # it shuffles otherwise
    assert deviations[3] == deviations[2]
    with pytest.raises(ConfigError, match="--samples = 9: fleet takes full batches"):
        measure(options(executions="fleet,loop"))


def test_several_devices_stand_beside_one():
    table = measure(options(executions="scan", devices=2))
    names, words = (list(column.cells) for column in table.columns[1:3])
    assert names == ["scan", "scan, one device"]
    assert words[0].startswith("2 devices, default")
    one, two = (
        Ours(config_of(chosen, "mlp"), "loop", chosen) for chosen in (options(), options(devices=2))
    )
    assert two.first.tobytes() == one.first.tobytes() != one.start.tobytes()
    for chosen in ("loop", "loop,pmap"):
        config = config_of(options(devices=2, executions=chosen), "mlp")
        assert config.mesh_size == (2 if "pmap" in chosen else 1)


def test_only_rows_that_have_several_devices_say_so():
    """``pmap`` needs devices of another kind, so that JAX has to start anew."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_bench_federated import measure, options\n"
        "table = measure(options(executions='loop,pmap', devices=2, repetitions=1))\n"
        "print(*(f'{name}: {words}' for name, words in zip(*(column.cells for column in "
        "table.columns[1:3]), strict=True)), sep='\\n')"
    )
    command = [sys.executable, "-c", program, str(pathlib.Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    told = dict(line.split(": ") for line in done.stdout.splitlines())
    assert set(told) == {"loop", "pmap"}, done.stderr
    assert "devices" not in told["loop"]
    assert "2 devices" in told["pmap"]


def test_base_stations_have_one_device():
    with pytest.raises(ConfigError, match="--devices = 2: a base station has one here; use 1"):
        measure(options(executions="fleet,loop", samples=12, devices=2))


def test_each_execution_has_programs_of_its_own():
    chosen = options()
    made = [Ours(config_of(chosen, "mlp"), name, chosen) for name in ("loop", "scan", "vmap")]
    programs = [inspect.getclosurevars(each._trainer._programs.execute).nonlocals for each in made]
    clients = [found["client"].__qualname__ for found in programs if "client" in found]
    assert len(set(clients)) == len(clients) == 2  # and vmap, which takes all clients at once


def test_wrong_names_are_refused():
    with pytest.raises(ConfigError, match="--executions = 'lop': did you mean 'loop'"):
        measure(options(executions="lop"))
    with pytest.raises(ConfigError, match="--sync = 'fsa': has no clients"):
        measure(options(sync="fsa", epochs=1, executions="loop"))


def test_peers_know_every_model_of_the_bench():
    assert set(MODELS) == set(models.MODELS)


@pytest.mark.parametrize("name", [pytest.param("demo_cnn", marks=pytest.mark.nightly), "small_cnn"])
def test_peers_have_the_same_models(name):
    chosen = options(clients=1, samples=4)
    config = config_of(chosen, name)
    ours = Ours(config, "loop", chosen)
    given = work_of(chosen, config, ours)
    images, labels = data_of(chosen)
    slope = jax.jit(jax.grad(models.loss, argnums=1), static_argnums=0)(
        name, work.unflatten(given, given.vector), images, labels
    )
    after = given.vector - np.float32(config.lr) * work.flatten(given, slope)
    np.testing.assert_allclose(ours.first, after, rtol=1e-4, atol=1e-7)  # one batch: one step
    assert np.abs(after - given.vector).max() > 1e-5


def test_a_peer_does_the_same_work_in_a_process_of_its_own(tmp_path):
    chosen = options(samples=8, batch_size=8, epochs=2)  # a batch an epoch: shuffles say nothing
    config = config_of(chosen, "mlp")
    ours = Ours(config, "loop", chosen)
    given = work_of(chosen, config, ours)
    given.save(str(tmp_path / "work.npz"))
    (python,) = contest.pythons(["plain"], []).values()
    peer = contest.Peer("plain", python, tmp_path / "work.npz")
    try:
        np.testing.assert_allclose(peer.first, ours.first, rtol=1e-4, atol=1e-6)
        seconds, steps = peer.run(3)
    finally:
        peer.close()
    assert steps == 3 * given.steps == 3 * ours.steps == 12
    assert seconds > 0
    plain = contest.Contender("plain", peer.run, peer.words, peer.first)
    assert contest.deviations([plain], ours.start, ours.first)["plain"] < 1e-3
    plain.first = ours.start  # it has not moved
    with pytest.raises(GeojaxError, match="has not done the same work"):
        contest.deviations([plain], ours.start, ours.first)


def test_a_peer_that_ends_is_an_error_with_its_last_words(tmp_path):
    (tmp_path / "work.npz").write_bytes(b"no archive")
    (python,) = contest.pythons(["plain"], []).values()
    with pytest.raises(GeojaxError, match=r"plain has ended:(.|\n)*Error"):
        contest.Peer("plain", python, tmp_path / "work.npz")


def test_contenders_take_turns_and_ratios_are_of_the_same_repetition():
    turns = []

    def contender(name, rates):
        left = iter(rates)

        def run(rounds):
            turns.append(name)
            return rounds * 10 / next(left), rounds * 10

        return contest.Contender(name, run)

    one, two = contender("a", [10.0, 1.0, 30.0]), contender("b", [5.0, 0.5, 10.0])
    contest.hold([one, two], rounds=4, repetitions=3)
    assert turns == list("abbaab")
    assert (one.rate, two.rate, contest.ratio(one, two)) == (10.0, 5.0, 2.0)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"peers": "flour"}, "--peers = 'flour': did you mean 'flower'"),
        ({"peers": "plain"}, "--samples = 9: with --peers, a multiple of --batch-size"),
        ({"peers": "plain", "samples": 8, "sync": "fedprox"}, "--sync = 'fedprox': peers do"),
        ({"peers": "plain", "samples": 8, "models": "alexnet"}, "--models = 'alexnet': peers know"),
        ({"peers": "plain", "samples": 8, "peer_python": ["flower=x"]}, "one of --peers"),
        ({"peers": "plain", "samples": 8, "peer_python": ["plain=/no/python"]}, "does not start"),
    ],
)
def test_what_peers_cannot_do_is_refused(changed, told):
    with pytest.raises(ConfigError, match=told):
        measure(options(**changed))


@pytest.mark.skipif(importlib.util.find_spec("fedjax") is not None, reason="it is installed")
def test_a_peer_that_is_not_installed_is_refused_with_the_way_to_get_it():
    with pytest.raises(ConfigError, match=r"pip install 'geojax\[peers\]'.*--peer-python fedjax="):
        measure(options(peers="fedjax", samples=8))
