"""What the scheduler makes of measurements: the view, its revisions, probes and their budget."""

import numpy as np
import pytest

from geojax.awareness.probing import THIN_BYTES, TRAIN, Awareness, Prober
from geojax.awareness.views import ON_ITS_WAY_S, OUT_AFTER_S, REVISED, MeasuredView
from geojax.config import OverlayConfig
from geojax.overlay.view import NetworkView
from geojax.telemetry.recorder import Recorder
from geojax.wire.frame import wire_bytes
from geojax.wire.message import Kind, Message
from geojax.wire.queue import SendQueue

MB = 1_000_000
CENTERS = ("c1", "c2", "c3")
LINKS = [(a, b) for a in CENTERS for b in CENTERS if a != b]
KNOWN = NetworkView(CENTERS, dict.fromkeys(LINKS, 1.0), dict.fromkeys(LINKS, 0.01))
AT = {center: center for center in CENTERS}


@pytest.fixture
def wan_view():
    return MeasuredView(KNOWN, AT)


def all_measured(wan_view, now, nbytes=MB):
    for member in CENTERS:
        others = [peer for peer in CENTERS if peer != member]
        wan_view.take(member, [[peer, nbytes, nbytes / MB] for peer in others], now)


# ---- the view


def test_samples_are_of_the_links_that_lead_to_the_member(wan_view):
    wan_view.take("c1", [["c2", MB, 1.0]], 2.0)
    wan_view.take("c3", [["c1", MB, 0.1]], 3.0)
    view = wan_view.view()
    assert (view.rate["c2", "c1"], view.rate["c1", "c3"]) == (8e6, 8e7)
    assert view.age == {("c2", "c1"): 1.0, ("c1", "c3"): 0.0}


def test_the_revision_grows_when_a_rate_has_departed_from_what_was_looked_at(wan_view):
    all_measured(wan_view, 0.0)
    before = wan_view.revision
    assert before > 0
    all_measured(wan_view, 1.0)
    wan_view.take("c1", [["c2", MB, 1.0 / (1 + 0.9 * REVISED)]], 2.0)
    assert wan_view.revision == before
    wan_view.take("c1", [["c2", 3 * MB, 3.0 / (1 + 1.9 * REVISED)]], 3.0)
    assert wan_view.revision == before + 1


def test_small_changes_add_up_to_a_revision(wan_view):
    all_measured(wan_view, 0.0)
    before, rate = wan_view.revision, 1.0
    for second in range(1, 40):
        rate *= 1.01
        wan_view.take("c1", [["c2", MB, 1.0 / rate]], 5.0 * second)
    assert 2 <= wan_view.revision - before <= 4


def test_a_link_is_out_while_its_sender_says_that_nothing_moves(wan_view):
    all_measured(wan_view, 0.0)
    before = wan_view.revision
    wan_view.take("c1", [["c2", 0, OUT_AFTER_S / 2]], 1.0)
    assert wan_view.view().rate["c1", "c2"] == 8e6
    wan_view.take("c1", [["c2", 0, OUT_AFTER_S]], 2.0)
    assert (wan_view.view().rate["c1", "c2"], wan_view.revision) == (0.0, before + 1)
    assert wan_view.view().rate["c2", "c1"] == 8e6
    wan_view.take("c2", [], 2.5)  # says nothing of it
    wan_view.take("c1", [["c2", 0, OUT_AFTER_S + 1], ["c3", MB, 1.0]], 3.0)
    assert (wan_view.out, wan_view.revision) == ((("c1", "c2"),), before + 1)
    wan_view.take("c1", [], 4.0)  # it moves again
    assert (wan_view.view().rate["c1", "c2"], wan_view.revision) == (8e6, before + 2)


def test_what_comes_through_ends_an_outage(wan_view):
    all_measured(wan_view, 0.0)
    wan_view.take("c1", [["c2", 0, OUT_AFTER_S]], 2.0)
    wan_view.take("c2", [["c1", MB, 1.0]], 2.5)
    assert (wan_view.out, wan_view.view().rate["c1", "c2"]) == ((), 8e6)


def test_a_heartbeat_that_was_on_its_way_does_not_begin_the_outage_again(wan_view):
    all_measured(wan_view, 0.0)
    wan_view.take("c1", [["c2", 0, OUT_AFTER_S + 1]], 3.0)
    wan_view.take("c2", [["c1", MB, 1.0]], 3.5)
    wan_view.take("c1", [["c2", 0, OUT_AFTER_S + 1]], 3.6)
    assert wan_view.out == ()
    wan_view.take("c1", [["c2", 0, OUT_AFTER_S]], 3.6 + ON_ITS_WAY_S)
    assert wan_view.out == (("c1", "c2"),)


def test_workers_see_nothing_of_the_wan(wan_view):
    wan_view.take("c1", [["c2", 0, OUT_AFTER_S]], 2.0)
    wan_view.take("c1/w0", (), 3.0)
    assert wan_view.out == (("c1", "c2"),)


