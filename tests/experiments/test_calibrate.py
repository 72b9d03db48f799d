"""The calibration: its table of cases, its fit, its runs and its report."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import sys

import pytest

from experiments.calibrate import __main__ as calibrate
from experiments.calibrate import figures, frozen, history, report, table
from experiments.calibrate.cases import FITTED, HELD_OUT, LONGEST_S
from experiments.calibrate.figures import Emulated
from experiments.calibrate.fit import CONSTANTS, Constant, Fit, defaults, fit, relative_error
from experiments.calibrate.outcome import Outcome, explain
from experiments.calibrate.report import Origin, blocks, to_document, to_terminal
from experiments.calibrate.runs import Measurement, Runs, read, simulated
from experiments.calibrate.table import CASES, chosen
from experiments.runs import records, schema
from experiments.train import children
from geojax.errors import ConfigError, GeojaxError
from testbed import run as testbed_run
from testbed.wan.build import build_wan

GOLDEN = pathlib.Path(__file__).with_name("calibration_golden.md")
PARTS = {part: [case for case in CASES if case.part == part] for part in (FITTED, HELD_OUT)}
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def short(name: str, rounds: int = 2):
    (case,) = chosen([name])
    return dataclasses.replace(case, rounds=rounds)


# ---- the cases


@each_case
@pytest.mark.parametrize("testbed", ["simulated", "emulated"])
def test_every_case_could_start(case, testbed):
    testbed_run.check(case.config(testbed))


def test_there_are_enough_cases_in_both_parts_each_with_a_name():
    assert all(len(cases) >= 10 for cases in PARTS.values())
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_held_out_cases_have_what_the_fitted_ones_lack():
    fitted, held_out = (
        {case.overlay for case in PARTS[part]}
        | {f"{key}={value}" for case in PARTS[part] for key, value in case.settings}
        for part in (FITTED, HELD_OUT)
    )
    wanted = {"star", "sharded_star", "netstorm", "packing", "ring", "sync=hfa", "compression=fp16"}
    assert held_out >= wanted
    assert fitted == {"star", "sharded_star", "overlay.routes=fewest_hops"}
    for part, some in ((FITTED, False), (HELD_OUT, True)):
        cases = PARTS[part]
        assert any(case.wan().loss for case in cases) == some
        assert any(case.config("simulated").lan.workers > 1 for case in cases) == some


@pytest.mark.parametrize("part", [FITTED, HELD_OUT])
def test_each_part_has_every_kind(part):
    found = {trait for case in PARTS[part] for trait in case.traits()}
    assert found >= {"dense", "sparse", "static", "dynamic", "large"}


@pytest.mark.parametrize(
    "values",
    [lambda case: case.rates(), lambda case: case.delays(), lambda case: [case.nbytes]],
    ids=["rates", "delays", "sizes"],
)
def test_the_held_out_cases_have_values_of_their_own(values):
    known, held_out = ({v for c in PARTS[p] for v in values(c)} for p in (FITTED, HELD_OUT))
    assert known
    assert held_out
    assert not known & held_out


@each_case
def test_rates_change_during_a_run_exactly_if_the_case_is_dynamic(case):
    config = case.config("simulated")
    changes = build_wan(config.wan, config.lan, config.seed).changes()
    first = next(changes, None)
    assert ("dynamic" in case.traits()) == (first is not None and first.at < LONGEST_S / 2)


@each_case
def test_both_testbeds_run_one_configuration(case):
    simulated, emulated = case.config("simulated"), case.config("emulated")
    simulated.testbed.name = "emulated"
    assert simulated == emulated


@each_case
def test_a_case_has_a_chunk_for_every_center(case):
    config = case.config("simulated")
    centers = len(build_wan(config.wan, config.lan, config.seed).centers)
    chunks = case.nbytes / 4 / case.chunk_elements
    assert chunks >= centers * 0.99 or case.overlay == "star"


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'net9-all'"):
        chosen(["net9-al"])


# ---- the fit

FAST = ("mesh4-large-star", "capped5-star")


def quick(case, constants=None):
    return _mean(case, *(constants or {}).items())


@functools.cache
def _mean(case, *constants):
    return simulated(case, dict(constants)).mean


def test_size_only_runs_have_the_times_of_dense_ones(tmp_path):
    case = short("mesh6-star-redrawn")
    summary = testbed_run.run(case.config("simulated"), tmp_path)
    assert quick(case) == summary["sync_s"]["mean"]


def test_the_fit_finds_the_constants_behind_simulated_measurements():
    truth = {**defaults(), "testbed.goodput_factor": 0.925}
    cases = [short(name, rounds=1) for name in FAST]
    found = fit({case: quick(case, truth) for case in cases}, quick)
    assert found.values == truth
    assert found.error == pytest.approx(0.0, abs=1e-9)
    assert found.default_error > 0.02
    assert found.at_edge == ()


def test_the_fit_keeps_the_defaults_when_they_fit():
    cases = [short(name, rounds=1) for name in FAST]
    found = fit({case: quick(case) for case in cases}, quick)
    assert found.values == defaults()
    assert found.error == found.default_error == 0.0


def test_the_fit_keeps_what_the_measurements_do_not_tell():
    def blind(case, constants):
        return 1.0 / constants["testbed.goodput_factor"]

    found = fit({short(FAST[0]): 1.0 / 0.98}, blind)
    assert found.values == {**defaults(), "testbed.goodput_factor": 0.98}


def test_the_fit_goes_back_to_a_constant_when_another_has_moved():
    constants = (
        Constant("testbed.goodput_factor", "", tuple(v / 10 for v in range(1, 11)), ""),
        Constant("pace.sum_gbps", "", (1.0, 2.0, 4.0), ""),
    )
    first, second = (short(name) for name in FAST)

    def coupled(case, values):
        a, b = values["testbed.goodput_factor"], values["pace.sum_gbps"]
        return a * b if case == first else a + b

    truth = {"testbed.goodput_factor": 0.4, "pace.sum_gbps": 2.0}
    measured = {case: coupled(case, truth) for case in (first, second)}
    assert fit(measured, coupled, constants).values == truth


def test_a_value_at_the_edge_of_its_grid_is_told():
    found = fit({short(FAST[0]): 0.5}, lambda _, constants: 1 / constants["testbed.goodput_factor"])
    assert found.at_edge == ("testbed.goodput_factor",)


def test_the_grids_hold_the_frozen_defaults():
    for constant in CONSTANTS:
        assert constant.default in constant.grid
        assert list(constant.grid) == sorted(constant.grid)


# ---- the runs


class FakeJobs:
    """Stands for the runs' processes: emulated sync times, one run after the other."""

    def __init__(self):
        self.made: list[str] = []
        self.failing: set[str] = set()

    def __call__(self, run_dir):
        testbed, case, _ = run_dir.parts[-3:]
        assert testbed == "emulated"
        self.made.append(case)
        config = schema.load(run_dir / records.CONFIG)
        if case in self.failing:
            records.fail(run_dir, config, "the WAN is not as configured")
            return 1
        times = [2.2, 1.0 + len(self.made) / 100]
        events = [
            {"t": t, "node": "c1", "event": "round", "round": i, "offered": 10.0, "held": 10.0 + t}
            for i, t in enumerate(times)
        ]
        (run_dir / "events.jsonl").write_text("".join(f"{json.dumps(e)}\n" for e in events))
        records.finish(run_dir, config, {"cpu_share": 0.4, "goodput_factor": 0.94})
        return 0


