"""The benchmark of measured rates runs every source of rates and lays out how near they come."""

import argparse

from experiments.bench import awareness


def test_every_source_of_rates_is_measured():
    options = argparse.Namespace(
        seeds=[0], overlays=["netstorm"], wan="three_centers", rates=[20, 155], bytes=400_000,
        chunk_elements=4096, period=8.0,
    )  # fmt: skip
    laid = awareness.table(options)
    cells = {column.header: list(column.cells) for column in laid.columns}
    assert cells["rates"] == list(awareness.SOURCES)
    oracle = [cells[name][0] for name in ("1", "10", "settled", "settled, redrawn", "probes")]
    assert oracle == ["1.00", "1.00", "1.00", "1.00", "0.00%"]
    assert all(float(ratio) < 1.5 for ratio in cells["settled"])
    assert cells["probes"][2] == "0.00%"


def test_rounds_that_never_come_near_are_endless():
    assert awareness.rounds_to_near([3.0, 2.0], 1.0) == awareness.NEVER
    assert awareness.rounds_to_near([3.0, 1.05, 2.0], 1.0) == 2
