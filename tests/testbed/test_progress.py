"""What a run tells of how far it is."""

import io

from rich.console import Console

from testbed.progress import RunProgress


def told(times, rounds, max_time_s=None):
    """Lines printed by a run whose rounds are done at so many seconds."""
    now, written = [0.0], io.StringIO()
    console = Console(file=written, force_terminal=False)
    with RunProgress("run", rounds, max_time_s, console=console, clock=lambda: now[0]) as progress:
        for number, at in enumerate(times):
            now[0] = at
            progress.take({"event": "round", "round": number, "held": 2.0 * (number + 1)})
            progress.take({"event": "evaluation", "accuracy": 0.5})
    return written.getvalue().splitlines()


def test_a_short_run_prints_one_line_at_its_end():
    assert told([1, 2, 3], 3) == ["run: 3 rounds in 6.0 s, test accuracy 0.500"]


def test_without_a_terminal_the_line_goes_to_standard_error(capsys, monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    with RunProgress("[run]", 3) as progress:
        progress.say("planning")
        progress.take({"event": "round", "round": 0, "held": 2.0})
    assert capsys.readouterr() == ("", "[run]: 1 rounds in 2.0 s\n")


def test_a_long_run_prints_a_line_a_minute_with_the_time_that_is_left():
    *lines, last = told([20 + 40 * number for number in range(10)], 40)
    assert lines[0] == "run: 2 of 40 rounds, t = 4.0 s, test accuracy 0.500, about 25 min left"
    assert [line.split()[1] for line in lines] == ["2", "4", "6", "8", "10"]
    assert last == "run: 10 rounds in 20.0 s, test accuracy 0.500"


def test_the_time_that_is_left_ends_with_the_time_limit():
    """Rounds take 2 s of experiment time and 40 s of real time."""
    *lines, _ = told([20 + 40 * number for number in range(10)], 10_000, max_time_s=21.0)
    assert lines[0] == "run: 2 of 10000 rounds, t = 4.0 s, test accuracy 0.500, about 6 min left"
    assert lines[-1].endswith("about 1 min left")
    *lines, _ = told([20 + 40 * number for number in range(10)], 10_000, max_time_s=3.0)
    assert lines[-1].endswith("about 0 min left"), "rounds that were granted before end"


def test_runs_beside_each_other_move_no_bars_over_one_another():
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, no_color=True)
    with RunProgress("job 3: run", 2, bar=False, console=console) as progress:
        progress.take({"event": "round", "round": 0, "held": 2.0})
    assert written.getvalue() == "job 3: run: 1 rounds in 2.0 s\n"
