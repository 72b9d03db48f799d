"""``wan.connections``: a number, or as many as paths need."""

import json

import pytest

from geojax.config import LanConfig, RunConfig, WanConfig
from geojax.errors import ConfigError
from geojax.hips.cluster import Cluster, Connections, NodeSpec
from geojax.models.registry import SyntheticConfig
from geojax.node import read_run, write_run
from testbed.run import prepare, run
from testbed.simulated.routes import NodeRoutes
from testbed.wan.build import build_wan
from testbed.wan.connections import connections_of
from testbed.wan.tcp_rates import HEADROOM, MOST, enough, loss_limit


def line(connections, **settings):
    """a - b - c: the first link is short and loses nothing, the second is long and loses some."""
    links = [
        {"between": ["a", "b"], "rate": 1000, "rtt": 2},
        {"from": "b", "to": "c", "rate": 40, "rtt": 100, "loss": 0.001},
        {"from": "c", "to": "b", "rate": 40, "rtt": 100},
    ]
    return WanConfig(
        name="line", centers=["a", "b", "c"], links=links, connections=connections, **settings
    )


def found(connections, congestion_control="cubic", **settings):
    config = line(connections, **settings)
    return connections_of(config, build_wan(config, LanConfig(), 0), congestion_control)


def test_a_number_holds_between_all_centers():
    assert found(8) == Connections(8)
    assert found(1) == Connections()


def test_auto_goes_by_what_one_connection_reaches_on_the_path():
    connections = found("auto")
    by_loss = HEADROOM * 40e6 / loss_limit("cubic", 0.1, 0.001)
    near, far = (connections.pairs[source, "c"] for source in "ba")
    assert near - 1 < by_loss <= near
    assert far >= near > 1
    assert connections == Connections(1, {("a", "c"): far, ("b", "c"): near})
    assert connections.told() == {"a>c": far, "b>c": near}
    assert found("auto", "bbr") == Connections()


def test_auto_knows_access_caps_and_long_fat_paths_without_loss():
    capped = found("auto", ingress=10).pairs["b", "c"]
    assert 1 < capped < found("auto").pairs["b", "c"]
    assert enough("cubic", 1e9, 0.2, 0.0) == 8  # 25 MB on their way
    assert enough("cubic", 1e9, 0.2, 0.01) == MOST


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "many", None, [2], 257])
def test_anything_else_is_refused(value):
    with pytest.raises(ConfigError, match=r"wan\.connections = .*auto"):
        found(value)


def setup_of(connections, tmp_path):
    config = RunConfig(rounds=2)
    config.wan, config.lan = line(connections), LanConfig(workers=2)
    config.model = SyntheticConfig(bytes=100_000, pace_s=0.01)
    return config, prepare(config, tmp_path)


def test_only_what_crosses_the_wan_has_several(tmp_path):
    _, (setup, wan, _) = setup_of(5, tmp_path)
    routes = NodeRoutes(wan, setup.cluster, setup.connections)
    for pair in (("a", "a/w0"), ("a/w1", "a/w0"), ("scheduler", "b"), ("c/w1", "scheduler")):
        assert routes[pair].connections == 1, pair
    for pair in (("a", "b"), ("b", "a"), ("a", "c")):
        assert routes[pair].connections == 5, pair


@pytest.mark.parametrize("connections", [1, 5, "auto"])
def test_every_node_is_told(connections, tmp_path):
    _, (setup, _, _) = setup_of(connections, tmp_path)
    write_run(tmp_path, "x", setup)
    assert read_run(tmp_path)[1].connections == setup.connections


def test_the_summary_tells_them_where_there_are_several(tmp_path):
    for connections in (1, 5, "auto"):
        config, (setup, _, _) = setup_of(connections, tmp_path)
        summary = run(config, tmp_path / str(connections))
        assert summary.get("connections", 1) == setup.connections.told()
        json.dumps(summary)


def test_a_cluster_of_one_center_has_one(tmp_path):
    cluster = Cluster((NodeSpec("scheduler", "a", "scheduler"), NodeSpec("a", "a", "server")))
    wan = WanConfig(name="one", centers=["a"], connections=5)
    routes = NodeRoutes(build_wan(wan, LanConfig(), 0), cluster, Connections(5))
    assert routes["scheduler", "a"].connections == 1
