"""Every codec with every synchronization mode and every kind of servers: it trains, or is refused.

``docs/compatibility.md`` must say what these runs find: all of them at night, else a selection in
which every pair is met.
"""

import re

import pytest

from experiments.compatibility import __main__ as compatibility
from experiments.compatibility.__main__ import (
    DOCUMENT,
    TRAINS,
    Outcome,
    document,
    outcome,
    problems,
    refusal,
)
from experiments.compatibility.axes import (
    CODECS,
    MODES,
    REFUSED,
    SERVERS,
    WITH_DEVICES,
    Case,
    config_of,
    everything,
    overlaps,
    pairs,
    written,
)
from geojax.compression.registry import CODECS as ALL_CODECS
from geojax.errors import ConfigError
from geojax.federated.registry import FEDERATED  # they exchange as local steps do
from geojax.hollow import SIZE_ONLY
from geojax.overlay.policy import cutting
from geojax.sync.registry import SYNCS


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level("CRITICAL", logger="geojax")


@pytest.fixture(scope="module")
def told():
    """What the document says of every codec, mode and kind of servers: trains, or the reason."""
    text = DOCUMENT.read_text()
    reasons = dict(re.findall(r"^\| (\(\d+\)) \| (.*) \|$", text, re.MULTILINE)) | {TRAINS: ""}
    found = {}
    for servers in SERVERS:
        table = text.split(f"## {servers[0].upper()}{servers[1:]}\n")[1].split("\n\n")[1]
        for line in table.splitlines()[2:]:
            codec, *marks = line.strip("| ").split(" | ")
            cells = zip(MODES, marks, strict=True)
            found |= {(codec, mode, servers): reasons[mark] for mode, mark in cells}
    return found


def test_every_registered_codec_and_mode_is_on_the_axes():
    codecs = {settings["compression"] for settings in CODECS.values()}
    assert codecs == set(ALL_CODECS) - {SIZE_ONLY}  # which trains nothing
    apart = {*FEDERATED, *WITH_DEVICES}
    assert {settings["sync"] for settings in MODES.values()} == set(SYNCS) - apart


def test_the_selection_meets_every_pair():
    assert overlaps(pairs()) == overlaps(everything())
    assert {case.workers for case in pairs()} == {1, 2}


def in_few_chunks(settings, **more):
    config = config_of(settings, **more)
    config.overlay.chunk_elements = 2500  # at night 1000: messages are much of the work
    return config


@pytest.mark.parametrize("case", pairs(), ids=lambda case: " | ".join(map(str, case)))
def test_a_pair_trains_or_is_refused_as_documented(case, told, monkeypatch):
    monkeypatch.setattr(compatibility, "config_of", in_few_chunks)
    monkeypatch.setattr(cutting, "LEAST_CHUNKS", 1)  # a server, for MultiGPS, which has 40
    found = outcome(case)
    assert not found.problem
    assert found.refusal == told[case[:3]]


@pytest.mark.nightly
def test_the_document_says_what_all_runs_find():
    outcomes = {case: outcome(case) for case in everything()}
    assert not problems(outcomes)
    assert document(outcomes) == DOCUMENT.read_text()


def test_the_document_is_made_by_this_version(told):
    """All but the runs themselves."""
    outcomes = {case: Outcome(refusal=told[case[:3]]) for case in everything()}
    assert document(outcomes) == DOCUMENT.read_text()


@pytest.mark.parametrize("settings", REFUSED, ids=written)
def test_what_is_refused_names_a_key_and_what_it_does_not_go_with(settings):
    reason = refusal(settings)
    key = reason.split(" = ")[0].removesuffix(".name")
    assert key in settings
    others = [value for name, value in settings.items() if name != key]
    assert not others or any(
        name in reason or str(value) in reason for name, value in settings.items() if name != key
    )


def test_a_run_that_does_not_learn_is_a_problem(monkeypatch):
    monkeypatch.setattr(compatibility, "LEARNS", 0.1)
    case = Case("dense", "fsa", "one server, in a center", 1)
    assert "does not learn" in outcome(case).problem
    assert problems({case: outcome(case)})


def test_a_refusal_that_depends_on_the_workers_is_a_problem():
    one, two = (Case("dense", "fsa", "one server, in a center", workers) for workers in (1, 2))
    assert not problems({one: Outcome("no"), two: Outcome("no")})
    assert problems({one: Outcome("no"), two: Outcome()})


def test_settings_that_go_together_or_do_not_exist_are_no_refusals():
    with pytest.raises(ValueError, match="expected to be refused"):
        refusal({"sync": "fsa"})
    with pytest.raises(ConfigError, match="no such key"):
        config_of({"sync.p4": True})
