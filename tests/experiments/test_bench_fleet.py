"""The bench of fleets, small; and that devices cost less than training on their samples."""

import pytest

from experiments.bench.fleet import SELECTIONS, configuration, measure, options_of, table

SMALL = ["--model=mlp", "--data=digits", "--samples=400", "--centers=2", "--devices=8",
         "--chosen=3", "--batch-size=8", "--steps=1"]  # fmt: skip


def test_the_table_has_a_row_for_every_selection():
    made = table(options_of(SMALL))
    assert list(made.columns[0].cells) == list(SELECTIONS)
    shares = [float(text.rstrip("%")) for text in made.columns[-1].cells]
    assert all(share > 0 for share in shares)


@pytest.mark.nightly
def test_ten_fleets_of_36_devices_cost_less_than_the_samples_they_train():
    """In CPU time, and with a bound far above what the bench prints."""
    options = options_of(["--steps=1"])
    cost = measure(configuration(options, SELECTIONS["gbp_cs"]), options.centers, options.steps)
    assert all(each >= 0 for each in cost)
    assert cost.overhead < 0.5