@pytest.fixture
def jobs(monkeypatch):
    fake = FakeJobs()
    monkeypatch.setattr(children, "run_job", fake)
    return fake


def test_repetitions_are_found_again_unless_the_emulated_run_would_differ(tmp_path, jobs):
    case = short("net9-all")

    def found():
        return Runs(tmp_path, ["testbed.goodput_factor"], lambda _: None)

    runs = found()
    assert runs.empty
    runs.run(case)
    runs.run(case)
    assert not runs.empty
    assert [runs.missing(case, wanted) for wanted in (1, 2, 3)] == [0, 0, 1]
    assert runs.missing(dataclasses.replace(case, rounds=9), 2) == 2
    path = tmp_path / "emulated" / case.name / "2" / records.CONFIG
    config = schema.load(path)
    config.testbed.goodput_factor = 0.5  # the default of an earlier calibration
    schema.save(config, path)
    assert found().missing(case, 2) == 0
    config.testbed.congestion_control = "reno"
    schema.save(config, path)
    assert found().missing(case, 2) == 1


def test_a_failed_repetition_is_told_and_made_again(tmp_path, jobs):
    case, runs = short("net9-all"), Runs(tmp_path, [], lambda _: None)
    jobs.failing = {case.name}
    with pytest.raises(GeojaxError, match="net9-all: the WAN is not as configured"):
        runs.run(case)
    assert runs.missing(case, 1) == 1
    jobs.failing = set()
    runs.run(case)
    assert runs.missing(case, 1) == 0
    assert read(tmp_path / "emulated" / case.name / "2").rounds == pytest.approx((2.2, 1.02))


