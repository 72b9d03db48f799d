"""CPU limits: the files they write, and a busy loop under them where this machine has groups."""

import os
import subprocess
import sys

import pytest

from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.models.registry import SyntheticConfig
from testbed.errors import TestbedError
from testbed.local import cpu_limits
from testbed.local.cpu_limits import CpuLimits, Group, Hierarchy, find_hierarchy, read_limits
from testbed.pids import identify
from testbed.run import check, run
from testbed.wan.build import load_preset

CENTERS = ("c1", "c2")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A hierarchy of plain files: rmdir removes these too, and a busy loop keeps to its limit."""

    def rmdir(self, *_):
        for path in self.iterdir():
            path.unlink()
        os.rmdir(self)

    monkeypatch.setattr("pathlib.Path.rmdir", rmdir)
    monkeypatch.setattr(cpu_limits, "measured_share", lambda _group: 0.05)
    (tmp_path / "cgroup.subtree_control").write_text("memory")
    return tmp_path


def contents(group):
    return {path.name: path.read_text() for path in group.iterdir()}


def test_version_1_gets_a_quota_of_a_period(fake):
    with CpuLimits({"c1": 0.5, "c2/w0": 2.0}, Hierarchy(1, fake)) as limits:
        limits.add("c1", 4242)
        limits.add("scheduler", 4243)  # has no limit
        groups = sorted(path for path in fake.iterdir() if path.is_dir())
        mine = cpu_limits.prefix_of(identify(os.getpid()))
        assert [group.name for group in groups] == [f"{mine}0", f"{mine}1"]
        period = {"cpu.cfs_period_us": "20000"}
        assert contents(groups[0]) == {
            **period, "cpu.cfs_quota_us": "10000", "cgroup.procs": "4242"
        }  # fmt: skip
        assert contents(groups[1]) == {**period, "cpu.cfs_quota_us": "40000"}
    assert not any(path.is_dir() for path in fake.iterdir())


def test_version_2_gets_a_maximum_and_the_controller_is_switched_on(fake, monkeypatch):
    monkeypatch.setattr(cpu_limits, "why_not", lambda _hierarchy: None)
    with CpuLimits({"c1": 0.1}, Hierarchy(2, fake)):
        assert (fake / "cgroup.subtree_control").read_text() == "+cpu"
        [group] = [path for path in fake.iterdir() if path.is_dir()]
        assert contents(group) == {"cpu.max": "2000 20000"}


def test_without_limits_nothing_is_touched():
    with CpuLimits({}, Hierarchy(1, "nowhere")) as limits:
        limits.add("c1", 1)


def test_a_limit_that_does_not_hold_stops_the_run(fake, monkeypatch):
    monkeypatch.setattr(cpu_limits, "measured_share", lambda _group: 0.99)
    assert "a busy loop got 99%" in cpu_limits.why_not(Hierarchy(1, fake))
    with pytest.raises(TestbedError, match=r"testbed.cpu_limit cannot be kept here: .* 99%"):
        CpuLimits({"c1": 0.5}, Hierarchy(1, fake)).__enter__()
    monkeypatch.setattr(cpu_limits, "why_not", lambda _hierarchy: None)
    with pytest.raises(TestbedError, match=r"node c2 may use 10% of a core, but .* 99%"):
        CpuLimits({"c1": 0.5, "c2": 0.1}, Hierarchy(1, fake)).__enter__()
    assert not any(path.is_dir() for path in fake.iterdir())


def test_why_not_names_what_is_missing(tmp_path, monkeypatch):
    assert "no control group for CPU time is mounted" in cpu_limits.why_not(None)
    assert "run as root" in cpu_limits.why_not(Hierarchy(1, tmp_path / "absent"))
    monkeypatch.setattr(cpu_limits, "find_hierarchy", lambda: None)
    with pytest.raises(TestbedError, match="no control group for CPU time"):
        CpuLimits({"c1": 0.5}).__enter__()


def test_the_hierarchy_is_found_in_the_mounts(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io\n")
    first = "cgroup /groups/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0"
    second = f"cgroup2 {tmp_path} cgroup2 rw 0 0"
    assert find_hierarchy(f"{first}\n{second}") == Hierarchy(2, tmp_path)
    (tmp_path / "cgroup.controllers").write_text("cpuset io\n")
    assert find_hierarchy(f"{first}\n{second}").version == 1
    assert find_hierarchy("proc /proc proc rw 0 0") is None


def test_groups_of_dead_processes_are_removed_and_others_kept(fake):
    me = identify(os.getpid())
    names = [f"geojax-{me.pid}-{me.start}-0", f"geojax-{me.pid}-{me.start - 1}-0", "geojax-x-y-z"]
    for name in [*names, "somebody-else"]:
        (fake / name).mkdir()
    cpu_limits.remove_stale(Hierarchy(1, fake))
    left = {path.name for path in fake.iterdir() if path.is_dir()}
    assert left == {names[0], names[2], "somebody-else"}


@pytest.mark.parametrize(
    ("value", "testbed", "key", "fix"),
    [
        (0.5, "simulated", "testbed.cpu_limit", "pace profile"),
        (0, "local", "testbed.cpu_limit", "at least 0.05"),
        (True, "local", "testbed.cpu_limit", "share of a core"),
        ("half", "emulated", "testbed.cpu_limit", "share of a core"),
        ({"c1": -1}, "local", "testbed.cpu_limit.c1", "at least 0.05"),
        ({"c3": 0.5}, "local", "testbed.cpu_limit.c3", "c2"),
    ],
)
def test_mistakes_are_refused_by_key(value, testbed, key, fix):
    with pytest.raises(ConfigError) as caught:
        read_limits(value, testbed, CENTERS)
    assert caught.value.key == key
    assert fix in caught.value.fix


def test_a_number_holds_for_all_centers_and_a_mapping_for_those_named():
    assert read_limits(None, "simulated", CENTERS) == {}
    assert read_limits(1, "local", CENTERS) == {"c1": 1.0, "c2": 1.0}
    assert read_limits({"c2": 0.5}, "emulated", CENTERS) == {"c2": 0.5}


def test_a_run_with_a_wrong_limit_is_refused_before_it_starts():
    config = RunConfig(wan=load_preset("three_centers"))
    config.model.name, config.testbed.cpu_limit = "synthetic", 0.5
    with pytest.raises(ConfigError, match=r"testbed\.cpu_limit = 0\.5: a simulated node"):
        check(config)


@pytest.fixture
def real():
    """This machine's own hierarchy."""
    hierarchy = find_hierarchy()
    reason = cpu_limits.why_not(hierarchy)
    if reason is not None:
        pytest.skip(f"no CPU limits here: {reason}")
    return hierarchy


