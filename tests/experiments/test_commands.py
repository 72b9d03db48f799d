"""Every command tells its options under the name by which it is started."""

import runpy
import sys

import pytest

COMMANDS = [
    *("train", "table", "plot", "calibrate", "compatibility", "demo"),
    *(f"bench.{name}" for name in ("awareness", "codecs", "delay_switch", "dgt", "overlays")),
    *(f"bench.{name}" for name in ("p3", "packing", "simulator", "wire")),
]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", [*(f"experiments.{name}" for name in COMMANDS), "testbed"])
def test_help_names_the_command(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(name, run_name="__main__")
    assert not end.value.code
    assert f"python -m {name}" in capsys.readouterr().out