MORE = ("mesh4-large-star", "net9-all")


@pytest.fixture
def command(monkeypatch, tmp_path, jobs):
    """The command, without machine and long runs: two fitted cases and two held-out ones."""
    monkeypatch.setattr(calibrate, "DOCUMENT", tmp_path / "docs" / "calibration.md")
    monkeypatch.setattr(calibrate, "FIGURES", tmp_path / "docs" / "calibration.json")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("testbed.emulated.probe.why_not", lambda: None)
    monkeypatch.setattr(calibrate, "facts", lambda: {"date": "2020-01-01", "machine": "mine"})
    few = (*chosen(list(MORE)), *PARTS[HELD_OUT][:2])
    monkeypatch.setattr(calibrate, "CASES", few)
    monkeypatch.setattr(table, "CASES", few)
    monkeypatch.setattr(calibrate, "simulated", lambda *_: Measurement((2.0, 1.0)))
    monkeypatch.setattr(calibrate, "fit", lambda *_: Fit(defaults(), defaults(), 0.1, 0.1, 9, ()))

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["calibrate", *arguments])
        with pytest.raises(SystemExit) as ended:
            calibrate.main()
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run


def documents():
    return [
        pathlib.Path("docs", name).read_text() for name in ("calibration.md", "calibration.json")
    ]


def test_the_command_makes_all_runs_once_and_writes_the_document(command, jobs, capsys):
    assert command("--output", "out", "--repetitions", "2") == 0
    assert jobs.made == [case.name for case in calibrate.CASES] * 2  # repetition after repetition
    page, kept = documents()
    assert page == pathlib.Path("out/calibration.md").read_text()
    assert kept == pathlib.Path("out/calibration.json").read_text()
    assert "`python -m experiments.calibrate --repetitions 2`" in page
    assert "Held out, 2 cases" in capsys.readouterr().out

    jobs.made.clear()
    assert command("--output", "out", "--repetitions", "2") == 2  # never overwritten
    assert "add --resume" in capsys.readouterr().err
    assert command("--output", "out", "--repetitions", "2", "--resume") == 0
    assert jobs.made == []
    assert documents() == [page, kept]


def test_held_out_cases_are_judged_beside_kept_figures(command, jobs, monkeypatch):
    assert command("--output", "first", "--repetitions", "1") == 0
    _, before = documents()
    jobs.made.clear()
    monkeypatch.setattr(calibrate, "facts", lambda: {"date": "2020-02-02", "machine": "mine"})
    assert command("--output", "out", "--held-out", "--repetitions", "1") == 0
    assert jobs.made == [case.name for case in calibrate.CASES[2:]]
    page, after = documents()
    assert "`python -m experiments.calibrate --held-out --repetitions 1`" in page
    first, second = json.loads(before), json.loads(after)
    for case in calibrate.CASES[:2]:
        assert second[case.name] == first[case.name]
    dates = [entry["emulated"]["date"] for entry in second.values()]
    assert dates == ["2020-01-01"] * 2 + ["2020-02-02"] * 2


