"""The quick start: three configurations, a table, and a word on what was left out."""

from __future__ import annotations

import signal


def test_the_demo_ends_with_a_table_and_says_what_it_left_out(commands):
    done = commands.run("--quick", "--output", "out", module="experiments.demo")
    assert done.returncode == 0
    table = done.stdout.partition("time to target")[2]
    for name in ("one_center", "star_fsa", "star_local_steps"):
        assert name in table
    assert "simulated" in table
    assert "Left out: the same runs on the emulated WAN, because emulation needs root." in table
    (folder,) = (commands.folder / "out").iterdir()
    assert f"Results: out/{folder.name}\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("Next: python -m experiments.")


def test_the_demo_can_be_stopped(commands):
    process = commands.start("--quick", "--output", "out", module="experiments.demo")
    for line in process.stdout:
        if line.startswith("\t#0 "):
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 130
    (folder,) = (commands.folder / "out").iterdir()
    assert not (folder / "simulated" / "2").exists()
