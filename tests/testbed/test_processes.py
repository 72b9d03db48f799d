"""Runs of real processes over loopback: ``testbed=local``."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import kill, simulated, small_config

from geojax.errors import GeojaxError
from testbed.local.processes import Processes
from testbed.local.run import Loopback, _free_ports
from testbed.run import prepare, run

REPOSITORY = Path(__file__).resolve().parents[2]
TWO = {"wan": "uniform", "wan__centers": 2}


def local_config(**settings):
    return small_config(**{"testbed__name": "local", "eval_every_s": 100.0, **settings})


def events_of(run_dir, name=None):
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    return [event for event in events if name in (None, event["event"])]


def finals(run_dir):
    return {e["node"]: (e["round"], e["digest"]) for e in events_of(run_dir, "final")}


def left_over(run_dir):
    """Processes that have the run's directory on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes()
            state = (folder / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if str(run_dir).encode() in line and b"geojax.node" in line and state != "Z":
                found.append(int(folder.name))
    return found


def all_end(pids, seconds):
    """Whether these processes, which are not ours to wait for, end within some time."""
    end = time.monotonic() + seconds
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                if not select.select([handle], [], [], max(0.0, end - time.monotonic()))[0]:
                    return False
            finally:
                os.close(handle)
    return True


# ---- the same results


def test_processes_give_the_model_of_the_simulation_bit_for_bit(tmp_path):
    """With two workers in every center: test_testbeds.py."""
    summary = run(local_config(rounds=5), tmp_path)
    like = simulated(small_config(rounds=5))
    final = np.load(tmp_path / "models" / "final.npy")
    assert final.tobytes() == like.final.tobytes()
    assert finals(tmp_path) == like.finals
    assert (summary["rounds"], summary["steps"]) == (5, 15)
    assert len(events_of(tmp_path, "round")) == len(like.of("round"))
    for node in ("scheduler", "c1", "c2", "c3"):
        assert "Warning" not in (tmp_path / "nodes" / node / "log.txt").read_text()
        assert (tmp_path / "nodes" / node / "report.json").exists()
    assert left_over(tmp_path) == []


def test_a_trained_model_too(tmp_path):
    settings = {
        "model__name": "mlp", "data__name": "digits", "rounds": 6, "batch_size": 8,
        "optimizer__name": "adam", "overlay__chunk_elements": 1000, **TWO,
    }  # fmt: skip
    like = simulated(small_config(**settings))  # compiles what the processes then find
    summary = run(local_config(**settings), tmp_path)
    assert np.load(tmp_path / "models" / "final.npy").tobytes() == like.final.tobytes()
    assert finals(tmp_path) == like.finals
    accuracy = like.of("evaluation")[-1]["accuracy"]
    assert summary["final_accuracy"] == pytest.approx(accuracy, abs=1e-6)


# ---- faults


def test_a_run_goes_on_without_a_killed_root_and_takes_a_center_back_that_was_frozen(tmp_path):
    """Meanwhile the scheduler stands still itself, for longer than a member may be silent."""
    faults = [
        {"at": 0.2, "kind": "freeze", "node": "scheduler", "duration": 1.5},
        kill("c1", 2.0),
        {"at": 2.5, "kind": "freeze", "node": "c3", "duration": 2.0},
    ]
    config = local_config(rounds=120, testbed__faults=faults, timeouts__heartbeat=0.2)
    config.model.pace_s, config.timeouts.dead = 0.1, 1.0
    run(config, tmp_path)
    assert [event["nodes"] for event in events_of(tmp_path, "dead")] == [["c1"], ["c3"]]
    epochs = [event["members"] for event in events_of(tmp_path, "epoch")]
    assert epochs == [["c2", "c3"], ["c2"], ["c2", "c3"]]
    assert [event["nodes"] for event in events_of(tmp_path, "back")] == [["c3"]]
    assert sorted(finals(tmp_path)) == ["c2", "c3"]
    assert len(set(finals(tmp_path).values())) == 1
    assert finals(tmp_path)["c2"][0] == 119
    rounds = [e["round"] for e in events_of(tmp_path, "round") if e["node"] == "c2"]
    assert rounds == list(range(120))
    assert "c3 was expelled" in (tmp_path / "nodes" / "c3" / "log.txt").read_text()
    assert left_over(tmp_path) == []


def test_a_killed_center_that_is_restarted_ends_with_the_others(tmp_path):
    faults = [kill("c2", 0.5), {"at": 1.0, "kind": "restart", "node": "c2"}]
    config = local_config(rounds=50, testbed__faults=faults)
    config.model.pace_s = 0.1
    run(config, tmp_path)
    assert [event["nodes"] for event in events_of(tmp_path, "back")] == [["c2"]]
    assert set(finals(tmp_path)) == {"c1", "c2", "c3"}
    assert len(set(finals(tmp_path).values())) == 1


def test_a_node_that_waits_to_come_back_ends_with_the_run(tmp_path):
    """Its center is not whole again, so it would wait for ever."""
    faults = [kill("c2/w0", 0.5), {"at": 0.5, "kind": "freeze", "node": "c2", "duration": 1.5}]
    config = local_config(rounds=50, workers=2, testbed__faults=faults, timeouts__dead=1.0, **TWO)
    config.model.pace_s, config.timeouts.heartbeat = 0.1, 0.2
    run(config, tmp_path)
    assert set(finals(tmp_path)) == {"c1"}
    assert "c2 was expelled" in (tmp_path / "nodes" / "c2" / "log.txt").read_text()
    assert left_over(tmp_path) == []


def test_a_killed_scheduler_ends_the_run(tmp_path):
    config = local_config(rounds=100_000, testbed__faults=[kill("scheduler", 0.3)], **TWO)
    started = time.monotonic()
    with pytest.raises(GeojaxError, match="the scheduler was killed by signal 9"):
        run(config, tmp_path)
    assert time.monotonic() - started < 30
    assert left_over(tmp_path) == []


def test_a_node_that_fails_ends_the_run_with_its_text(tmp_path):
    settings = {"model__name": "mlp", "data__name": "digits", "rounds": 100, "lr": 1e30}
    config = local_config(wan="single_center", **settings)
    with pytest.raises(GeojaxError, match=r"worker 0, step \d+: .*lower lr") as caught:
        run(config, tmp_path)
    assert "log.txt" in str(caught.value)
    assert left_over(tmp_path) == []


# ---- bad starts


def start(config, run_dir, ports, hosts=None):
    setup, wan, faults = prepare(config, run_dir)
    return Processes(setup, wan, faults, run_dir, hosts or Loopback(), [].append, ports)


def test_a_port_in_use_is_named(tmp_path):
    with contextlib.ExitStack() as held:
        taken = held.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        others = [held.enter_context(socket.socket()) for _ in range(3)]
        for other in others:
            other.bind(("127.0.0.1", 0))
        numbers = [s.getsockname()[1] for s in (others[0], others[1], taken, others[2])]
        for other in others:
            other.close()
        processes = start(local_config(), tmp_path, (number for number in numbers))
        with pytest.raises(GeojaxError, match=str(numbers[2])) as caught:
            processes.run(lambda _: None)
    assert "c2" in str(caught.value)
    assert left_over(tmp_path) == []


def test_the_ports_of_a_run_are_its_own_until_it_ends(tmp_path):
    """Another run, or any program, cannot take a port between its choice and a node's start."""
    (tmp_path / "models").mkdir()
    config = local_config(wan="single_center", rounds=2)
    processes = start(config, tmp_path, _free_ports())
    addresses = [(place.host, place.port) for place in processes._cluster.all]
    for address in addresses:
        with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
            other.bind(address)
    processes.run(lambda _: None)
    for address in addresses:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # past TIME_WAIT
            other.bind(address)
            other.listen()


class Misnaming(Loopback):
    """Starts c2 under a name that the run does not have."""

    def popen(self, node, argv, **options):
        return super().popen(node, [*argv[:-1], "nobody" if node == "c2" else node], **options)


def test_a_node_that_ends_with_a_traceback_ends_the_run_with_its_last_lines(tmp_path):
    config = local_config(timeouts__start=20.0)
    processes = start(config, tmp_path, _free_ports(), Misnaming())
    with pytest.raises(GeojaxError, match=r"c2: .*(Error|StopIteration)"):
        processes.run(lambda _: None)
    assert left_over(tmp_path) == []


# ---- the parent dies

PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from simulated_runs import small_config
import testbed.run

class Progress(testbed.run.RunProgress):
    def take(self, event):
        super().take(event)
        if event["event"] == "start":
            print("started", flush=True)

testbed.run.RunProgress = Progress
config = small_config(testbed__name="local", rounds=100_000, wan="uniform", wan__centers=2)
config.model.pace_s = 0.1
testbed.run.run(config, Path({run_dir!r}))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_when_the_parent_is_killed_no_process_is_left_after_ten_seconds(number, tmp_path):
    script = PARENT.format(tests=str(REPOSITORY / "tests"), run_dir=str(tmp_path))
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with parent:
        try:
            assert parent.stdout.readline() == b"started\n"
            nodes = left_over(tmp_path)
            assert len(nodes) == 3
        finally:
            parent.send_signal(number)
        assert parent.wait(20) != 0
    assert all_end(nodes, 10)
    assert left_over(tmp_path) == []


def test_a_node_that_is_killed_before_the_start_ends_the_run_at_once(tmp_path, monkeypatch):
    """As the kernel does where memory is short; the others would wait for its join."""

    def popen(self, node, argv, **options):
        if node == "c2":
            argv = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)", *argv[3:]]
        return subprocess.Popen(argv, **options)

    monkeypatch.setattr(Loopback, "popen", popen)
    with pytest.raises(GeojaxError, match="c2 was killed by signal 9 before the run started"):
        run(local_config(), tmp_path)
    assert left_over(tmp_path) == []