def test_a_busy_loop_is_held_to_its_limit_with_its_children(real):
    share = 0.2
    name = f"{cpu_limits.prefix_of(identify(os.getpid()))}test"
    group = Group(real, name)
    group.make(share)
    try:
        assert cpu_limits.holds(cpu_limits.measured_share(group), share)
        parent = "import os, sys\nsys.stdin.readline()\nos.execvp(sys.argv[1], sys.argv[1:])"
        with subprocess.Popen(
            [
                sys.executable,
                "-S",
                "-c",
                parent,
                sys.executable,
                "-S",
                "-c",
                cpu_limits.BUSY,
                "0.3",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        ) as process:
            group.add(process.pid)
            said, _ = process.communicate(b"go\ngo\n")
        assert cpu_limits.holds(float(said), share)
    finally:
        group.remove()
    assert not group.path.exists()


def test_the_nodes_of_a_run_are_limited(real, tmp_path, monkeypatch):
    put = []
    add = Group.add

    def recorded(self, pid):
        add(self, pid)
        put.append((self.path.name, (self.path / "cgroup.procs").read_text().split()))

    monkeypatch.setattr(Group, "add", recorded)
    config = RunConfig(rounds=2)
    config.model = SyntheticConfig(bytes=1000)
    config.testbed.name = "local"
    config.wan.centers = ["c1", "c2"]
    config.wan.links = [{"between": ["c1", "c2"], "rate": 100, "rtt": 2}]
    config.testbed.cpu_limit = {"c2": 0.6}
    assert run(config, tmp_path)["rounds"] == 2
    mine = cpu_limits.prefix_of(identify(os.getpid()))
    assert [name for name, _ in put] == [f"{mine}probe", f"{mine}0", f"{mine}0"]  # probe, loop, c2
    assert all(len(pids) == 1 for _, pids in put)
    assert not list(real.root.glob(f"{mine}*"))
