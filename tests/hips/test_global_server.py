"""Global servers on a site of their own: the same models, as many bytes, and their deaths."""

import logging
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.overlay.policy.policy import Policy
from geojax.wire.message import Kind
from testbed.run import check
from testbed.wan.build import load_preset

SITE = {"rate": 50, "rtt": 30}
WHOLE_RUN_S = 0.28  # experiment time of the six rounds, when nobody dies
FEW = {"elements": 12, "chunk_elements": 7}
DEMO_CNN_BYTES = 715_048


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def external(**settings):
    """Two chunks, or twelve: with ``multigps`` there is one for every element."""
    site = {"wan__server_center": "external", "wan__external": SITE}
    return small_config(**{**site, **FEW, **settings})


def multigps(servers=2, placement="bytes", **settings):
    chosen = {"name": "multigps", "servers": servers, "placement": placement}
    return {**{f"overlay__{key}": value for key, value in chosen.items()}, **settings}


def restart(node, at):
    return {"at": at, "kind": "restart", "node": node}


def roots(event):
    return [tree.root for tree in Policy.from_dict(event["policies"]["0"]).trees]


def agree(outcome, *centers, rounds=6):
    assert set(centers) <= set(outcome.finals)
    assert {last for last, _ in outcome.finals.values()} == {rounds - 1}
    assert len(set(outcome.finals.values())) == 1


TRAINED = {
    "model__name": "mlp", "data__name": "digits", "batch_size": 8, "lr": 0.1, "rounds": 3,
    "eval_every_s": 100.0, "overlay__chunk_elements": 1000,
}  # fmt: skip
ELSEWHERE = {
    "a site of its own": external(**TRAINED),
    "several workers": external(**TRAINED, workers=2),
    "two on a site": external(**TRAINED, **multigps()),
    "two in centers": small_config(**TRAINED, **multigps()),
    "two named centers": small_config(**TRAINED, **multigps(["c3", "c2"])),
    "three, by key": small_config(**TRAINED, **multigps(3, "geomx")),
}