def test_the_page_can_be_made_again_from_kept_figures_alone(command, jobs):
    assert command("--output", "out", "--repetitions", "1") == 0
    page, kept = documents()
    jobs.made.clear()
    assert command("--output", "again", "--recorded", "--fit") == 0
    assert jobs.made == []
    again, still = documents()
    assert still == kept
    rows = [line for line in page.splitlines() if line.startswith("| mesh4-large-star |")]
    assert rows == [line for line in again.splitlines() if line.startswith("| mesh4-large-star |")]
    assert "The frozen defaults are the fit." in again
    assert "The frozen defaults are the fit." not in page


def test_cases_without_figures_are_predicted(command, jobs):
    assert command("--output", "out", "--recorded", "--docs", "page.md") == 0
    assert jobs.made == []
    page = pathlib.Path("page.md").read_text()
    assert "No held-out case has been emulated yet" in page
    assert f"| {PARTS[HELD_OUT][0].name} | 1.5 | – | 0 | – |" in page
    assert json.loads(pathlib.Path("page.json").read_text()) == {}


def test_kept_figures_of_another_configuration_are_refused(command, capsys, monkeypatch):
    assert command("--output", "out", "--repetitions", "1") == 0
    longer = dataclasses.replace(calibrate.CASES[0], rounds=99)
    monkeypatch.setattr(table, "CASES", (longer, *calibrate.CASES[1:]))
    assert command("--output", "again", "--recorded") == 2
    assert "emulate this case again" in capsys.readouterr().err


def test_some_cases_leave_the_document_alone(command):
    assert command("--output", "out", "--repetitions", "1", "--only", *MORE) == 0
    assert not pathlib.Path("docs").exists()
    page = pathlib.Path("out/calibration.md").read_text()
    assert "--only mesh4-large-star net9-all" in page
    assert "No held-out case has been emulated yet" in page


def test_a_failed_case_is_shown_and_the_others_go_on(command, jobs, capsys):
    failing = calibrate.CASES[2].name
    jobs.failing = {failing}
    assert command("--output", "out", "--repetitions", "1") == 1
    assert not pathlib.Path("docs").exists()
    text = pathlib.Path("out/calibration.md").read_text()
    assert f"failed: {failing}: the WAN is not as configured" in text
    assert "Held out, 1 case:" in text
    assert "Without a result: 1 case." in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--only", "mesh"], "--only"), (["--repetitions", "0"], "--repetitions")],
)
def test_wrong_arguments_are_refused_before_anything_runs(command, jobs, capsys, arguments, words):
    assert command("--output", "out", *arguments) == 2
    assert words in capsys.readouterr().err
    assert jobs.made == []


def test_a_machine_that_cannot_emulate_is_told(command, jobs, monkeypatch, capsys):
    monkeypatch.setattr("testbed.emulated.probe.why_not", lambda: "emulation needs root")
    assert command("--output", "out") == 2
    assert "emulation needs root" in capsys.readouterr().err
    assert jobs.made == []


def test_the_cases_are_listed(command, capsys):
    assert command("--list") == 0
    shown = capsys.readouterr().out
    assert all(case.name in shown for case in calibrate.CASES)


# ---- the report


def outcome(name="mesh9-small-star", simulated=(1.0, 1.0), emulated=((1.0, 1.0),), **measured):
    made = [Measurement(rounds, **measured) for rounds in emulated]
    kept = figures.emulated(made, "2020-01-01", "mine")
    return Outcome(chosen([name])[0], Measurement(simulated), kept)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (outcome(), ""),
        (outcome(cpu_share=0.69), ""),
        (outcome(cpu_share=0.71), "CPU 71% busy"),
        (outcome(emulated=((1.0, 0.9), (1.0, 1.1))), "repetitions differ by ±7%"),
        (
            outcome(simulated=(1.5, 1.0), emulated=((1.0, 1.0),)),
            "100% of it from the first round: 1.5 s simulated, 1 s emulated",
        ),
        (outcome(simulated=(1.0, 0.9), goodput_factor=0.92), "single flows got 0.920"),
        (outcome(simulated=(1.0, 0.9), goodput_factor=0.98), ""),  # would make it too slow
        (outcome(simulated=(1.3, 1.3)), "misses the goal, and no figure here tells why"),
    ],
)
def test_what_the_figures_say(given, words):
    said = explain(given, 0.95)
    assert words in said
    assert bool(words) == bool(said)


