"""The bench of fleets, small; and that devices cost less than training on their samples."""

import pytest
from rich.console import Console

from experiments.bench.fleet import SELECTIONS, configuration, measure, options_of, table

SMALL = ["--model=mlp", "--data=digits", "--samples=400", "--centers=2", "--devices=8",
         "--chosen=3", "--batch-size=8", "--steps=1"]  # fmt: skip


def test_the_table_has_a_row_for_every_selection():
    console = Console(width=120, record=True, quiet=True)
    console.print(made := table(options_of(SMALL)))
    assert made.row_count == len(SELECTIONS)
    text = console.export_text()
    assert all(name in text for name in SELECTIONS)


@pytest.mark.nightly
def test_ten_fleets_of_36_devices_cost_less_than_the_samples_they_train():
    """In CPU time, and with a bound far above what the bench prints."""
    options = options_of(["--steps=1"])
    cost = measure(configuration(options, SELECTIONS["gbp_cs"]), options.centers, options.steps)
    assert all(each >= 0 for each in cost)
    assert cost.overhead < 0.5
