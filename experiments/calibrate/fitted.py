"""The cases that the simulator's constants are fitted on.

They were measured on 23 November 2026, with a twelfth one, when half of them were held out; as
their figures have been seen since, they serve for fitting now. They have constant and changing
rates, dense and sparse WANs, small and large messages, many-to-one and all-to-all.
"""

from __future__ import annotations

from experiments.calibrate.cases import FITTED, Case, capped, preset, redraw, steps

PACKETS = (("overlay.routes", "fewest_hops"),)  # there was nothing else when they were measured

FITTED_CASES = (
    Case(
        "mesh4-large-star", FITTED, preset("full_mesh", centers=4, rate=40, rtt=30),
        "star", 10_000_000, rounds=8,
    ),
    Case(
        "mesh7-small-all", FITTED, preset("full_mesh", centers=7, rate=8, rtt=60),
        "sharded_star", 200_000, rounds=80, chunk_elements=7_143,
    ),
    Case(
        "mesh6-star-redrawn", FITTED,
        preset("full_mesh", centers=6, rtt=36, dynamics=redraw(2.5, 9, 19)),
        "star", 1_000_000, rounds=18, chunk_elements=16_384,
    ),
    Case(
        "ring5-large-star-steps", FITTED,
        preset("random_sparse", centers=5, degree=2, draw=None, rate=48, rtt=16,
             dynamics=steps((5.0, 35), (11.0, 60))),
        "star", 6_000_000, rounds=7, settings=PACKETS,
    ),
    Case(
        "net9-all", FITTED, preset("netstorm9_draw", draw={"low": 9, "high": 19}, rtt=10),
        "sharded_star", 1_500_000, rounds=6, chunk_elements=8_192, settings=PACKETS,
    ),
    Case(
        "capped5-star", FITTED, capped(5, rate=38, rtt=14, cap=54),
        "star", 2_500_000, rounds=10, chunk_elements=32_768,
    ),
    Case(
        "mesh9-small-star", FITTED, preset("full_mesh", centers=9, rate=22, rtt=50),
        "star", 300_000, rounds=80, chunk_elements=16_384,
    ),
    Case(
        "mesh5-large-all", FITTED, preset("full_mesh", centers=5, rate=20, rtt=20),
        "sharded_star", 12_000_000, rounds=7,
    ),
    Case(
        "mesh6-large-star-steps", FITTED,
        preset("full_mesh", centers=6, rate=32, rtt=80,
             dynamics=steps((4.0, 24), (9.0, 44), (13.0, 28))),
        "star", 8_000_000, rounds=7,
    ),
    Case(
        "sparse8-star", FITTED,
        preset("random_sparse", centers=8, degree=3, draw={"low": 21, "high": 33}, rtt=44),
        "star", 2_000_000, rounds=8, settings=PACKETS,
    ),
    Case(
        "capped6-all", FITTED, capped(6, rate=26, rtt=70, cap=50),
        "sharded_star", 5_000_000, rounds=10,
    ),
)  # fmt: skip
