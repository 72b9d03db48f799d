"""The experiments on overlays: every row is valid, and a tiny version of each has its table."""

from __future__ import annotations

import functools
import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from experiments.runs import records, schema
from experiments.runs.choices import CONF, choices
from experiments.runs.stored import flatten
from experiments.table import __main__ as table
from geojax.config import to_dict
from geojax.errors import ConfigError
from testbed.run import check, run

ROOT = CONF.parent
TRAINED = ("netstorm_static", "netstorm_dynamic")
OVERLAYS = {
    "overlay_bench": ["star", "mlnet", "tsengine", "ring", "netstorm", "packing"],
    **{
        name: ["star", "sharded_star", "mlnet", "tsengine", "ring", "netstorm", "packing"]
        for name in TRAINED
    },
}
ABLATION = {  # what each row changes in the first
    "complete": {},
    "roots_1": {"overlay.roots": 1},
    "roots_3": {"overlay.roots": 3},
    "one_plan": {"overlay.replan": False},
    "measured": {"overlay.awareness": "measured"},
    "measured_without_probes": {"overlay.awareness": "measured", "overlay.probe_after": 0},
    "auxiliary_fastest": {"overlay.auxiliary": "fastest"},
    "auxiliary_random": {"overlay.auxiliary": "random"},
    "published": {
        "overlay.awareness": "measured",
        "overlay.probe_after": 0,
        "overlay.auxiliary": "fastest",
        "overlay.auxiliary_rule": "once",
    },
}
WANS = ["netstorm9_draw", "netstorm9_dynamic"]
ALL_TO_ALL = ("sharded_star", "multigps", "butterfly")
ROWS = [
    *((name, (f"overlay={overlay}",)) for name, rows in OVERLAYS.items() for overlay in rows),
    *(("overlay_bench", (f"overlay={overlay}",)) for overlay in ALL_TO_ALL),
    *(("overlay_bench", (f"wan={wan}",)) for wan in choices("wan")),
    *(("netstorm_ablation", (f"variant/netstorm_ablation={row}",)) for row in ABLATION),
    *(
        pytest.param(
            "netstorm_ablation",
            (f"variant/netstorm_ablation={row}", f"wan={wan}"),
            marks=[pytest.mark.nightly] * (row != "complete"),
        )
        for row in ABLATION
        for wan in WANS
    ),
]
SMALL = ["model=mlp", "data=digits", "target_accuracy=0.5", "lr=0.01", "wan.bandwidth_scale=0.1",
         "data.test_samples=100", "eval_every_s=0.1", "rounds=40", "model.pace_s=0.1"]  # fmt: skip
TINY = {  # what makes an experiment small, its rows, and the columns of its table
    "overlay_bench": (
        ["model.bytes=400000", "wan=three_centers", "overlay.chunk_elements=4096", "rounds=2",
         "pace.grid_s=5"],
        [[f"overlay={name}"] for name in OVERLAYS["overlay_bench"]],
        ["overlay", "wan", "testbed", "sync (s)", "× bound", "WAN (MB)", "speed-up"],
    ),
    "netstorm_ablation": (
        ["model.bytes=4000000", "rounds=3", "warmup_rounds=1", "wan=netstorm9_draw"],
        [["variant/netstorm_ablation=complete"], ["variant/netstorm_ablation=roots_1"]],
        ["experiment", "overlay.roots", "wan", "testbed", "sync (s)", "sync_s.p95", "× bound",
         "WAN (MB)", "speed-up"],
    ),
    **{
        name: (
            SMALL, [["overlay=star"], ["overlay=netstorm"]],
            ["overlay", "wan", "testbed", "wan.bandwidth_scale", "time to target (s)",
             "rounds to target", "sync (s)", "× bound", "WAN (MB)", "accuracy", "speed-up"],
        ) for name in TRAINED
    },
}  # fmt: skip


def hydra_of(name):
    return OmegaConf.load(CONF / "experiment" / f"{name}.yaml").hydra


def test_sweeps_have_all_their_rows():
    swept = {
        (name, key): value.split(",")
        for name in [*OVERLAYS, "netstorm_ablation"]
        for key, value in hydra_of(name).sweeper.params.items()
    }
    assert swept == {
        **{(name, "overlay"): rows for name, rows in OVERLAYS.items()},
        ("netstorm_ablation", "variant/netstorm_ablation"): list(ABLATION),
        ("netstorm_ablation", "wan"): WANS,
    }
    assert sorted(ABLATION) == choices("variant/netstorm_ablation")


@pytest.mark.parametrize(("name", "words"), ROWS, ids=str)
def test_every_row_is_valid(composed, name, words):
    if words == ("wan=single_center",):
        words = (*words, "lan.workers=3")  # a LAN alone
    check(composed(f"experiment={name}", *words))


