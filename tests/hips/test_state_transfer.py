"""What members send each other after a change: how long it is waited for, and where."""

import pytest
from simulated_runs import kill, simulated, small_config

from geojax.hips.control.recovery import Recovery, StateTransfer
from geojax.hips.exchange import states
from geojax.overlay.view import NetworkView

CENTERS = ("c1", "c2", "c3")
LINKS = [(a, b) for a in CENTERS for b in CENTERS if a != b]
UP = NetworkView(CENTERS, dict.fromkeys(LINKS, 1e6), {})


def without(*out):
    return UP.with_rates(dict.fromkeys(out, 0.0))


@pytest.fixture
def transfers():
    """c1 sends round 4 to c2, and its state to c3, which comes back."""
    transfers = StateTransfer()
    transfers.begin(Recovery(4, {"c1": ["c2"]}, ("c1",)), {"c1": ["c3"]}, UP)
    return transfers


def test_before_any_change_nothing_is_sent():
    assert not StateTransfer().cut({}, without(*LINKS))


@pytest.mark.parametrize(
    ("held", "missed"),
    [({}, True), ({"c2": 3}, True), ({"c2": 4}, False), ({"c2": 5}, False)],
)
def test_a_round_is_there_as_soon_as_its_receiver_holds_it(transfers, held, missed):
    assert transfers.cut(held, without(("c1", "c2"))) == missed
    assert not transfers.cut(held, without(("c2", "c1"), ("c2", "c3")))
    assert not transfers.cut(held, UP)


@pytest.mark.parametrize(("held", "missed"), [(3, True), (4, True), (5, False)])
def test_a_state_is_there_when_its_receiver_holds_a_round_more(transfers, held, missed):
    assert transfers.cut({"c2": 4, "c3": held}, without(("c1", "c3"))) == missed


def test_what_had_no_other_way_waits_for_its_link():
    transfers = StateTransfer()
    transfers.begin(Recovery(4, {"c1": ["c2"]}, ("c1",)), {}, without(("c1", "c2")))
    assert not transfers.cut({}, without(("c1", "c2")))


def test_a_state_larger_than_a_message_reaches_a_center_that_comes_back(monkeypatch):
    """With Adam's moments the state is three times the model."""
    monkeypatch.setattr(states, "PIECE_BYTES", 4_000)
    faults = [kill("c3", 0.2), {"at": 0.6, "kind": "restart", "node": "c3"}]
    config = small_config(rounds=40, elements=3000, testbed__faults=faults)
    outcome = simulated(config)
    assert [event["nodes"] for event in outcome.of("back")] == [["c3"]]
    assert set(outcome.finals) == {"c1", "c2", "c3"}
    assert len(set(outcome.finals.values())) == 1
