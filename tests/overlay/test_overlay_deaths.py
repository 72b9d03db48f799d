"""Overlays over the members that are left, in whole simulated runs."""

import pytest
from simulated_runs import kill, simulated, small_config

from geojax.config import OverlayConfig
from geojax.overlay.planners.mlnet import MlnetConfig
from geojax.overlay.planners.netstorm import NetstormConfig
from geojax.overlay.planners.ring import RingConfig

OVERLAYS = {
    "netstorm": OverlayConfig("netstorm"),
    "netstorm, 2 roots": NetstormConfig(roots=2),
    "mlnet": MlnetConfig(root="c6"),
    "butterfly": OverlayConfig("butterfly"),
    "ring": RingConfig(order="bottleneck"),
    "tsengine": OverlayConfig("tsengine"),
}


@pytest.mark.parametrize("overlay", OVERLAYS.values(), ids=OVERLAYS.keys())
def test_the_others_go_on_when_a_center_in_the_middle_dies(overlay):
    """c6 has most links: the trees of fastest paths go through it, and then packets still do."""
    overlay.chunk_elements = 300
    config = small_config(
        wan="netstorm9_draw", overlay=overlay, testbed__faults=[kill("c6", 0.15)],
        timeouts__dead=1.0,
    )  # fmt: skip
    outcome = simulated(config)
    survivors = {f"c{number}" for number in range(1, 10)} - {"c6"}
    assert set(outcome.finals) == survivors
    assert len(set(outcome.finals.values())) == 1
    assert outcome.of("epoch")
