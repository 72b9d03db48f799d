"""``wan=FILE.yaml`` trains on any file that ``python -m testbed`` takes; options go anywhere."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from experiments.train.command_line import flags_last
from experiments.train.wan_files import with_wan_files
from geojax.errors import ConfigError

REGIONS = """
centers: [ap-northeast-1, us-east-1]
links:
- {between: [ap-northeast-1, us-east-1], rate: 50, rtt: 150}
"""


def test_a_file_and_a_preset_in_one_sweep_with_options_between_overrides(commands):
    (commands.folder / "regions.yaml").write_text(REGIONS)
    arguments = ("rounds=2", "-m", "wan=regions.yaml,uniform", "hydra.sweep.dir=sweep")
    done = commands.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert [commands.summary(f"sweep/{job}")["wan"] for job in "01"] == ["regions", "uniform"]
    stored = OmegaConf.load(commands.folder / "sweep" / "0" / "config.yaml")
    assert stored.wan.centers == ["ap-northeast-1", "us-east-1"]
    assert not list(commands.folder.glob("geojax-wan-*")), "left its folder"


def test_matrices_in_csv_are_written_out_in_the_runs_configuration(commands):
    rates = "rate_mbit,eu-west-1,us-east-1\neu-west-1,,50\nus-east-1,40,\n"
    (commands.folder / "iperf of may.csv").write_text(rates)
    done = commands.run("rounds=2", "wan=iperf of may.csv", "wan.rtt=80", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert commands.summary("run")["wan"] == "iperf of may"
    stored = OmegaConf.load(commands.folder / "run" / "config.yaml")
    assert [center["name"] for center in stored.wan.centers] == ["eu-west-1", "us-east-1"]
    assert [link["rate"] for link in stored.wan.links] == [50, 40]


def test_the_users_search_path_stays(tmp_path):
    (tmp_path / "regions.yaml").write_text(REGIONS)
    wan, path = with_wan_files([f"wan={tmp_path}/regions.yaml", "hydra.searchpath=[file:///mine]"])
    assert wan == "wan=file_0_regions"
    assert path.startswith("hydra.searchpath=[file:///mine,file:///")
    assert with_wan_files(["wan=uniform", "seed=1"]) == ["wan=uniform", "seed=1"]


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"nowhere\.yaml': no such file"):
        with_wan_files(["wan=nowhere.yaml"])


def test_values_of_options_stay_with_them():
    arguments = ["experiment=x", "--config-dir", "a=b", "-m", "lr=1,2", "~wan.draw", "--cfg", "job"]
    wanted = ["experiment=x", "lr=1,2", "~wan.draw", "--config-dir", "a=b", "-m", "--cfg", "job"]
    assert flags_last(arguments) == wanted
