"""Overrides are checked, and every error is one line that names what is valid."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from experiments.runs import schema
from experiments.runs.choices import CONF
from experiments.train.command_line import (
    UsageError,
    explain,
    own_folders,
    plugins,
    prepare,
)
from geojax.errors import ConfigError
from testbed.run import check


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("optimzer.lr=0.1", "optimzer.lr: did you mean 'optimizer.lr'?"),
        ("optimizer.lrr=0.1", "optimizer.lrr: did you mean 'optimizer.lr'?"),
        ("alpha=0.3", "alpha: did you mean 'partition.alpha'?"),
        ("ovelay=star", "ovelay: did you mean 'overlay'?"),
        ("+roundss=3", "roundss: did you mean 'rounds'?"),
        ("lr.x=1", "lr.x: did you mean 'lr'?"),
        ("zzz=1", "zzz: no such key or group; --help lists them, --cfg job shows every key"),
        ("hydra.run.dirr=x", None),
        ("lr=1,2", "lr=1,2 is a sweep: add -m, or quote the value: 'lr=\"1,2\"'"),
        ("a=b=c", "a=b=c: the value cannot be read; quote it: 'a=\"b=c\"'"),
    ],
)
def test_a_mistyped_override_is_refused_with_the_nearest_key(typed, meant):
    if meant is None:
        assert prepare([typed]) == [typed]  # Hydra's own keys are Hydra's to check
        return
    with pytest.raises(UsageError) as refused:
        prepare([typed])
    assert str(refused.value) == meant


@pytest.mark.parametrize(
    "arguments",
    [
        ["rounds=3", "overlay=star", "pace.factor=2", "hydra.run.dir=x", "variant/demo=star_fsa"],
        ["-m", "lr=1,2", "seed=range(3)"],
        ["--multirun", "overlay=star", "--config-dir", "more"],
        ["++pace.centers.c1=2", "pace.grid_s=1", "+wan.dynamics.kind=redraw", "--cfg", "job"],
    ],
)
def test_valid_arguments_pass_unchanged(arguments):
    assert prepare(arguments) == arguments


def test_keys_of_axes_and_of_free_form_settings_need_no_plus():
    assert prepare(["pace.centers.c1=2"]) == ["++pace.centers.c1=2"]
    assert prepare(["overlay.root=c1"]) == ["++overlay.root=c1"]


def test_the_key_that_chooses_a_member_is_its_group():
    assert prepare(["sync.name=hfa", "wan.generator=uniform"]) == ["sync=hfa", "wan=uniform"]
    assert prepare(["-m", "sync.name=hfa,fsa"]) == ["-m", "sync=hfa,fsa"]
    assert prepare(["sync=hfa", "sync.name=hfa"]) == ["sync=hfa", "++sync.name=hfa"]


def explained(overrides, search_path=None):
    more = [f"hydra.searchpath=[file://{search_path}]"] if search_path else []
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        with pytest.raises((HydraException, OmegaConfBaseException)) as raised:
            schema.build(compose("config", [*overrides, *more]))
        return explain(raised.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("overlay=stra", "overlay = 'stra': did you mean 'star'? valid: "),
        ("sync=fssa", "sync = 'fssa': did you mean 'fsa'? valid: "),
        ("experiment=dmo", "experiment = 'dmo': did you mean 'demo'? valid: "),
        ("rounds=many", "rounds = 'many': must be a whole number"),
        ("optimizer.lr=fast", "optimizer.lr = 'fast': must be a number"),
        ("resume=maybe", "resume = 'maybe': must be true or false"),
        ("optimzer.lr=1", "optimzer: did you mean 'optimizer'?"),
        ("rounds", "rounds: not of the form key=value"),
    ],
)
def test_errors_of_hydra_become_one_line(override, told):
    text = explained([override])
    assert text.startswith(told)
    assert "\n" not in text
    assert "base_" not in text


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("optimzer: {lr: 1}", "in conf file experiment/mine.yaml: optimzer: did you mean"),
        ("rounds: many", "in conf file experiment/mine.yaml: rounds = 'many': must be a whole"),
    ],
)
def test_a_wrong_line_of_a_file_is_named_with_its_file(tmp_path, line, told):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{line}\n")
    assert explained(["experiment=mine"], tmp_path).startswith(told)


BROKEN = {
    "wrong_syntax": ("import os\ndef f(:\n    pass\n", "line 2\n    def f(:\n", "SyntaxError"),
    "needs_more": ("import torhc\n", "line 1, in <module>\n    import torhc\n", "'torhc'"),
    "undecorated": (
        "from geojax.config import SyncConfig\nfrom geojax.sync.algorithm import SYNCS\n"
        "class Own(SyncConfig):\n    name: str = 'own'\nSYNCS.register('own', Own)(print)\n",
        "line 5, in <module>\n", "Own: write @dataclass above it",
    ),
    "underived": (
        "from dataclasses import dataclass\nfrom geojax.sync.algorithm import SYNCS\n"
        "@dataclass\nclass Own:\n    name: str = 'own'\nSYNCS.register('own', Own)(print)\n",
        "line 6, in <module>\n", "Own: derive it from SyncConfig",
    ),
    "taken": (
        "from geojax.models.losses import LOSSES\nLOSSES.register('mse')(print)\n",
        "line 2, in <module>\n", "registered twice: there is a loss=mse; choose another name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("module", BROKEN)
def test_a_plugin_that_cannot_be_imported_is_told_by_its_own_lines(tmp_path, monkeypatch, module):
    code, where, what = BROKEN[module]
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as refused:
        prepare([f"plugins=[{module}]"])
    text = explain(refused.value)
    assert text.startswith(f"plugins = '{module}': cannot be imported:\n")
    assert f'{module}.py", {where}' in text
    assert text.splitlines()[-1].endswith(what) or what in text.splitlines()[-1]
    assert "importlib" not in text
    assert len(text.splitlines()) < 10


def own_files(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".yaml").write_text(text)
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["--config-dir", "DIR", "experiment=mine"],
        ["--config-dir=DIR", "-m", "experiment=smoke,mine"],
        ["-cd", "DIR", "experiment=mine"],
        ["hydra.searchpath=[DIR]", "experiment=mine"],
        ["hydra.searchpath=[file://DIR]", "experiment=mine"],
    ],
)
def test_plugins_of_an_experiment_of_ones_own_are_found(tmp_path, words):
    folder = own_files(tmp_path, experiment__mine="plugins: [one, two]\n")
    words = [word.replace("DIR", str(folder)) for word in words]
    assert plugins(words, own_folders(words)) == ["one", "two"]


def test_a_group_of_ones_own_is_a_choice(tmp_path):
    words = ["--config-dir", str(own_files(tmp_path, habits__fast="# @package _global_\n"))]
    assert prepare([*words, "+habits=fast"]) == [*words, "+habits=fast"]
    with pytest.raises(UsageError, match="habits"):
        prepare(["+habits=fast"])


def test_a_file_that_would_hide_behind_one_of_geojax_is_refused(tmp_path):
    own_files(tmp_path, model__mlp="hidden: [3]\n")
    with pytest.raises(UsageError, match=r"model/mlp\.yaml: geojax has a file of this name; give"):
        prepare(["--config-dir", str(tmp_path)])


def test_a_file_whose_member_nobody_registered_says_so(tmp_path):
    own_files(tmp_path, model__wide="defaults: [base_tiny, _self_]\n")
    told = "In 'model/wide': there is no model=tiny; does plugins=[...] name its module?"
    assert explained(["model=wide"], tmp_path) == told


def test_the_readmes_own_wan_is_a_choice(tmp_path):
    readme = (CONF.parent / "README.md").read_text()
    text = next(each for each in readme.split("```yaml\n")[1:] if "name: mine" in each)
    own_files(tmp_path, wan__mine=text.partition("```")[0])
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        words = ["wan=mine", "model=synthetic", f"hydra.searchpath=[file://{tmp_path}]"]
        config = schema.build(compose("config", words))
    check(config)
    assert [each if isinstance(each, str) else each["name"] for each in config.wan.centers] == [
        "paris", "tokyo", "ohio",
    ]  # fmt: skip
