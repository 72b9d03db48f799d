"""Optima of linear programs are kept for other runs, and never taken for those of another WAN."""

import dataclasses
import os

import pytest
from wans import full_mesh, ring

from geojax.overlay.bounds.release import rate_of
from testbed.compiled import compile_cache, cpu_kind
from testbed.figures import optima

VIEW = full_mesh(4, egress=2.5)
ALL = VIEW.centers
CHANGES = {
    "rates": dict.fromkeys(VIEW.rate, 3.0),
    "order": dict(reversed(VIEW.rate.items())),
    "egress": dict.fromkeys(ALL, 1.0),
    "ingress": dict.fromkeys(ALL, 1.0),
}


@pytest.fixture
def solved(monkeypatch, tmp_path):
    """What was solved, one after the other; nothing was before."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    found = []

    def solve(*problem):
        found.append(problem)
        return rate_of(*problem)

    monkeypatch.setattr(optima, "rate_of", solve)
    return found


def test_an_optimum_is_found_once_and_the_same_to_the_last_bit(solved):
    problems = [(VIEW, ALL, frozenset(ALL)), (ring(5, rate=1 / 3), ("c1", "c2"), frozenset({"c2"}))]
    for problem in problems:
        values = [optima.kept_rate_of(*problem) for _ in range(3)]
        assert {value.hex() for value in values} == {rate_of(*problem).hex()}
    assert solved == problems


def test_other_problems_are_solved_themselves(solved):
    changed = [
        dataclasses.replace(VIEW, **{"rate" if key in ("rates", "order") else key: value})
        for key, value in CHANGES.items()
    ]
    problems = [(view, ALL, frozenset(ALL)) for view in (VIEW, *changed)]
    problems += [(VIEW, ALL[:3], frozenset(ALL[:3])), (VIEW, ALL, frozenset(ALL[:2]))]
    for problem in [*problems, *problems]:
        assert optima.kept_rate_of(*problem) == pytest.approx(rate_of(*problem))
    assert len(solved) == len(problems)


def test_what_cannot_be_read_or_kept_is_solved_again(solved, tmp_path, monkeypatch):
    optima.kept_rate_of(VIEW, ALL, frozenset(ALL))
    (kept,) = (tmp_path / "optima").iterdir()
    kept.write_text("")
    assert optima.kept_rate_of(VIEW, ALL, frozenset(ALL)) == rate_of(VIEW, ALL, frozenset(ALL))
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file"))
    assert optima.kept_rate_of(VIEW, ALL, frozenset(ALL)) == rate_of(VIEW, ALL, frozenset(ALL))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    assert optima.kept_rate_of(VIEW, ALL, frozenset(ALL)) == rate_of(VIEW, ALL, frozenset(ALL))
    assert len(solved) == 4


def test_they_lie_beside_the_users_compiled_programs(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert compile_cache() == str(tmp_path / "mine" / "geojax" / "compiled" / cpu_kind())
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compile_cache() == str(tmp_path / ".cache" / "geojax" / "compiled" / cpu_kind())
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert compile_cache() == ""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # of a user without a home
    assert compile_cache() == ""
    assert not os.path.exists("~")


def test_kinds_of_processors_have_their_own_folders(tmp_path):
    names = []
    for text in (
        "model name\t: A\nMHz\t: 1\n",
        "model name\t: A\nMHz\t: 2\n",
        "model name\t: B\n",
        None,
    ):
        info = tmp_path / f"{len(names)}"
        if text is not None:
            info.write_text(text)
        names.append(cpu_kind(info))
    assert names[0] == names[1]
    assert len(set(names)) == 3