def test_true_rates_are_never_looked_at():
    true = MeasuredView(KNOWN, AT)
    other = MeasuredView(
        NetworkView(CENTERS, dict.fromkeys(LINKS, 7e9), dict.fromkeys(LINKS, 0.01)), AT
    )
    for wan_view in (true, other):
        wan_view.take("c1", [["c2", MB, 1.0]], 2.0)
    assert true.view() == other.view()


# ---- probes


COST = 4 * wire_bytes(Message(Kind.PROBE, payload=None)) + 4 * 65_536


def prober(wan_view, *, after=3, share=0.01, chunk_elements=1000):
    config = OverlayConfig(probe_after=after, probe_share=share, chunk_elements=chunk_elements)
    return Prober(config, wan_view, AT, LINKS)


def plenty(probes):
    probes.note_sent("c1", 10**12)
    return probes


@pytest.mark.parametrize("connections", [1, 2, 8, 9, 32, 128])
@pytest.mark.parametrize("chunk_elements", [1000, 65_536])
def test_a_probe_can_be_timed_over_any_number_of_connections(wan_view, connections, chunk_elements):
    config = OverlayConfig(chunk_elements=chunk_elements, probe_share=1.0)
    probes = plenty(Prober(config, wan_view, AT, LINKS, lambda _source, _target: connections))
    probe = probes.due(0, CENTERS)[0]
    queue = SendQueue(*[lambda: None] * connections)
    for _ in range(probe.count):
        queue.push(Message(Kind.PROBE, payload=np.zeros(probe.nbytes, np.uint8)))
    timed, sent = {}, 0
    while (frame := queue.take()) is not None:
        timed[frame.sequence] = timed.get(frame.sequence, True) and frame.follows
        sent += frame.nbytes
    assert sum(timed.values()) == TRAIN - 1
    assert probes.spent == sent * len(LINKS)


def test_a_link_without_a_sample_for_some_rounds_is_probed_and_again_after_as_many(wan_view):
    all_measured(wan_view, 1.0)
    probes = plenty(prober(wan_view, after=3))
    asked = {}
    for number in range(9):
        wan_view.take("c1", [["c2", MB, 1.0]], 2.0 + number)  # this one carries chunks
        asked[number] = {(p.source, p.target) for p in probes.due(number, CENTERS)}
    others = {*LINKS} - {("c2", "c1")}
    assert asked == {number: others if number in (2, 5, 8) else set() for number in range(9)}


