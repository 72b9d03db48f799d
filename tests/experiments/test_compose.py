"""Every YAML file composes, fits the schema, and passes the runner's own validation."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from experiments import configuration
from experiments.runs import keys, schema, stored
from experiments.runs.choices import CONF, choices
from geojax.axes import AXES, complete
from geojax.config import RunConfig, groups, to_dict
from geojax.data.npz import NpzConfig
from geojax.overlay.planners.multigps import server_count
from testbed.run import check, prepare

GROUPS = [*groups(), "experiment"]
MEMBERS = [(group, name) for group in groups() for name in choices(group)]
NEEDS = {
    ("data", "digits"): ("model", "mlp"),  # 8 x 8 images; the demo CNN is made for 28 x 28
    ("compression", "size_only"): ("model", "synthetic"),
    ("compression", "sizes"): ("model", "synthetic"),
    ("sync", "fedgs"): ("devices", "fleet"),
    **{
        (group, name): ("devices", "fleet")
        for group in ("device_partition", "selection")
        for name in choices(group)
    },
    ("sync", "halos"): ("lan", "four_workers"),  # asynchronous LANs need workers on them
    ("optimizer", "muon"): ("sync", "diloco"),  # matrices: an inner optimizer
}
DEMOS = [("variant/demo", name) for name in choices("variant/demo")]
HEADLINE = choices("variant/geomx_exceeds_lan")


ADAM = ("optimizer=adam", "optimizer.eps=1e-7")


def test_every_group_has_files_and_every_folder_is_a_group():
    folders = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert folders == {*GROUPS, "variant"}
    assert all(choices(group) for group in GROUPS)


@pytest.fixture(scope="module")
def members(composed):
    """Every member of every group, as composed; a composition takes one of each group."""
    names = {group: choices(group) for group in groups()}
    found = {}
    for turn in range(max(map(len, names.values()))):
        chosen = {group: files[turn % len(files)] for group, files in names.items()}
        config = composed(*(f"{group}={name}" for group, name in chosen.items()))
        found |= {(group, name): getattr(config, group) for group, name in chosen.items()}
    return found


@pytest.mark.parametrize(("group", "name"), MEMBERS, ids=lambda word: word)
def test_every_member_composes_and_is_valid(composed, members, group, name):
    chosen = [NEEDS[group, name]] if (group, name) in NEEDS else []
    changes = {key: members[key, other] for key, other in [(group, name), *chosen]}
    check(dataclasses.replace(composed(), **changes))


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_composes_and_is_valid(composed, name):
    check(composed(f"experiment={name}"))


def test_an_algorithm_may_have_settings_of_its_own_in_an_experiment(composed):
    row = "experiment=esync_geo", "sync=diloco"
    assert composed(*row).sync.local_steps == 32
    assert composed(*row, "sync.local_steps=7").sync.local_steps == 7
    assert composed("sync=diloco").sync.local_steps == 500


@pytest.mark.parametrize(("group", "name"), DEMOS, ids=lambda word: word)
def test_demo_variants_are_valid_and_set_their_own_keys(composed, group, name):
    config = composed("experiment=demo", f"{group}={name}")
    check(config)
    assert config.experiment == name
    assert config.lan.workers == (3 if name == "one_center" else 1)
    assert (config.sync.name == "local_steps") == (name == "star_local_steps")


@pytest.mark.parametrize("name", choices("overlay"))
def test_the_scheduler_may_have_a_site_of_its_own_with_any_overlay(composed, name):
    site = "wan.server_center=external", "++wan.external={rate: 100, rtt: 20}"
    config = composed(f"overlay={name}", *site)
    check(config)
    setup, wan, _ = prepare(config, pathlib.Path())
    served = server_count(config.overlay)
    assert len(setup.cluster.global_servers) == served
    assert setup.cluster.node("scheduler").center == wan.server_center == "external"
    assert ("external" in setup.view.centers) == bool(served)


@pytest.mark.parametrize("name", HEADLINE)
def test_rows_of_the_headline_are_valid_and_alike_but_for_their_techniques(composed, name):
    config = composed("experiment=geomx_exceeds_lan", f"variant/geomx_exceeds_lan={name}")
    check(config)
    assert config.experiment == name
    centers = 1 if name.startswith("one_center") else config.wan.centers
    assert config.lan.workers * centers == 12
    scaled = 1000 * config.wan.bandwidth_scale
    assert (config.lan.rate, config.lan.rtt) == (scaled, 0.2)
    if centers == 3:
        assert (config.wan.rate, config.wan.rtt) == (100, 40)
    if centers == 12:  # the hosts' ports are those of a LAN
        ports = config.wan.egress, config.wan.ingress, config.wan.rate, config.wan.rtt
        assert ports == (1000, 1000, 1000, 0.2)


@pytest.mark.parametrize("name", choices("variant/geomx_accuracy"))
def test_rows_of_the_accuracy_experiment_are_valid(composed, name):
    config = composed("experiment=geomx_accuracy", f"variant/geomx_accuracy={name}")
    check(config)
    assert config.experiment == config.compression.name == name
    in_codec = name in ("bisparse", "mpq")
    assert config.optimizer.momentum == (0.0 if in_codec else 0.9)


def test_the_headline_sweeps_over_all_its_rows():
    text = (CONF / "experiment" / "geomx_exceeds_lan.yaml").read_text()
    (swept,) = (line for line in text.splitlines() if line.startswith("      variant/"))
    assert sorted(swept.split(":")[1].strip().split(",")) == HEADLINE


def test_every_member_file_starts_from_its_schema(members):
    for group, name in MEMBERS:
        if not (CONF / group / f"{name}.yaml").exists():
            continue  # a member without a file is a choice by itself
        text = (CONF / group / f"{name}.yaml").read_text()
        own = getattr(members[group, name], AXES[group].chooser) if group in AXES else None
        assert f"base_{own or group}, _self_" in text, name
    for name in choices("experiment"):
        text = (CONF / "experiment" / f"{name}.yaml").read_text()
        assert text.startswith("# @package _global_\n"), name


def test_files_are_read_once_and_choices_may_follow_others(composed, tmp_path, monkeypatch):
    read, load = [], OmegaConf.load
    monkeypatch.setattr(OmegaConf, "load", lambda file: read.append(file.name) or load(file))
    files = {
        "experiment/mine": "defaults:\n  - /variant/own: of_${experiment}\n",
        "variant/own/of_mine": "rounds: 7\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    own = f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"
    assert [composed(*own, f"overlay={name}").rounds for name in ("star", "ring")] == [7, 7]
    assert len(read) == len(set(read))
    assert {*read} >= {f"{tmp_path}/{name}.yaml" for name in files}


def test_defaults_are_those_of_the_dataclasses_but_for_the_wan(composed):
    config, plain = to_dict(composed()), to_dict(complete(RunConfig()))
    config.pop("wan")
    plain.pop("wan")
    assert config == plain


def test_every_key_is_known():
    assert len(keys.every_key()) > 60
    assert [key for key in keys.every_key() if not keys.known(key)] == []
    assert [key for key in keys.every_key() if keys.known(f"{key}x")] == []


def test_a_stored_configuration_is_read_back_equal(composed, tmp_path):
    config = composed("wan=netstorm9_draw", "++pace.centers.c2=3", "seed=7", *ADAM)
    schema.save(config, tmp_path / "config.yaml")
    assert schema.load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", choices("experiment"))
def test_a_job_reads_its_configuration_as_it_was_written(composed, tmp_path, name):
    odd = "1e5", "2020-01-01", "yes", "1:30", "<<", "null", "ä: #", 1e-7, 1e16, 3, None, True
    config = composed(f"experiment={name}")
    config.optimizer = composed(*ADAM).optimizer
    config.pace.centers["c2"] = 3
    config.wan.provenance = {"odd": list(odd), 5: {2.5: "keys"}}
    config.lr = 1e-05
    schema.save(config, tmp_path / "config.yaml")
    read = stored.read(tmp_path / "config.yaml")
    assert read == schema.load(tmp_path / "config.yaml") == config
    assert repr(read) == repr(config)


def test_the_page_of_all_keys_is_what_the_dataclasses_say():
    """A process of its own prints it: it has loaded no more than the command does."""
    command = [sys.executable, "-m", "experiments.configuration"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert configuration.PAGE.read_text() == printed, configuration.__doc__


def test_every_key_has_a_meaning():
    for group in ("", *groups()):
        for settings in keys.schemas(group):
            for item in dataclasses.fields(settings):
                if item.name not in ("name", *groups()):
                    assert item.metadata["doc"], (settings, item.name)


def test_the_hash_ignores_noise_and_nothing_else(composed):
    base = composed()
    wanted = stored.config_hash(base)
    noise = {"resume": True, "data": dataclasses.replace(base.data, path="elsewhere")}
    assert stored.config_hash(dataclasses.replace(base, **noise)) == wanted
    own = [NpzConfig(path=path) for path in ("a.npz", "b.npz")]
    assert len({stored.config_hash(dataclasses.replace(base, data=data)) for data in own}) == 2
    links = [{**base.wan.links[0], "rate": 99}, *base.wan.links[1:]]
    for change in ({"seed": 1}, {"wan": dataclasses.replace(base.wan, links=links)}):
        assert stored.config_hash(dataclasses.replace(base, **change)) != wanted


def test_free_form_settings_take_any_key():
    assert keys.free_form("pace.centers.c9")
    assert keys.free_form("wan.dynamics.period_s")
    assert not keys.free_form("lr.x")
    assert not keys.free_form("optimizer.x")


def test_choices_are_listed_for_help():
    schema.register()
    text = OmegaConf.create({"text": "${geojax.choices:}"}).text
    assert "testbed" in text
    assert "emulated, local, simulated" in text
    assert "base_" not in text
