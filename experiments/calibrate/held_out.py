"""The held-out cases: they judge the simulator, and nothing is fitted on them.

They were written after its constants had been frozen. No rate, message size or delay of a fitted
case occurs in them, and they have what those lack: trees, packing, a ring, relays, traffic on LANs,
FP16, local steps, loss, and rates that change several times in a round.

Drawn rates are whole numbers times a scale that makes no whole numbers of them.
"""

from __future__ import annotations

from experiments.calibrate.cases import HELD_OUT, Case, capped, preset, steps

WIDE = {"low": 20, "high": 155}  # NetStorm's draws, before scaling

HELD_OUT_CASES = (
    Case(
        "mesh6-star", HELD_OUT, preset("full_mesh", centers=6, rate=37, rtt=24),
        "star", 4_200_000, rounds=10, chunk_elements=32_768,
    ),
    Case(
        "capped4-star", HELD_OUT, capped(4, rate=39, rtt=28, cap=58),
        "star", 3_800_000, rounds=6, chunk_elements=32_768,
    ),
    Case(
        "mesh5-all-drawn", HELD_OUT,
        preset("full_mesh", centers=5, draw=WIDE, bandwidth_scale=0.247, rtt=54),
        "sharded_star", 3_200_000, rounds=5,
    ),
    Case(
        "sparse7-star-relays", HELD_OUT,
        preset("random_sparse", centers=7, degree=4, draw=WIDE, bandwidth_scale=0.193, rtt=34),
        "star", 1_800_000, rounds=3, chunk_elements=16_384,
    ),
    Case(
        "net9-netstorm", HELD_OUT,
        preset("netstorm9_draw", draw=WIDE, bandwidth_scale=0.137, rtt=18),
        "netstorm", 2_200_000, rounds=4, chunk_elements=16_384,
    ),
    Case(
        "net9-packing", HELD_OUT,
        preset("netstorm9_draw", draw=WIDE, bandwidth_scale=0.119, rtt=8, seed=2),
        "packing", 2_600_000, rounds=4, chunk_elements=16_384,
    ),
    Case(
        "sparse6-ring", HELD_OUT,
        preset("random_sparse", centers=6, degree=3, draw=WIDE, bandwidth_scale=0.233, rtt=32),
        "ring", 3_400_000, rounds=3,
    ),
    Case(
        "mesh3-three-workers", HELD_OUT, preset("full_mesh", centers=3, rate=45, rtt=42),
        "star", 3_600_000, rounds=6,
        settings=(("lan.workers", 3), ("lan.rate", 110.0)),
    ),
    Case(
        "mesh5-star-fp16", HELD_OUT, preset("full_mesh", centers=5, rate=41, rtt=64),
        "star", 9_000_000, rounds=10, settings=(("compression", "fp16"),),
    ),
    Case(
        "mesh4-hfa", HELD_OUT, preset("full_mesh", centers=4, rate=34, rtt=22),
        "sharded_star", 2_800_000, rounds=4,
        settings=(
            ("sync", "hfa"), ("sync.local_steps", 2), ("sync.lan_rounds", 3), ("lan.workers", 2),
            ("lan.rate", 130.0),
        ),
    ),
    Case(
        "mesh4-star-loss", HELD_OUT, preset("full_mesh", centers=4, rate=46, rtt=12, loss=0.002),
        "star", 4_600_000, rounds=7,
    ),
    Case(
        "mesh5-star-steps-in-a-round", HELD_OUT,
        preset("full_mesh", centers=5, rate=52, rtt=38,
               dynamics=steps(*((0.9 * k, (36, 57, 43, 49)[k % 4]) for k in range(1, 30)))),
        "star", 14_000_000, rounds=4,
    ),
)  # fmt: skip
