"""The simulator's constants are those that were frozen before the held-out cases were written."""

from __future__ import annotations

import pytest

from experiments.calibrate import frozen
from experiments.calibrate.fit import CONSTANTS
from geojax.config import PaceConfig
from testbed.simulated import tcp, transport


def test_the_defaults_are_the_frozen_ones():
    assert frozen.today() == frozen.VALUES
    assert frozen.moved() == []


def test_everything_that_is_fitted_or_charged_is_frozen():
    charged = [f"pace.{name}" for name in vars(PaceConfig()) if name.endswith(("_gbps", "plan_s"))]
    assert set(frozen.VALUES) >= {constant.key for constant in CONSTANTS} | set(charged)


def test_the_published_constants_of_the_connection_stay():
    assert (tcp.INITIAL_SEGMENTS, tcp.SEGMENT_BYTES) == (10, 1448)  # RFC 6928; Ethernet
    assert transport.SHORTEST_S == 1e-3


def test_a_default_that_moved_is_told(monkeypatch):
    monkeypatch.setitem(frozen.VALUES, "testbed.rtt_bias", 0.25)
    assert frozen.moved() == ["testbed.rtt_bias"]
    with pytest.raises(AssertionError):
        test_the_defaults_are_the_frozen_ones()