def test_errors_are_relative_to_the_emulated_mean_of_all_rounds():
    given = outcome(simulated=(3.0, 1.0), emulated=((4.0, 2.0), (4.0, 6.0)))
    assert given.emulated == Emulated(4.0, 2**0.5, 4.0, 2, None, None, "2020-01-01", "mine")
    assert given.error == relative_error(2.0, 4.0) == -0.5
    assert given.first_rounds == (3.0, 4.0)


def test_figures_are_read_as_they_were_written(tmp_path):
    case = chosen(["net9-all"])[0]
    made = outcome("net9-all", cpu_share=0.4, goodput_factor=0.94).emulated
    assert made is not None
    figures.save(tmp_path / "f.json", {case: made})
    assert figures.load(tmp_path / "f.json", CASES) == {case: made}
    assert figures.load(tmp_path / "none.json", CASES) == {}


def test_the_kept_figures_are_those_of_the_cases():
    kept = figures.load(calibrate.FIGURES, CASES)
    assert set(PARTS[FITTED]) <= set(kept)
    assert all(each.repetitions == 3 and each.mean > 0 for each in kept.values())


def test_the_page_has_all_cases_and_the_whole_history():
    page = calibrate.DOCUMENT.read_text()
    assert all(f"\n| {case.name} |" in page for case in CASES)
    assert all(paragraph in page for paragraph in history.HISTORY)


def a_report(monkeypatch):
    """Of two fitted cases and three that stand for held-out ones."""
    chosen_as = [
        (outcome("net9-all", (3.1, 3.0), ((3.2, 3.1), (3.1, 3.1)), cpu_share=0.41), FITTED),
        (
            outcome(
                "mesh9-small-star", (0.3, 0.2), ((0.31, 0.22), (0.3, 0.22)), cpu_share=0.83
            ),
            HELD_OUT,
        ),
        (outcome("capped6-all", (2.0, 1.6), ((1.5, 1.5),)), HELD_OUT),
        (Outcome(chosen(["sparse8-star"])[0], None, None, "sparse8-star: no root"), HELD_OUT),
    ]  # fmt: skip
    outcomes = [
        dataclasses.replace(o, case=dataclasses.replace(o.case, part=part)) for o, part in chosen_as
    ]
    monkeypatch.setattr(report, "HISTORY", ("What was seen.",))
    monkeypatch.setattr(report, "FREEZE", "0123abc")
    found = Fit(
        {**defaults(), "testbed.goodput_factor": 0.94, "pace.sum_gbps": 8.0},
        defaults(), 0.0125, 0.0319, 48, ("pace.sum_gbps",),
    )  # fmt: skip
    origin = Origin("python -m experiments.calibrate", {"date": "2020-01-01", "machine": "2 cores"})
    return blocks(outcomes, found, origin)


def test_the_document_is_the_golden_one(monkeypatch):
    assert to_document(a_report(monkeypatch)) == GOLDEN.read_text()


def test_the_terminal_shows_the_same_verdict(monkeypatch):
    shown = to_terminal(a_report(monkeypatch))
    assert "mean absolute error 12.4%" in shown
    assert "capped6-all with +20.0% (goal ≤ 12%: missed)" in shown


def test_a_default_that_moved_after_the_freeze_is_told(monkeypatch):
    monkeypatch.setitem(frozen.VALUES, "testbed.goodput_factor", 0.9)
    text = to_document(a_report(monkeypatch))
    assert "the defaults of testbed.goodput_factor have changed" in text
    assert "Today's defaults are the frozen ones" not in text


def test_without_a_fit_the_report_has_no_column_for_it():
    text = to_document(blocks([outcome()], None, Origin("c", {})))
    assert "| fit |" not in text
    assert "No held-out case has been emulated yet" in text
    assert "Mean absolute error 0.0%" in text
