"""Planning that takes its time says how far it is; planning that does not says nothing."""

import logging

from experiments.train.job_warnings import FILE, PlanningLines, job_warnings

LOG = logging.getLogger("geojax.planning")


def tell(percent):
    LOG.debug("planning %s: %d %% is spent", "trees", percent)


def test_a_line_comes_every_few_seconds(capsys):
    now = [0.0]
    lines, before = PlanningLines("job 3", clock=lambda: now[0]), LOG.level
    LOG.addHandler(lines)
    LOG.setLevel(logging.DEBUG)
    try:
        for at, percent in [
            (100, 0),
            (101, 10),
            (103, 30),
            (104, 40),
            (106.5, 70),
            (200, 0),
            (201, 100),
        ]:
            now[0] = at
            tell(percent)
    finally:
        LOG.removeHandler(lines)
        LOG.setLevel(before)
    told = capsys.readouterr().err.splitlines()
    assert told == [f"job 3: planning trees: {percent} % is spent" for percent in (30, 70)]


def test_a_job_listens_while_it_runs_and_keeps_only_warnings(tmp_path, capsys):
    before = LOG.level, list(LOG.handlers)
    with job_warnings("", tmp_path):
        tell(0)
        LOG.warning("overlay.effort = %g is spent", 1.0)
    assert (LOG.level, LOG.handlers) == before
    assert (tmp_path / FILE).read_text() == "warning: overlay.effort = 1 is spent\n"
    assert capsys.readouterr().err == "warning: overlay.effort = 1 is spent\n"
