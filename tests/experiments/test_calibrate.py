"""The calibration: its table of cases, its fit, its runs and its report."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys

import pytest

from experiments.calibrate import __main__ as calibrate
from experiments.calibrate import cases as calibration_cases
from experiments.calibrate.cases import CASES, FIT, HELD_OUT, LONGEST_S, chosen
from experiments.calibrate.fit import CONSTANTS, Constant, Fit, defaults, fit, relative_error
from experiments.calibrate.outcome import Outcome, explain
from experiments.calibrate.report import Origin, blocks, to_document, to_terminal
from experiments.calibrate.runs import Measurement, Runs, quick, read
from experiments.runs import records, schema
from experiments.train import children
from geojax.errors import ConfigError, GeojaxError
from testbed import run as testbed_run
from testbed.wan.build import build_wan

GOLDEN = pathlib.Path(__file__).with_name("calibration_golden.md")
HALVES = {half: [case for case in CASES if case.half == half] for half in (FIT, HELD_OUT)}
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def short(name: str, rounds: int = 2):
    (case,) = chosen([name])
    return dataclasses.replace(case, rounds=rounds)


# ---- the cases


@each_case
@pytest.mark.parametrize("testbed", ["simulated", "emulated"])
def test_every_case_could_start(case, testbed):
    testbed_run.check(case.config(testbed))


def test_there_are_enough_cases_in_equal_halves_each_with_a_name():
    assert len(CASES) >= 8
    assert len(HALVES[FIT]) == len(HALVES[HELD_OUT]) == len(CASES) / 2
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("half", [FIT, HELD_OUT])
def test_each_half_has_every_kind(half):
    found = {trait for case in HALVES[half] for trait in case.traits()}
    wanted = {"dense", "sparse", "static", "dynamic", "small", "large", "many-to-one", "all-to-all"}
    assert found >= wanted


@pytest.mark.parametrize(
    "values",
    [lambda case: case.rates(), lambda case: case.delays(), lambda case: [case.nbytes]],
    ids=["rates", "delays", "sizes"],
)
def test_the_held_out_half_has_values_of_its_own(values):
    known, held_out = ({v for c in HALVES[h] for v in values(c)} for h in (FIT, HELD_OUT))
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
    cases = [short(name) for name in FAST]
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
        self.made: list[tuple[str, str]] = []
        self.failing: set[str] = set()

    def __call__(self, run_dir):
        testbed, case, _ = run_dir.parts[-3:]
        self.made.append((testbed, case))
        config = schema.load(run_dir / records.CONFIG)
        if case in self.failing and testbed == "emulated":
            records.fail(run_dir, config, "the WAN is not as configured")
            return 1
        times = [2.0, 1.0, 1.0] if testbed == "simulated" else [2.2, 1.0 + len(self.made) / 100]
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


def test_a_run_in_a_process_of_its_own(tmp_path):
    case = short("mesh4-large-star", rounds=1)
    said: list[str] = []
    measured = Runs(tmp_path, [], said.append).run(case, "simulated")
    assert measured.mean == quick(case)
    assert measured.goodput_factor is None  # the model's own factor is no measurement
    assert said == [f"mesh4-large-star, simulated: mean sync time {measured.mean:.4g} s"]
    summary = records.read_json(tmp_path / "simulated" / case.name / "1" / records.SUMMARY)
    assert (summary["status"], summary["experiment"]) == (records.FINISHED, "calibrate")


def test_repetitions_are_found_again_unless_the_emulated_run_would_differ(tmp_path, jobs):
    case, runs = short("net9-all"), Runs(tmp_path, ["testbed.goodput_factor"], lambda _: None)
    assert runs.empty
    runs.run(case, "emulated")
    runs.run(case, "emulated")
    assert not runs.empty
    assert [runs.missing(case, wanted) for wanted in (1, 2, 3)] == [0, 0, 1]
    assert runs.missing(dataclasses.replace(case, rounds=9), 2) == 2
    path = tmp_path / "emulated" / case.name / "2" / records.CONFIG
    config = schema.load(path)
    config.testbed.goodput_factor = 0.5  # the default of an earlier calibration
    schema.save(config, path)
    assert runs.missing(case, 2) == 0
    config.testbed.congestion_control = "reno"
    schema.save(config, path)
    assert runs.missing(case, 2) == 1


def test_a_failed_repetition_is_told_and_made_again(tmp_path, jobs):
    case, runs = short("net9-all"), Runs(tmp_path, [], lambda _: None)
    jobs.failing = {case.name}
    with pytest.raises(GeojaxError, match="net9-all, emulated: the WAN is not as configured"):
        runs.run(case, "emulated")
    assert runs.missing(case, 1) == 1
    jobs.failing = set()
    runs.run(case, "emulated")
    assert runs.missing(case, 1) == 0
    assert read(tmp_path / "emulated" / case.name / "2").rounds == pytest.approx((2.2, 1.02))


@pytest.fixture
def command(monkeypatch, tmp_path, jobs):
    """The command, without machine, search and long runs."""
    monkeypatch.setattr(calibrate, "DOCUMENT", tmp_path / "docs" / "calibration.md")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("testbed.emulated.probe.why_not", lambda: None)
    monkeypatch.setattr(calibrate, "facts", lambda: {"date": "2020-01-01"})
    few = chosen(["mesh4-large-star", "net9-all", "mesh5-large-all", "capped6-all"])
    monkeypatch.setattr(calibrate, "CASES", few)
    monkeypatch.setattr(calibration_cases, "CASES", few)
    monkeypatch.setattr(calibrate, "quick", lambda case, constants: 1.5)
    monkeypatch.setattr(calibrate, "fit", lambda *_: Fit(defaults(), defaults(), 0.1, 0.1, 9, ()))

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["calibrate", *arguments])
        with pytest.raises(SystemExit) as ended:
            calibrate.main()
        return ended.value.code

    return run


def test_the_command_makes_all_runs_once_and_writes_the_document(command, jobs, capsys):
    assert command("--output", "out", "--repetitions", "2") == 0
    emulated = [case for testbed, case in jobs.made if testbed == "emulated"]
    assert emulated == [case.name for case in calibrate.CASES] * 2  # repetition after repetition
    text = pathlib.Path("docs/calibration.md").read_text()
    assert text == pathlib.Path("out/calibration.md").read_text()
    assert "`python -m experiments.calibrate --repetitions 2`" in text
    assert "Held-out half, 2 cases" in capsys.readouterr().out

    jobs.made.clear()
    assert command("--output", "out", "--repetitions", "2") == 2  # never overwritten
    assert "add --resume" in capsys.readouterr().err
    assert command("--output", "out", "--repetitions", "2", "--resume") == 0
    assert {testbed for testbed, _ in jobs.made} == {"simulated"}


def test_some_cases_leave_the_document_alone(command):
    assert command("--output", "out", "--only", "net9-all", "capped6-all") == 0
    assert not pathlib.Path("docs").exists()
    assert "--only net9-all capped6-all" in pathlib.Path("out/calibration.md").read_text()


def test_a_failed_case_is_shown_and_the_others_go_on(command, jobs, capsys):
    jobs.failing = {"capped6-all"}
    assert command("--output", "out", "--repetitions", "1") == 1
    assert not pathlib.Path("docs").exists()
    text = pathlib.Path("out/calibration.md").read_text()
    assert "failed: capped6-all, emulated: the WAN is not as configured" in text
    assert "Held-out half, 1 case:" in text
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


def outcome(name="mesh9-small-star", simulated=(1.0, 1.0), emulated=((1.0, 1.0),), **figures):
    made = tuple(Measurement(rounds, **figures) for rounds in emulated)
    return Outcome(chosen([name])[0], Measurement(simulated), made)


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
    assert given.measured == 4.0
    assert given.error == relative_error(2.0, 4.0) == -0.5
    assert given.spread == pytest.approx(2**0.5)
    assert given.first_rounds == (3.0, 4.0)


def report():
    outcomes = [
        dataclasses.replace(
            outcome("net9-all", (3.1, 3.0), ((3.2, 3.1), (3.1, 3.1)), cpu_share=0.41), fitted=3.12
        ),
        dataclasses.replace(
            outcome(
                "mesh9-small-star", (0.3, 0.2), ((0.31, 0.22), (0.3, 0.22)),
                cpu_share=0.83,
            ),
            fitted=0.26,
        ),
        dataclasses.replace(outcome("capped6-all", (2.0, 1.6), ((1.5, 1.5),)), fitted=1.7),
        Outcome(chosen(["sparse8-star"])[0], None, (), failure="sparse8-star, emulated: no root"),
    ]  # fmt: skip
    values = {"testbed.goodput_factor": 0.94, "testbed.rtt_bias": 0.5, "pace.sum_gbps": 8.0}
    frozen = {"testbed.goodput_factor": 0.95, "testbed.rtt_bias": 0.5, "pace.sum_gbps": 4.0}
    found = Fit(values, frozen, 0.0125, 0.0319, 48, ("pace.sum_gbps",))
    origin = Origin("python -m experiments.calibrate", {"date": "2020-01-01", "machine": "2 cores"})
    return blocks(outcomes, found, origin)


def test_the_document_is_the_golden_one():
    assert to_document(report()) == GOLDEN.read_text()


def test_the_terminal_shows_the_same_verdict():
    shown = to_terminal(report())
    assert "mean absolute error 12.4%" in shown
    assert "capped6-all with +20.0% (goal ≤ 15%: missed)" in shown


def test_without_a_fit_the_report_says_so():
    text = to_document(blocks([outcome()], None, Origin("c", {})))
    assert "Nothing was fitted" in text
    assert "mean absolute error 0.0%" in text