@pytest.fixture(scope="module")
def flat(composed):
    return functools.cache(lambda *words: flatten(to_dict(composed(*words))))


@pytest.mark.parametrize("row", ABLATION)
def test_rows_of_the_ablation_differ_in_what_their_names_say(flat, row):
    complete, other = (
        flat("experiment=netstorm_ablation", f"variant/netstorm_ablation={name}")
        for name in ("complete", row)
    )
    changed = {key: value for key, value in other.items() if value != complete[key]}
    assert changed.pop("experiment", "complete") == row
    assert changed == ABLATION[row]


def test_static_and_dynamic_differ_in_the_wan_and_its_grid_alone(flat):
    static, dynamic = (flat(f"experiment={name}") for name in TRAINED)
    changed = {key for key in static if static[key] != dynamic.get(key)}
    assert {key for key in changed if not key.startswith("wan.")} == {"eval_every_s"}
    assert static["wan.bandwidth_scale"] == dynamic["wan.bandwidth_scale"]


def test_a_synchronization_takes_as_long_as_alexnet_s(composed):
    scale = composed("experiment=netstorm_static").wan.bandwidth_scale
    assert scale == pytest.approx(178_762 / 61.1e6, rel=1e-3)


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_version_runs_and_its_table_has_rows_and_columns(composed, tmp_path, name):
    small, rows, columns = TINY[name]
    found = []
    for number, row in enumerate(rows):
        config = composed(f"experiment={name}", *small, *row)
        run_dir = tmp_path / str(number)
        run_dir.mkdir()
        schema.save(config, run_dir / records.CONFIG)
        found.append(run(config, run_dir))
        records.finish(run_dir, config, found[-1])
    shown = hydra_of(name).callbacks.report
    measured = [key for key in shown.columns if key != "cpu_share"]
    built = table.build([tmp_path], columns=measured, baseline=dict(shown.baseline))
    assert [c.header for c in built.columns if c.header != "note"] == columns
    assert [value[columns[0]] for value in built.values] == [
        row[0].partition("=")[2] for row in rows
    ]
    assert built.values[0]["speed_up"] == 1.0
    assert all(one["bound_ratio"] >= 1 for one in found)
    if name in TRAINED:
        assert len({one["rounds_to_target"] for one in found}) == 1
        assert built.values[1]["speed_up"] > 1


def test_the_sweep_of_the_bench_prints_its_own_table(tmp_path):
    words = ["model.bytes=400000", "overlay=netstorm,packing", f"hydra.sweep.dir={tmp_path}/sweep"]
    command = [sys.executable, "-m", "experiments.train", "-m", "experiment=overlay_bench", *words]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    (head,) = [line for line in done.stdout.splitlines() if line.startswith(" overlay")]
    assert " ".join(head.split()) == "overlay sync (s) × bound WAN (MB)"  # no star
    again = f"{tmp_path}/sweep --columns sync_s.mean,bound_ratio,wan_bytes\n"
    assert f"compare again: python -m experiments.table {again}" in done.stdout
    for run_dir in (tmp_path / "sweep" / "0", tmp_path / "sweep" / "1"):
        lines = (run_dir / "events.jsonl").read_text().splitlines()
        rounds = [event for event in map(json.loads, lines) if event["event"] == "round"]
        offers = {(event["round"], event["offered"]) for event in rounds}
        assert len(offers) == 3, "all members offer at one instant"
        assert dict(offers) == pytest.approx({0: 60, 1: 120, 2: 180}, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rounds=3", "warmup_rounds=3"], r"warmup_rounds = 3: give a number from 0 to .* = 2"),
        (["warmup_rounds=-1"], r"warmup_rounds = -1: give a whole number: at least 0"),
        (["target_over=model"], r"target_over = 'model': did you mean 'models'"),
        (
            ["testbed=emulated", "compression=size_only"],
            r"compression.name = 'size_only': .* compression=dense",
        ),
    ],
)
def test_wrong_settings_are_refused(composed, words, told):
    with pytest.raises(ConfigError, match=told):
        check(composed("experiment=overlay_bench", *words))


@pytest.mark.parametrize("experiment", ["overlay_bench", "netstorm_ablation"])
def test_contents_travel_where_connections_are_real(composed, experiment):
    def codec(*words):
        return composed(f"experiment={experiment}", *words).compression.name

    assert [codec(), codec("testbed=local")] == ["size_only", "dense"]
    assert codec("testbed=local", "compression=fp16") == "fp16"
    check(composed(f"experiment={experiment}", "testbed=local"))
