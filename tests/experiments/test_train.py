"""One run: a fresh child, its records, its exit code; nothing is ever overwritten."""

from __future__ import annotations

import os
import re

import pytest

from experiments.runs import schema, stored

FINISHED, FAILS, BREAKS, DIES, REFUSED = 3, 13, 14, 15, 0  # rounds; see the stand-in


def only_folder(commands, below):
    (folder,) = (commands.folder / below).iterdir()
    return folder


def test_a_run_leaves_its_configuration_and_summary(commands):
    done = commands.run(f"rounds={FINISHED}", "seed=4", "experiment=smoke")
    assert (done.returncode, done.stderr) == (0, "")
    run_dir = only_folder(commands, "outputs/smoke")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}", run_dir.name)
    assert f"finished: {run_dir}" in done.stdout
    config = schema.load(run_dir / "config.yaml")
    assert (config.rounds, config.seed, config.experiment) == (FINISHED, 4, "smoke")
    summary = commands.summary(str(run_dir))
    assert summary.pop("versions")["jax"]
    assert "jax" not in summary.pop("modules")
    assert summary == {
        "status": "finished",
        "config_hash": stored.config_hash(config),
        "experiment": "smoke",
        "testbed": "simulated",
        "seed": 4,
        "axes": {
            "compression": "dense",
            "sync": "local_steps",
            "overlay": "star",
            "selection": "everyone",
        },
        "model": "mlp",
        "wan": "three_centers",
        "bandwidth_scale": 1.0,
        "delay_scale": 1.0,
        "rounds": FINISHED,
        "target_accuracy": 0.8,
        "final_accuracy": 0.9,
        "time_to_target_s": 30.0,
    }


def test_an_experiment_file_of_ones_own_names_its_runs(commands):
    (commands.folder / "more" / "experiment").mkdir(parents=True)
    (commands.folder / "more" / "experiment" / "mine.yaml").write_text(
        f"# @package _global_\nrounds: {FINISHED}\n"
    )
    done = commands.run("--config-dir", "more", "experiment=mine")
    assert done.returncode == 0
    assert commands.summary(str(only_folder(commands, "outputs/mine")))["experiment"] == "mine"


@pytest.mark.parametrize(
    ("rounds", "error", "shown"),
    [
        (FAILS, "center c2 was lost", "error: center c2 was lost\n"),
        (BREAKS, "ValueError: a defect", "ValueError: a defect\n"),
        (DIES, "the run's process ended by signal 9 without a summary", ""),
    ],
)
def test_a_failed_run_is_recorded_and_exits_with_1(commands, rounds, error, shown):
    done = commands.run(f"rounds={rounds}", "hydra.run.dir=here")
    summary = commands.summary("here")
    assert (done.returncode, summary["status"], summary["error"]) == (1, "failed", error)
    assert summary["seed"] == 0
    assert done.stderr.endswith(shown)
    assert ("Traceback" in done.stderr) == (rounds == BREAKS)
    assert "failed: " in done.stdout


def test_a_wrong_key_is_one_line(commands):
    done = commands.run("optimzer.lr=1", "hydra.run.dir=here")
    line = "error: optimzer.lr: did you mean 'optimizer.lr'?\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_a_refused_configuration_starts_nothing(commands):
    done = commands.run(f"rounds={REFUSED}", "hydra.run.dir=here")
    line = "error: rounds = 0: must be 1 or more\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert not (commands.folder / "here").exists()


def test_help_lists_groups_keys_and_examples(commands):
    done = commands.run("--help")
    assert done.returncode == 0
    assert re.search(r"testbed +emulated, local, simulated", done.stdout)
    for text in ("overlay.chunk_elements", "experiment=demo", "hydra/launcher=joblib", "--cfg"):
        assert text in done.stdout
    assert "base_" not in done.stdout


def test_the_parent_never_imports_jax(commands):
    script = (
        "import sys; from experiments import train, table, demo; import testbed.run\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "sys.exit(bool(loaded & {'jax', 'jaxlib', 'flax', 'optax'}))"
    )
    (commands.folder / "probe.py").write_text(script)
    real = {**commands.environment, "PYTHONPATH": os.pathsep.join(reversed_path(commands))}
    assert type(commands)(commands.folder, real).run(module="probe").returncode == 0


def reversed_path(commands):
    """The project before the stand-in: so that the real testbed is found."""
    return reversed(commands.environment["PYTHONPATH"].split(os.pathsep))
