"""The comparison: seeds in one row, speed-ups, what is missed, failed or scaled; five formats."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
from run_folders import write_run

from experiments.table import __main__ as table
from experiments.table.formats import FORMATS, _folded
from geojax.errors import GeojaxError

FSA = {"sync.name": "fsa"}
LOCAL = {"sync.name": "local_steps", "sync.local_steps": 10}
TARGET = {"target_accuracy": 0.8}


@pytest.fixture
def sweep(tmp_path) -> pathlib.Path:
    """Three seeds of FSA, three of local steps (one missed its target), one failed run."""
    fsa = zip((0.90, 0.91, 0.92), (96.0, 112.0, 128.0), strict=True)
    for seed, (accuracy, reached) in enumerate(fsa):
        write_run(
            tmp_path / f"{seed}",
            FSA | {"seed": seed},
            **TARGET,
            final_accuracy=accuracy,
            time_to_target_s=reached,
            rounds=400,
            sync_s={"mean": 0.1773},
            wan_bytes=1_144_000_000,
            an_unknown_figure={"of": ["another", "version"]},
        )
    for seed, reached in enumerate((20.0, None, 36.0)):
        time = {} if reached is None else {"time_to_target_s": reached}
        write_run(
            tmp_path / f"{seed + 3}",
            LOCAL | {"seed": seed},
            **TARGET,
            **time,
            final_accuracy=0.85,
            rounds=60,
            sync_s={"mean": 0.1773},
            wan_bytes=171_600_000,
        )
    write_run(
        tmp_path / "10",
        LOCAL | {"lr": 9.0},
        status="failed",
        error="c2: loss is not finite\nat step 3",
    )
    return tmp_path


GOLDENS = pathlib.Path(__file__).parent / "goldens"
BASELINE = {"sync": "fsa"}


@pytest.mark.parametrize(
    ("name", "format_"), [("table.txt", "rich"), ("table.md", "md"), ("table.csv", "csv"),
    ("table.json", "json"), ("table.tex", "latex")]
)  # fmt: skip
def test_formats(sweep, name, format_):
    text = FORMATS[format_](table.build([sweep], baseline=BASELINE))
    assert text == (GOLDENS / name).read_text()


def test_one_seed_has_no_deviation_and_no_seed_column(tmp_path):
    write_run(tmp_path / "a", FSA, **TARGET, final_accuracy=0.5, balance=0.994)
    (header, _, row) = FORMATS["md"](table.build([tmp_path])).splitlines()
    assert header == "| wan | testbed | accuracy | time to target (s) | balance |"
    assert row == "| three_centers | simulated | 0.500 | missed | 0.99 |"


def test_rounds_are_federated_rounds_where_those_take_two_exchanges(tmp_path):
    for name, rounds in (("ida", 31), ("fedavg", 16)):
        write_run(
            tmp_path / name, {"sync.name": name}, **TARGET, final_accuracy=0.9, rounds=rounds,
            time_to_target_s=4.0, rounds_to_target=rounds - 3, steps=rounds,
        )  # fmt: skip
    built = table.build([tmp_path], columns=["rounds", "rounds_to_target", "steps"])
    rows = {row["sync"]: row for row in built.values}
    found = {name: (row["rounds"], row["rounds_to_target"]) for name, row in rows.items()}
    assert found == {"ida": (16, 14), "fedavg": (16, 13)}
    assert (rows["ida"]["steps"], rows["ida"]["note"]) == (31, "2 exchanges a federated round")
    assert rows["fedavg"]["note"] == ""


def test_no_target_is_not_a_missed_target(tmp_path):
    write_run(tmp_path / "a", FSA, final_accuracy=0.5)
    assert "missed" not in FORMATS["md"](table.build([tmp_path]))


def test_settings_that_follow_from_the_wan_get_no_column(tmp_path):
    write_run(tmp_path / "a", {"wan.name": "two", "wan.centers": ["x", "y"], "lan.workers": 1})
    write_run(tmp_path / "b", {"wan.name": "one", "wan.centers": ["x"], "lan.workers": 3})
    write_run(tmp_path / "c", {"wan.name": "one", "wan.centers": ["x"], "lan.workers": 4})
    names = [column.key for column in table.build([tmp_path]).columns]
    assert names == ["wan", "lan.workers", "testbed"]


def test_scales_are_shown_when_they_are_not_one(tmp_path):
    write_run(tmp_path / "a", {"wan.bandwidth_scale": 0.1}, wall_s=1.0)
    names = [column.key for column in table.build([tmp_path]).columns]
    assert names == ["wan", "testbed", "wan.bandwidth_scale"]


@pytest.mark.parametrize(("violations", "marked"), [(10, False), (11, True)])
def test_a_pace_not_kept_marks_the_row(tmp_path, violations, marked):
    write_run(tmp_path / "a", FSA, pace_violations=violations, steps=1000)
    text = FORMATS["md"](table.build([tmp_path], columns=["steps"]))
    assert ("pace not kept in 1 % of steps" in text) == marked


def test_some_failed_seeds_are_counted(tmp_path):
    write_run(tmp_path / "0", {"seed": 0}, final_accuracy=0.9)
    write_run(tmp_path / "1", {"seed": 1}, status="failed", error="lost", final_accuracy=0.1)
    text = FORMATS["md"](table.build([tmp_path]))
    assert "| 1/2 | 0.900 | 1 of 2 failed: lost |" in text


def test_speed_up_is_by_sync_time_when_nothing_is_trained(tmp_path):
    for name, mean in (("star", 2.0), ("ring", 0.5)):
        write_run(tmp_path / name, {"overlay.name": name}, sync_s={"mean": mean})
    rows = table.build([tmp_path], baseline={"overlay": "star"}).values
    assert {row["overlay"]: row["speed_up"] for row in rows} == {"star": 1.0, "ring": 4.0}


def test_each_row_is_compared_with_its_own_wan_and_testbed(tmp_path):
    times = {("near", "simulated"): 10.0, ("far", "simulated"): 80.0, ("far", "emulated"): 100.0}
    for (wan, testbed), seconds in times.items():
        for sync, factor in (("fsa", 1.0), ("local_steps", 0.5)):
            settings = {"wan.name": wan, "testbed.name": testbed, "sync.name": sync}
            figures = {"final_accuracy": 0.9, "time_to_target_s": seconds * factor}
            write_run(tmp_path / f"{wan}-{testbed}-{sync}", settings, **figures)
    rows = table.build([tmp_path], baseline={"sync": "fsa"}).values
    assert [row["speed_up"] for row in rows if row["sync"] == "local_steps"] == [2.0] * 3


def test_an_ambiguous_baseline_gives_no_speed_up(tmp_path):
    for index, (sync, lr) in enumerate([("fsa", 0.1), ("fsa", 0.2), ("local_steps", 0.3)]):
        figures = {"final_accuracy": 0.9, "time_to_target_s": 5.0}
        write_run(tmp_path / str(index), {"sync.name": sync, "lr": lr}, **figures)
    rows = table.build([tmp_path], baseline={"sync": "fsa"}).values
    assert [row["speed_up"] for row in rows] == [1.0, 1.0, None]


def test_runs_without_configuration_or_with_damaged_summary_are_shown(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "summary.json").write_text(
        '{"status": "finished", "wan": "far", "testbed": "local", "axes": {"sync": "fsa"}, '
        '"seed": 3, "final_accuracy": 0.7}'
    )
    write_run(tmp_path / "torn", {"wan.name": "near"})
    (tmp_path / "torn" / "summary.json").write_text('{"status": "fin')
    write_run(tmp_path / "running", {"wan.name": "near"})
    (tmp_path / "running" / "summary.json").unlink()
    text = FORMATS["md"](table.build([tmp_path]))
    assert "| far | local | 0.700 |" in text
    assert "failed: summary.json holds no JSON object" in text
    assert text.endswith("1 unfinished runs (no summary.json) are left out\n")


def test_a_resumed_job_stands_for_its_run_once(tmp_path):
    write_run(tmp_path / "first" / "0", FSA, final_accuracy=0.9)
    (tmp_path / "second" / "0").mkdir(parents=True)
    pointer = {"run_dir": str(tmp_path / "first" / "0")}
    (tmp_path / "second" / "0" / "elsewhere.json").write_text(json.dumps(pointer))
    for folders in ([tmp_path / "second"], [tmp_path], [tmp_path / "first", tmp_path / "second"]):
        (row,) = table.build(folders).values
        assert (row["runs"], row["final_accuracy"]) == (1, 0.9)


def test_testbeds_side_by_side(tmp_path):
    for testbed, factor in (("emulated", 1.1), ("simulated", 1.0)):
        for sync, seconds in (("fsa", 100.0), ("local_steps", None)):
            settings = {"testbed.name": testbed, "sync.name": sync}
            time = {} if seconds is None else {"time_to_target_s": seconds * factor}
            write_run(
                tmp_path / f"{testbed}-{sync}", settings, **TARGET, **time, final_accuracy=0.81,
                sync_s={"mean": 0.2 * factor},
            )  # fmt: skip
    built = table.build([tmp_path], side_by_side="testbed")
    assert FORMATS["md"](built) == (
        "| sync | wan | time to target (s) simulated | time to target (s) emulated "
        "| emulated ÷ simulated | accuracy simulated | accuracy emulated "
        "| sync (s) simulated | sync (s) emulated | emulated ÷ simulated |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| fsa | three_centers | 100 | 110 | 1.10 | 0.810 | 0.810 | 0.200 | 0.220 | 1.10 |\n"
        "| local_steps | three_centers | missed | missed | – | 0.810 | 0.810 "
        "| 0.200 | 0.220 | 1.10 |\n"
    )
    assert built.values[0]["time_to_target_s@emulated/simulated"] == pytest.approx(1.1)


def test_side_by_side_shows_what_one_testbed_lacks(tmp_path):
    for name in ("near", "far"):
        settings = {"experiment": name, "wan.name": name}
        write_run(tmp_path / name, settings, sync_s={"mean": 0.2})
    failed = {"experiment": "far", "wan.name": "far", "testbed.name": "emulated"}
    write_run(tmp_path / "x", failed, status="failed", error="no root")
    lines = FORMATS["md"](table.build([tmp_path], side_by_side="testbed")).splitlines()
    assert lines[2:] == [
        "| far | 0.200 | – | – | emulated failed: no root |",
        "| near | 0.200 | – | – |  |",
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"baseline": {"snc": "fsa"}}, "--baseline = 'snc': did you mean 'sync'?"),
        ({"baseline": {"sync": "esync"}}, "--baseline sync=esync: no run has these settings"),
        ({"columns": ["final_acuracy"]}, "--columns = 'final_acuracy': did you mean 'final_acc"),
        ({"side_by_side": "testbd"}, "--pivot = 'testbd': did you mean 'testbed'?"),
    ],
)
def test_wrong_names_are_refused_with_the_nearest(sweep, wrong, told):
    with pytest.raises(GeojaxError) as refused:
        table.build([sweep], **wrong)
    assert str(refused.value).startswith(told)


def run_command(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "experiments.table", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command(sweep, tmp_path):
    golden = (GOLDENS / "table.md").read_text()
    done = run_command(sweep, "--format", "md", "--baseline", "sync=fsa,lr=0.01")
    assert (done.returncode, done.stdout, done.stderr) == (0, golden, "")
    nothing = run_command(tmp_path / "nowhere")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr == f"error: no such folder: {tmp_path / 'nowhere'}\n"


def test_a_narrow_terminal_gets_blocks_and_no_broken_words(sweep):
    """Every row is in every block, whole; what all rows have is told once."""
    text = _folded(table.build([sweep], baseline=BASELINE), 80)
    assert text.startswith("all rows: wan three_centers, testbed simulated\n")
    assert max(map(len, text.splitlines())) <= 80
    blocks = text.split("\n\n")
    assert len(blocks) == 3
    for block in blocks:
        rows = [line.split()[:2] for line in block.splitlines() if "0.01" in line or "9.0" in line]
        assert rows == [["fsa", "0.01"], ["local_steps", "0.01"], ["local_steps", "9.0"]]
    assert "28.0 ± 11.3 (2/3)" in text


def test_one_row_and_figures_that_are_equal_keep_their_columns(tmp_path):
    write_run(tmp_path / "a", FSA, rounds=3)
    assert "three_centers" in FORMATS["rich"](table.build([tmp_path])).splitlines()[-1]
    write_run(tmp_path / "b", LOCAL, rounds=3)
    text = FORMATS["rich"](table.build([tmp_path]))
    assert text.startswith("all rows: wan three_centers")
    assert "rounds" in text.splitlines()[1]
