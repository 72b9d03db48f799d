"""The bench of executions of clients, on work of no size."""

from __future__ import annotations

import argparse

import pytest
from rich.console import Console

from experiments.bench.federated import measure
from geojax.errors import ConfigError


def options(**changed):
    values = {
        "models": "mlp", "executions": "loop,vmap", "sync": "fedavg", "clients": 2, "samples": 9,
        "batch_size": 4, "epochs": 1, "rounds": 1, "devices": 1,
    }  # fmt: skip
    return argparse.Namespace(**{**values, **changed})


def test_every_execution_has_a_row_and_one_is_the_default():
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(measure(options()))
    rows = [line for line in captured.get().splitlines() if "│ mlp" in line]
    assert [("loop" in row, "vmap" in row) for row in rows] == [(True, False), (False, True)]
    assert ["default" in row for row in rows] == [True, False]
    assert sum("fastest" in row for row in rows) == 1


def test_wrong_names_are_refused():
    with pytest.raises(ConfigError, match="--executions = 'lop': did you mean 'loop'"):
        measure(options(executions="lop"))
    with pytest.raises(ConfigError, match="--sync = 'fsa': has no clients"):
        measure(options(sync="fsa", epochs=1, executions="loop"))
