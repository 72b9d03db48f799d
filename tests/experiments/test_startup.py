"""What a command loads before it answers, and that quick answers are those of Hydra."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.config_repository import ConfigRepository
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from experiments.bench import startup
from experiments.runs import hydra_store, schema
from experiments.runs.choices import CONF
from experiments.train.command_line import _PLAIN, UsageError, explain, prepare
from geojax.axes import change
from geojax.config import RunConfig
from geojax.errors import GeojaxError

ROOT = Path(__file__).resolve().parents[2]
JAX = {"jax", "jaxlib", "flax", "optax"}
HYDRA = {"hydra", "omegaconf", "antlr4"}
SLOW = {"joblib", "matplotlib", "networkx", "pandas", "rich", "sklearn"}

# Runs a module as a command, then tells all that it has loaded in the last line.
PROBE = """
import runpy, sys
del sys.argv[0]
try:
    runpy.run_module(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print(f"exit {end.code}", file=sys.stderr)
print(*sys.modules, file=sys.stderr)
"""


def loaded(*words: str) -> tuple[str, str, set[str]]:
    """Output, errors, and loaded modules of ``python -m words``."""
    command = [sys.executable, "-c", PROBE, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    errors, _, modules = done.stderr.rstrip("\n").rpartition("\n")
    return done.stdout, errors, set(modules.split())


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_help_loads_no_library_and_says_what_hydra_says():
    output, errors, modules = loaded("experiments.train", "--help")
    own = {"__main__", "__mp_main__", "experiments", "geojax"}
    begun_with_python = {"_distutils_hack", "sitecustomize", "usercustomize"}
    others = {
        name
        for name in packages(modules) - sys.stdlib_module_names - own - begun_with_python
        if not name.startswith("__editable__")
    }
    assert (errors, others) == ("", set())
    assert "geojax.axes" not in modules
    assert "asyncio" not in modules
    by_hydra, _, modules = loaded("experiments.train", "--help", "seed=0")
    assert "hydra" in modules
    assert output == by_hydra


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optimzer.lr=1"], "optimzer.lr: did you mean 'optimizer.lr'?"),
        (["experiment=smoke", "-m", "sed=3"], "sed: did you mean 'seed'?"),
        (["overlay=stra", "seed=3"], "overlay = 'stra': did you mean 'star'? valid: butterfly, "),
        (["overlay=null"], "overlay = 'null': valid: butterfly, "),
        (["overlay.name=7"], "overlay = '7': valid: butterfly, "),
    ],
)
def test_a_mistyped_word_is_refused_without_hydra(words, told):
    output, errors, modules = loaded("experiments.train", *words)
    assert output == ""
    line, end = errors.splitlines()
    assert line.startswith(f"error: {told}")
    assert end == "exit 2"
    assert packages(modules) & {*HYDRA, *SLOW, *JAX, "asyncio", "scipy", "yaml"} == set()


def test_a_job_loads_neither_what_it_is_composed_with_nor_what_others_have_solved(tmp_path):
    config = change(RunConfig(rounds=2), {"model": "synthetic", "model.bytes": 4000})
    config.wan = change(RunConfig(), {"wan.generator": "uniform"}).wan
    change(config, {"wan.centers": 3, "wan.rate": 91.5, "wan.rtt": 20.0})
    schema.save(config, tmp_path / "config.yaml")
    for others in (set(), {"scipy"}):  # the second run finds the bound of the first
        _, errors, modules = loaded("experiments.train.job", str(tmp_path), "--held")
        assert errors == "default: fsa on three_centers, simulated: 2 rounds in 0.1 s"
        assert packages(modules) & {*HYDRA, *SLOW, *JAX, *others} == set()
    assert '"bound_s"' in (tmp_path / "summary.json").read_text()


@pytest.mark.parametrize(
    "word",
    [
        "lr=0.1", "+overlay=star", "++pace.centers.c1=2", "pace.centers.Ohio=2", "seed=007",
        "hydra/launcher=joblib", "variant/demo=star_fsa", "sync.p3=true", "wan.seed=-3", "x=1.2.3",
        "data.path=a.b-c_d", "hydra.run.dir=/tmp/a-b/c", "x=/", "overlay=null", "x=-",
        "x=1e5", "null=1", "x=a_1.",
    ],
)  # fmt: skip
def test_plain_words_are_read_as_hydra_reads_them(word):
    (override,) = OverridesParser.create().parse_overrides([word])
    plain = _PLAIN.fullmatch(word)
    assert plain is not None
    assert plain["key"] == override.key_or_group
    assert not override.is_sweep_override()


@pytest.mark.parametrize(
    "word",
    ["lr=1,2", "x=[1]", "a/b.c=1", "~x=1", "x=a:b", "x@y=1", "x=", "x=a b", "=1", "x=é", "1x=2"],
)
def test_other_words_are_left_to_hydra(word):
    assert _PLAIN.fullmatch(word) is None


@pytest.mark.parametrize("word", ["overlay=stra", "sync=fssa", "experiment=dmo", "testbed=x"])
def test_a_mistyped_choice_is_refused_as_hydra_refuses_it(word):
    with pytest.raises(UsageError) as refused:
        prepare([word])
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        with pytest.raises(HydraException) as by_hydra:
            compose("config", [word])
        assert str(refused.value) == explain(by_hydra.value)


def test_choices_in_folders_of_ones_own_are_hydras_to_find(tmp_path):
    for words in (["--config-dir", str(tmp_path)], ["--config-path", str(tmp_path)]):
        assert prepare([*words, "overlay=mine"])[-1] == "overlay=mine"


def test_files_are_read_quickly_to_the_same_values():
    for file in CONF.rglob("*.yaml"):
        text = file.read_text()
        quick, slow = (
            yaml.load(text, Loader=made)
            for made in (hydra_store._loader(), hydra_store._make_loader())
        )
        assert repr(quick) == repr(slow), file
    assert yaml.load("[1e3, 2020-01-01, yes]", hydra_store._loader()) == [1e3, "2020-01-01", True]


def test_a_broken_file_is_told_in_pyyamls_words(tmp_path):
    (tmp_path / "broken.yaml").write_text("a: [1\nb: 2\n")
    (tmp_path / "twice.yaml").write_text("a: 1\na: 2\n")
    told = []
    for load in (hydra_store._load_config, hydra_store._read_config):
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            from hydra.core.global_hydra import GlobalHydra

            repository = ConfigRepository(GlobalHydra.instance().config_loader().get_search_path())
            for name in ("broken", "twice"):
                with pytest.raises(yaml.YAMLError) as raised:
                    load(repository, name)
                told.append(str(raised.value))
    assert told[:2] == told[2:]
    assert "expected ',' or ']'" in told[0]


def test_no_file_says_whether_there_is_a_sweep():
    for file in CONF.rglob("*.yaml"):
        assert OmegaConf.select(OmegaConf.load(file), "hydra.mode") is None, file


def test_a_sweep_may_be_asked_for_by_its_key(commands):
    done = commands.run("hydra.mode=MULTIRUN", "rounds=3", "seed=4", "hydra.sweep.dir=here")
    assert done.returncode == 0, done.stderr
    assert commands.summary("here/0")["seed"] == 4


@pytest.mark.parametrize("named", ["--config-dir={}", "hydra.searchpath=[file://{}]"])
def test_an_experiment_of_ones_own_may_ask_for_a_sweep(commands, tmp_path, named):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nrounds: 2\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '3,4'}}, sweep: {dir: here}}\n"
    )
    done = commands.run(named.format(tmp_path), "experiment=mine")
    assert done.returncode == 0, done.stderr
    assert [commands.summary(f"here/{number}")["seed"] for number in range(2)] == [3, 4]


def test_the_benchmark_shows_medians():
    options = argparse.Namespace(repetitions=1, commands=["--help", "mistyped key"])
    table = startup.measure(options)
    columns = [list(column.cells) for column in table.columns]
    assert columns[:2] == [["--help", "mistyped key"], ["--help", "optimzer.lr=1"]]
    assert all(cell.endswith(" s") for column in columns[2:] for cell in column)
    with pytest.raises(GeojaxError, match="ended with 2: error: optimzer"):
        startup.cost(["optimzer.lr=1"], 0)