def test_links_of_which_little_is_known_are_probed_in_every_round(wan_view):
    probes = plenty(prober(wan_view, after=5))
    for number in range(3):
        assert len(probes.due(number, CENTERS)) == len(LINKS)
        all_measured(wan_view, float(number), nbytes=THIN_BYTES // 4)
    wan_view.take("c1", [["c2", THIN_BYTES, 1.0]], 3.0)
    assert len(probes.due(3, CENTERS)) < len(LINKS)


def test_small_probes_of_long_rounds_are_enough_at_last(wan_view):
    """A link that carries nothing else is known after three of the smallest probes."""
    probes, asked = plenty(prober(wan_view, after=3)), []
    for number in range(12):
        due = [probe for probe in probes.due(number, CENTERS) if probe.source == "c1"]
        asked.append(len(due))
        for probe in due:
            timed = (TRAIN - 1) * probe.nbytes
            wan_view.take(probe.target, [["c1", timed, timed / MB]], 10.0 * number + 1)
    assert asked == [2, 2, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0]


def test_a_link_measured_in_the_round_in_which_another_has_changed_is_not_stale(wan_view):
    all_measured(wan_view, 0.0)
    probes = plenty(prober(wan_view, after=5))
    assert probes.due(0, CENTERS) == []
    wan_view.take("c2", [["c1", MB, 1.0], ["c3", MB, 1.0]], 1.0)
    wan_view.take("c1", [["c2", MB, 0.5]], 1.1)
    asked = {(p.source, p.target) for p in probes.due(1, CENTERS)}
    assert asked == {*LINKS} - {("c1", "c2"), ("c3", "c2"), ("c2", "c1")}


def test_when_one_link_has_changed_the_others_are_probed_unless_they_were_measured_since(wan_view):
    all_measured(wan_view, 0.0)
    probes = plenty(prober(wan_view, after=5))
    assert probes.due(0, CENTERS) == []
    wan_view.take("c1", [["c2", MB, 0.5]], 1.0)
    wan_view.take("c2", [["c1", MB, 1.0]], 2.0)
    asked = [(p.source, p.target) for p in probes.due(1, CENTERS)]
    assert {*asked} == {*LINKS} - {("c1", "c2"), ("c2", "c1")}
    all_measured(wan_view, 3.0)
    assert probes.due(2, CENTERS) == []


def test_a_probe_can_be_timed_and_is_about_as_large_as_a_chunk(wan_view):
    for elements, nbytes in ((1000, 65_536), (40_000, 160_000), (1_000_000, 262_144)):
        probes = plenty(prober(wan_view, chunk_elements=elements)).due(0, CENTERS)
        assert {(p.nbytes, p.count) for p in probes} == {(nbytes, 4)}


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3])
def test_probes_never_have_more_than_their_share_of_the_bytes(wan_view, share):
    probes, spent, sent = prober(wan_view, after=1, share=share), 0, 0
    for number in range(50):
        sent += 3 * MB
        for member in CENTERS:
            probes.note_sent(member, sent // len(CENTERS))
        spent += COST * len(probes.due(number, CENTERS))
        assert spent == probes.spent <= share * sent
    if share:
        assert spent > min(share * sent - COST, 49 * COST * len(LINKS))


def test_who_was_not_measured_for_longest_comes_first(wan_view):
    for second, (source, target) in enumerate(LINKS):
        wan_view.take(target, [[source, MB, 1.0]], float(len(LINKS) - second))
    probes = prober(wan_view, after=1)
    probes.note_sent("c1", 100 * 3 * COST)
    probes.due(0, CENTERS)
    probes.note_sent("c1", 100 * 6 * COST)
    asked = [(p.source, p.target) for p in probes.due(1, CENTERS)]
    assert asked == LINKS[:-4:-1]


def test_nobody_is_asked_who_is_dead_and_nobody_at_all_where_probes_are_off(wan_view):
    assert {(p.source, p.target) for p in plenty(prober(wan_view)).due(9, ("c1", "c3"))} == {
        ("c1", "c3"), ("c3", "c1"),
    }  # fmt: skip
    assert plenty(prober(wan_view, after=0)).due(9, CENTERS) == []


def test_links_that_are_out_are_probed(wan_view):
    all_measured(wan_view, 0.0)
    wan_view.take("c1", [["c2", 0, OUT_AFTER_S]], 2.0)
    probes = plenty(prober(wan_view, after=3))
    asked = [(p.source, p.target) for number in range(4) for p in probes.due(number, CENTERS)]
    assert ("c1", "c2") in asked


# ---- what is recorded


def test_views_are_recorded_once_a_round_or_revision_and_only_what_changed(wan_view):
    events = []
    awareness = Awareness(wan_view, prober(wan_view, after=0), Recorder("scheduler", events.append))

    def heard(number):
        before = len(events)
        awareness.heard("c1", 0, number, CENTERS)
        return events[before:]

    assert [len(event["links"]) for event in heard(0)] == [len(LINKS)]
    assert heard(0) == heard(1) == []
    wan_view.take("c1", [["c2", MB, 1.0]], 2.0)
    [event] = heard(1)
    assert event["revision"] == wan_view.revision
    assert ["c2", "c1", 8_000_000, 0.0] in event["links"]
    assert ["c1", "c2", 8_000_000, None] in event["links"]
    wan_view.take("c1", [["c2", MB, 0.95]], 3.0)  # no revision
    assert heard(1) == []
    [event] = heard(2)
    assert event["links"][0][:2] == ["c1", "c2"]


# ---- links that nothing else is on


LINE = NetworkView(
    CENTERS, dict.fromkeys([("c1", "c2"), ("c2", "c1"), ("c2", "c3"), ("c3", "c2")], 1.0), {}
)


def test_every_link_of_a_way_that_stands_still_is_tried_with_one_small_message():
    wan_view = MeasuredView(LINE, AT)
    probes = Prober(OverlayConfig(), wan_view, AT, LINE.rate)
    wan_view.take("c1", [["c3", 0, OUT_AFTER_S / 2]], 1.0)
    assert not wan_view.suspects
    wan_view.take("c1", [["c3", 0, OUT_AFTER_S]], 2.0)
    assert wan_view.out == (), "nobody knows which"
    found = probes.suspected(CENTERS)
    assert [(p.source, p.target, p.count) for p in found] == [("c1", "c2", 1), ("c2", "c3", 1)]
    assert probes.spent < 4096
    assert not probes.suspected(CENTERS), "not at once again"
    wan_view.take("c2", [["c3", 0, OUT_AFTER_S]], 2.0 + OUT_AFTER_S)
    assert wan_view.out == (("c2", "c3"),)
    assert [(p.source, p.target) for p in probes.suspected(CENTERS)] == [("c1", "c2")]
    wan_view.take("c1", [], 6.0)
    assert not wan_view.suspects


def test_the_dead_try_nothing_and_without_probes_nobody_does():
    wan_view = MeasuredView(LINE, AT)
    wan_view.take("c1", [["c3", 0, OUT_AFTER_S]], 2.0)
    probes = Prober(OverlayConfig(), wan_view, AT, LINE.rate)
    assert [(p.source, p.target) for p in probes.suspected(["c1", "c2"])] == [("c1", "c2")]
    assert not Prober(OverlayConfig(probe_after=0), wan_view, AT, LINE.rate).suspected(CENTERS)