@pytest.mark.parametrize("made", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_wherever_offers_are_merged_the_parameters_are_the_same_bits(made):
    """Real gradients: their float sums would tell another order of addition."""
    star = simulated(small_config(**TRAINED, workers=made.lan.workers))
    other = simulated(made)
    agree(other, "c1", "c2", "c3", rounds=3)
    assert other.final.any()
    assert other.final.tobytes() == star.final.tobytes()


@pytest.mark.parametrize(
    ("overlay", "servers"),
    [({}, ["external"]), (multigps(), ["external/g0", "external/g1"])],
)
def test_every_center_sends_and_receives_the_dense_model_once_a_round(overlay, servers):
    """Two centers and the demo CNN's size: 715,048 bytes each way, and headers of less than 2 %."""
    rounds = 4
    config = external(
        rounds=rounds, elements=DEMO_CNN_BYTES // 4, chunk_elements=65_536, wan="uniform",
        wan__centers=2, **overlay,
    )  # fmt: skip
    reports = simulated(config).reports

    def sent(source, target, kind):
        return reports[source]["sent"].get(target, {"bytes": {}})["bytes"].get(str(int(kind)), 0)

    for center in ("c1", "c2"):
        up = sum(sent(center, server, Kind.OFFER) for server in servers)
        down = sum(sent(server, center, Kind.RESULT) for server in servers)
        for total in (up, down):
            assert DEMO_CNN_BYTES < total / rounds < 1.02 * DEMO_CNN_BYTES
        loads = [sent(center, server, Kind.OFFER) for server in servers]
        assert max(loads) <= 1.05 * sum(loads) / len(loads)
        between = [sent(center, other, Kind.OFFER) for other in ("c1", "c2")]
        assert between == [0, 0]


@pytest.mark.parametrize("workers", [1, 2])
def test_when_the_global_server_dies_the_first_center_merges(workers):
    for at in np.arange(0.0, WHOLE_RUN_S, 0.03) + 0.0007:
        faults = [kill("external", float(at))]
        outcome = simulated(external(workers=workers, testbed__faults=faults))
        agree(outcome, "c1", "c2", "c3")
        (start,), (change,) = outcome.of("start"), outcome.of("epoch")
        assert (roots(start), roots(change)) == (["external"], ["c1"])
        assert outcome.end < at + 1.0


def test_no_update_is_lost_or_counted_twice_when_the_global_server_dies():
    """With one step a round, the model is a sum of gradients, whoever merged them."""
    undisturbed = simulated(small_config(**FEW)).final
    for at in np.arange(0.005, WHOLE_RUN_S, 0.017):
        final = simulated(external(testbed__faults=[kill("external", float(at))])).final
        assert final.tobytes() == undisturbed.tobytes(), f"killed at {at} s"


def test_a_global_server_comes_back_and_merges_again():
    for at in np.arange(0.0, WHOLE_RUN_S, 0.05) + 0.0007:
        for after in (0.0, 0.04, 0.2):
            faults = [kill("external", float(at)), restart("external", float(at + after))]
            outcome = simulated(external(rounds=12, testbed__faults=faults))
            agree(outcome, "c1", "c2", "c3", rounds=12)
            if at + after < WHOLE_RUN_S:
                assert roots(outcome.of("epoch")[-1]) == ["external"]


@pytest.mark.parametrize("node", ["c1", "c2/w1", "c3"])
def test_a_center_may_die_and_come_back_while_the_global_server_goes_on(node):
    for at in np.arange(0.0, WHOLE_RUN_S, 0.04) + 0.0007:
        faults = [kill(node, float(at))]
        outcome = simulated(external(workers=2, testbed__faults=faults))
        agree(outcome, *({"c1", "c2", "c3"} - {node}))
        faults.append(restart(node, float(at) + 0.1))
        outcome = simulated(external(workers=2, rounds=12, testbed__faults=faults))
        agree(outcome, "c1", "c2", "c3", rounds=12)
        assert {root for event in outcome.of("epoch") for root in roots(event)} == {"external"}


def test_of_two_global_servers_the_other_one_takes_over():
    for at in np.arange(0.0, WHOLE_RUN_S, 0.06) + 0.0007:
        faults = [kill("external/g0", float(at))]
        outcome = simulated(external(testbed__faults=faults, **multigps()))
        agree(outcome, "c1", "c2", "c3")
        assert roots(outcome.of("epoch")[-1]) == ["external/g1"]
    faults.append(kill("external/g1", 0.2))
    faults.sort(key=lambda fault: fault["at"])
    outcome = simulated(external(rounds=10, testbed__faults=faults, **multigps()))
    agree(outcome, "c1", "c2", "c3", rounds=10)
    assert roots(outcome.of("epoch")[-1]) == ["c1"]


def trouble(seed):
    """Two deaths and a return, in any order, of centers, workers and global servers."""
    rng = random.Random(seed)
    workers = rng.choice([1, 2])
    nodes = ["external/g0", "external/g1", "c1", "c2", "c3"]
    nodes += [f"c{c}/w{w}" for c in (1, 2, 3) for w in range(workers) if workers > 1]
    first, second = rng.sample(nodes[:2], 1) + rng.sample(nodes[2:], 1)
    if rng.random() < 0.5:
        first, second = second, first
    at = rng.uniform(0, 0.6)
    back = restart(first, at + rng.choice([0.0, rng.uniform(0, 0.5)]))
    return workers, [kill(first, at), back, kill(second, at + rng.uniform(0, 0.3))]


@pytest.mark.parametrize("block", range(3))
def test_global_servers_and_centers_may_die_together(block):
    """Every piece of host work takes tens of milliseconds: much is under way at every change."""
    slow = {f"pace__{kind}_gbps": 1e-4 for kind in ("encode", "sum", "outer")}
    for seed in range(10 * block, 10 * (block + 1)):
        workers, faults = trouble(seed)
        made = external(rounds=5, workers=workers, testbed__faults=faults, **multigps(), **slow)
        outcome = simulated(made)
        assert outcome.finals, seed
        assert len(set(outcome.finals.values())) == 1, seed
        assert {last for last, _ in outcome.finals.values()} == {4}, seed
        assert outcome.end < 6.0, seed


def test_a_center_that_serves_dies_and_the_next_one_serves():
    outcome = simulated(small_config(testbed__faults=[kill("c1", 0.15)], **multigps()))
    agree(outcome, "c2", "c3")
    assert roots(outcome.of("start")[0]) == ["c1", "c2"]
    assert roots(outcome.of("epoch")[-1]) == ["c2", "c3"]


def test_global_servers_alone_are_no_run():
    faults = [kill(center, 0.1) for center in ("c1", "c2", "c3")]
    outcome = simulated(external(testbed__faults=faults), fails=True)
    assert str(outcome.error) == "no member is left: c3 died (connection reset)"


def test_the_loads_of_several_servers_are_recorded():
    made = external(elements=1000, chunk_elements=300, **multigps())
    (event,) = simulated(made).of("loads")
    assert event["elements"] == {"external/g0": 504, "external/g1": 496}
    assert not simulated(external()).of("loads")


def test_a_run_with_a_global_server_continues_from_its_checkpoint(tmp_path):
    whole = simulated(external(rounds=6))
    simulated(external(rounds=4, checkpoint_every=2), folder=tmp_path)
    again = simulated(external(rounds=6, checkpoint_every=2, resume=True), folder=tmp_path)
    assert again.rounds_of("c1") == [4, 5]
    assert again.final.tobytes() == whole.final.tobytes()


WITHOUT_JAX = """
import asyncio, sys
from pathlib import Path
from geojax import assemble
from geojax.config import RunConfig
from geojax.hips.context import NodeContext, Oracle
from geojax.machine.machine import RealMachine
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder
from testbed.run import prepare
from testbed.wan.build import load_preset

class Transport:
    def send(self, peer, message, priority=0):
        self.told = message.body
    async def receive(self):
        await asyncio.sleep(1e6)

async def join():
    config = RunConfig()
    config.wan = load_preset("uniform", server_center="external")
    setup, _, _ = prepare(config, Path())
    transport, clock = Transport(), Clock()
    node = asyncio.ensure_future(assemble.run_node(
        NodeContext("external", setup, Oracle(setup.view), transport, RealMachine(), clock,
                    Recorder("external", print))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert transport.told["type"] == "join", transport.told
    node.cancel()

asyncio.run(join())
assert not {"jax", "jaxlib", "flax"} & sys.modules.keys()
"""


def test_a_global_server_needs_no_jax():
    """A real model, in a fresh process: it joins with nothing of the model loaded."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", WITHOUT_JAX]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        (multigps(["c1", "c2"]), "overlay.servers", "no center serves"),
        ({"wan__external": None}, "wan.external", "rate: 100, rtt: 40"),
        ({"overlay__servers": 2}, "overlay.servers", "read by overlay=multigps"),
        ({"overlay__root": "c9"}, "overlay.root", "valid: c1, c2, c3, external"),
    ],
)
def test_what_does_not_go_with_an_external_site_is_refused(settings, key, words):
    with pytest.raises(ConfigError, match=words) as raised:
        check(external(**settings))
    assert raised.value.key == key


def test_a_center_may_be_the_root_though_there_is_a_site():
    outcome = simulated(external(overlay__root="c2", testbed__faults=[kill("c2", 0.2)]))
    agree(outcome, "c1", "c3")
    assert roots(outcome.of("start")[0]) == ["c2"]
    assert roots(outcome.of("epoch")[-1]) == ["external"]


def test_a_generated_wan_needs_no_further_numbers():
    config = RunConfig(wan=load_preset("uniform", server_center="external"))
    config.model.name = "synthetic"
    check(config)
