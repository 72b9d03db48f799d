"""Limits on silence are checked against the round trips of the WAN before a run starts."""

from __future__ import annotations

import pytest

from geojax.axes import from_dict
from geojax.errors import ConfigError
from testbed.run import check


def uniform(rtt, **timeouts):
    wan = {"name": "uniform", "generator": "uniform", "centers": 3, "rate": 10, "rtt": rtt}
    return from_dict({"wan": wan, "timeouts": timeouts})


def test_a_wan_longer_than_the_silence_allowed_is_refused():
    with pytest.raises(ConfigError, match=r"timeouts\.dead = 5\.0: must be at least 6\.5 s"):
        check(uniform(3000))
    check(uniform(3000, dead=6.5))
    check(uniform(2000))


def test_the_scheduler_s_own_site_counts():
    config = uniform(100)
    config.wan.server_center = "external"
    config.wan.external = {"rate": 100, "rtt": 3000}
    with pytest.raises(ConfigError, match=r"timeouts\.dead = 5\.0: must be at least 6\.5 s"):
        check(config)
