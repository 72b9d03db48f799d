"""The rule by which chunks leave: both thresholds, priorities, relays, on queues made by hand."""

import asyncio

import pytest
from exchange_group import run_virtual

from geojax.hips.routing.multipath import MultipathSender
from geojax.overlay.routes.auxiliary import Route
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import Kind, Message
from geojax.wire.priority import PROBE_PRIORITY, chunk_priority, late_priority

NAMES = ("a", "b", "c", "d")
TABLE = {"b": (Route(("a", "c", "b")), Route(("a", "d", "b")))}


class Line:
    """A transport whose queues leave message by message, when the test says so."""

    def __init__(self):
        self.queues = {}
        self.observers = []
        self.left = []  # (peer, message)
        self.datagrams = []

    def send(self, peer, message, priority=0):
        queue = self.queues.setdefault(peer, [])
        queue.append((priority, len(self.left) + sum(map(len, self.queues.values())), message))
        queue.sort(key=lambda entry: entry[:2])

    def send_datagram(self, peer, message, priority=0):
        self.datagrams.append((peer, message))

    def waiting(self, peer):
        return len(self.queues.get(peer, ()))

    def chunks(self, peer):
        return [message.chunk for _, _, message in self.queues.get(peer, ())]

    def leave(self, peer):
        """The first message for a peer leaves."""
        _, _, message = self.queues[peer].pop(0)
        self.left.append((peer, message))
        for observer in self.observers:
            observer(peer, message, 0, 0.0, 0.0)
        return message

    def run_dry(self):
        """Everything leaves, turn by turn; returns who got what, in order."""
        before = len(self.left)
        while any(self.queues.values()):
            for peer in sorted(self.queues):
                if self.queues[peer]:
                    self.leave(peer)
        return [(peer, message.chunk) for peer, message in self.left[before:]]


def multipath(*, busy=2, full=1, table=TABLE, me="a", **options):
    line = Line()
    made = MultipathSender(
        me, line, NAMES, primary_busy=busy, auxiliary_queue=full,
        recorder=Recorder(me, lambda _: None), **options,
    )  # fmt: skip
    made.route_by(table)
    return made, line


def offer(chunk, kind=Kind.OFFER, **fields):
    return Message(kind, chunk=chunk, **fields)


def push(made, chunks, peer="b"):
    for chunk in chunks:
        made.send(peer, offer(chunk), chunk_priority(offer(chunk).round, chunk))


def total(made, name):
    return made._recorder.totals[name]


@pytest.mark.parametrize("busy", [0, 1, 2, 5])
def test_no_other_way_is_looked_at_until_more_than_primary_busy_wait(busy):
    made, line = multipath(busy=busy)
    push(made, range(busy + 1))
    assert line.chunks("b") == list(range(busy + 1))
    assert line.chunks("c") == line.chunks("d") == []
    push(made, [busy + 1])
    assert line.chunks("c") == [busy + 1]


@pytest.mark.parametrize("full", [1, 2, 3])
def test_routes_are_filled_in_order_of_cost_up_to_auxiliary_queue(full):
    made, line = multipath(full=full)
    push(made, range(3 + 2 * full + 4))
    assert line.chunks("b") == [0, 1, 2]
    assert line.chunks("c") == list(range(3, 3 + full))
    assert line.chunks("d") == list(range(3 + full, 3 + 2 * full))
    assert total(made, "auxiliary_chunks") == 2 * full


def test_the_rule_is_asked_again_whenever_a_message_has_left():
    made, line = multipath()
    push(made, range(8))  # 5, 6 and 7 find no way
    line.leave("d")
    assert line.chunks("d") == [5]
    line.leave("b")
    assert line.chunks("b") == [1, 2, 6]
    line.leave("c")
    assert line.chunks("c") == [7]


def test_the_primary_way_never_runs_dry_and_nothing_starves():
    made, line = multipath()
    push(made, range(100))
    for _ in range(50):
        line.leave("b")
        assert line.waiting("b") == 3
    line.run_dry()
    assert sorted(message.chunk for _, message in line.left) == list(range(100))


def test_what_waits_leaves_by_priority():
    made, line = multipath()
    push(made, [*range(10, 20), *range(10)])
    assert line.chunks("b") == [10, 11, 12]
    assert (line.chunks("c"), line.chunks("d")) == ([13], [14])
    line.leave("b")
    assert line.chunks("b") == [0, 11, 12]
    line.leave("c")
    assert line.chunks("c") == [1]
    left = [chunk for peer, chunk in line.run_dry() if peer == "b"]
    assert left == [0, *sorted(left[1:])]


def test_a_free_route_goes_to_the_most_urgent_chunk_of_all_neighbours():
    made, line = multipath(table={"b": (Route(("a", "d", "b")),), "c": (Route(("a", "d", "c")),)})
    push(made, range(10, 20), "b")
    push(made, range(8), "c")
    assert line.chunks("d") == [13]
    line.leave("d")
    assert (line.chunks("d"), line.left[-1][1].body) == ([3], {"route": [0, 3, 1]})
    assert line.queues["d"][0][2].body == {"route": [0, 3, 2]}


def test_a_route_travels_with_its_chunk_and_the_rest_of_its_body():
    made, line = multipath(busy=0)
    made.send("b", offer(0), 0)
    made.send("b", offer(1, body={"loss": 0.5}), 1)
    assert line.queues["b"][0][2].body is None
    assert line.queues["c"][0][2].body == {"loss": 0.5, "route": [0, 2, 1]}


def test_only_offers_and_results_take_other_ways():
    made, line = multipath(busy=0)
    for chunk, kind in enumerate((Kind.OFFER, Kind.LATE, Kind.AGGREGATE, Kind.RESULT)):
        made.send("b", offer(chunk, kind), chunk)
    assert (line.chunks("b"), line.chunks("c")) == ([0], [3])
    assert line.run_dry() == [("b", 0), ("c", 3), ("b", 1), ("b", 2)]
    made.send("b", offer(0, Kind.STATE))
    made.send_datagram("b", offer(0, Kind.LATE))
    assert line.chunks("b") == [0]
    assert line.datagrams


@pytest.mark.parametrize("table", [{}, {"c": (Route(("a", "d", "c")),)}])
def test_what_is_for_a_peer_without_routes_passes_straight_on(table):
    made, line = multipath(table=table)
    sent = [offer(chunk) for chunk in range(50)]
    for message in sent:
        made.send("b", message, message.chunk)
    assert all(a is b for a, (_, _, b) in zip(sent, line.queues["b"], strict=True))


def test_a_table_that_comes_later_holds_for_what_waits():
    made, line = multipath(table={"b": (Route(("a", "c", "b")),)})
    push(made, range(6))
    made.route_by({"b": (Route(("a", "d", "b")),)})
    assert (line.chunks("c"), line.chunks("d")) == ([3], [4])
    assert line.queues["c"][0][2].body == {"route": [0, 2, 1]}
    made.route_by({})
    assert line.chunks("b") == [0, 1, 2, 5]


def test_a_paced_route_takes_no_more_than_its_slowest_link():
    async def main():
        made, line = multipath(table={"b": (Route(("a", "c", "b"), 8 * 110.0),)})
        push(made, range(6))  # a message without body has 80 bytes; a routed one some 90
        line.leave("c")
        assert line.chunks("c") == []
        await asyncio.sleep(1.0)
        line.leave("b")
        line.leave("b")
        assert line.chunks("b") == [2, 4]
        assert line.chunks("c") == [5]

    run_virtual(main())


# ---- probes


def probe(made, peer="b", count=4):
    for _ in range(count):
        made.send(peer, Message(Kind.PROBE, chunk=99), PROBE_PRIORITY)


def test_probes_stay_behind_all_chunks():
    made, line = multipath()
    push(made, range(8))
    probe(made)
    assert line.chunks("b") == [0, 1, 2]
    push(made, range(8, 12))
    left = [chunk for peer, chunk in line.run_dry() if peer == "b"]
    assert left[-4:] == [99] * 4
    assert 99 not in left[:-4]
    assert left[:-4] == sorted(left[:-4])


def test_a_probe_that_waits_keeps_no_way_busy():
    made, line = multipath()
    for peer in ("b", "c"):  # to b it goes through the outlet's queue, to c straight on
        probe(made, peer)
    push(made, range(6))
    assert line.chunks("b") == [0, 1, 2, 99, 99, 99, 99]
    assert line.chunks("c") == [3, 99, 99, 99, 99]
    assert line.chunks("d") == [4]
    line.leave("c")
    assert line.chunks("c") == [5, 99, 99, 99, 99]
    line.run_dry()
    assert not +made._probes
    push(made, range(5))
    assert line.chunks("b") == [0, 1, 2], "those that have left count no more"


def test_probes_that_went_with_a_lost_connection_count_no_more():
    made, line = multipath()
    probe(made, "c")
    line.queues.clear()
    made.lose("c")
    made.change(1)
    made.route_by(TABLE)
    push(made, range(6))
    assert (line.chunks("b"), line.chunks("c")) == ([0, 1, 2], [3])


def test_the_release_s_rule_is_asked_once():
    made, line = multipath(asks_again=False)
    push(made, range(10))
    assert (line.chunks("b"), line.chunks("c"), line.chunks("d")) == (
        [0, 1, 2, 5, 6, 7, 8, 9],
        [3],
        [4],
    )
    line.leave("c")
    assert line.chunks("c") == []


# ---- the fastest path where there is no link


def test_chunks_for_who_has_no_link_are_relayed_along_the_primary_path():
    far = Route(("a", "c", "b"), primary=True)
    made, line = multipath(table={"b": (far,)})
    push(made, [0, 1])
    made.send("b", offer(2, Kind.LATE), late_priority(0, 2, 10))
    assert (line.chunks("c"), line.chunks("b")) == ([0, 1], [2])
    assert line.queues["c"][0][2].body == {"route": [0, 2, 1]}
    made.lose("c")
    push(made, [3])
    assert line.chunks("b") == [3, 2], "packets still find a way"
    made.change(1)
    push(made, [4])
    assert line.chunks("b") == [3, 4, 2]


def test_chunks_for_who_has_no_link_wait_for_the_epoch_s_table():
    made, line = multipath(table={}, linked=["c"])
    made.change(1)
    for number in (0, 1):
        made.send("b", offer(number, epoch=1), number)
    made.send("c", offer(7, epoch=1), 7)
    made.send("b", offer(8, Kind.LATE, epoch=1), 8)
    assert (line.chunks("b"), line.chunks("c")) == ([8], [7])
    made.route_by({"b": (Route(("a", "c", "b"), primary=True),)})
    assert line.chunks("c") == [0, 1, 7]
    made.change(2)
    made.send("b", offer(2, epoch=2), 2)
    made.change(3)
    made.route_by({})
    assert line.chunks("b") == [8], "a chunk of an older epoch is dropped"


def test_a_busy_primary_path_over_others_is_relieved_by_auxiliary_routes():
    routes = (Route(("a", "c", "b"), primary=True), Route(("a", "d", "b")))
    made, line = multipath(table={"b": routes})
    push(made, range(6))
    assert (line.chunks("c"), line.chunks("d"), line.chunks("b")) == ([0, 1, 2], [3], [])
    line.leave("c")
    assert line.chunks("c") == [1, 2, 4]


# ---- relays


def on_its_way(route, chunk=7, **fields):
    return offer(chunk, body={"route": route}, **fields)


def test_a_relay_passes_the_very_message_on_at_its_chunk_s_priority():
    made, line = multipath(me="c", table={}, priorities=[9 - chunk for chunk in range(10)])
    messages = [on_its_way([0, 2, 1], chunk, round=99, policy=5, epoch=3) for chunk in (3, 8)]
    assert [made.take("a", message) for message in messages] == [None, None]
    assert [entry[2] for entry in line.queues["b"]] == messages[::-1]
    assert [entry[0] for entry in line.queues["b"]] == [chunk_priority(99, at) for at in (1, 6)]
    assert total(made, "relayed_chunks") == 2


def test_relayed_chunks_and_own_ones_share_a_queue_by_priority():
    made, line = multipath(me="c", table={"b": (Route(("c", "d", "b")),)})
    push(made, [4, 5, 6, 7, 8])  # 7 takes the route
    made.take("a", on_its_way([0, 2, 1], 3))
    made.take("a", on_its_way([0, 2, 1], 9))
    line.leave("d")
    assert line.chunks("d") == [8], "relayed chunks keep to their own route"
    assert [chunk for peer, chunk in line.run_dry() if peer == "b"] == [4, 3, 5, 6, 9]


def test_an_old_round_s_last_chunk_goes_before_a_new_round_s_first():
    made, line = multipath(me="c", table={"b": (Route(("c", "d", "b")),)})
    push(made, [0, 1, 2, 3])  # 3 takes the route
    made.take("a", on_its_way([0, 2, 1], 1, round=8))
    made.take("a", on_its_way([0, 2, 1], 9, round=7))
    assert [chunk for peer, chunk in line.run_dry() if peer == "b"] == [0, 1, 2, 9, 1]


def test_late_parts_of_two_rounds_wait_at_most():
    made, line = multipath(busy=0, table={"b": (Route(("a", "c", "b")),)})
    push(made, [0])
    for number in range(5):
        made.send("b", offer(number, Kind.LATE, round=number), late_priority(number, number, 10))
    assert [chunk for _, chunk in line.run_dry()] == [0, 3, 4]


def test_the_last_on_a_route_sees_its_origin_as_the_peer():
    made, _ = multipath(me="b")
    message = on_its_way([0, 2, 1])
    assert made.take("c", message) == ("a", message)
    plain = offer(1)
    assert made.take("c", plain) == ("c", plain)


@pytest.mark.parametrize(
    ("peer", "message", "says"),
    [
        ("a", on_its_way([0, 2, 0, 1]), "in circles"),
        ("a", on_its_way([0, 2, 1, 2]), "in circles"),
        ("a", on_its_way([0, 2, 4]), "indices of 4 centers"),
        ("a", on_its_way([0, 2, -1]), "indices of 4 centers"),
        ("a", on_its_way([0, 2, True]), "indices of 4 centers"),
        ("a", on_its_way([0, 2, "b"]), "indices of 4 centers"),
        ("a", on_its_way([[0], 2, 1]), "indices of 4 centers"),
        ("a", on_its_way([0, 3, 1]), "does not lead here"),
        ("a", on_its_way([2, 3, 1]), "does not lead here"),
        ("d", on_its_way([0, 2, 1]), "came from d instead of a"),
        ("a", on_its_way([0, 2]), "at least 3 members"),
        ("a", on_its_way("ab"), "at least 3 members"),
        ("a", on_its_way(None), "at least 3 members"),
        ("a", on_its_way([0, 2, 1], kind=Kind.LATE), "kind LATE has no route"),
    ],
)
def test_malformed_routes_are_refused_counted_and_complained_about(peer, message, says, caplog):
    made, line = multipath(me="c")
    told = []
    made.on_refused = lambda *what: told.append(what)
    assert made.take(peer, message) is None
    assert says in caplog.text
    ((named, why),) = told
    assert named == peer
    assert says in why
    assert total(made, "refused_routes") == 1
    assert not line.queues


def test_a_relay_that_has_lost_the_next_hop_drops_with_a_log(caplog):
    made, line = multipath(me="c", table={})
    made.lose("b")
    assert made.take("a", on_its_way([0, 2, 1])) is None
    assert "the next on its route, is lost" in caplog.text
    assert total(made, "dropped_relays") == 1
    made.change(1)
    made.take("a", on_its_way([0, 2, 1]))
    assert line.chunks("b") == [7]


# ---- changes of the membership


def test_a_new_epoch_drops_what_waits_but_late_parts():
    made, line = multipath(busy=0, table={"b": (Route(("a", "c", "b")),)})
    push(made, range(4))
    made.send("b", offer(9, Kind.LATE), late_priority(0, 9, 10))
    made.take("d", offer(8, epoch=1, body={"route": [3, 0, 1]}))
    made.change(1)
    assert line.chunks("b") == [0, 8, 9]
    push(made, [5, 6])
    assert line.run_dry() == [
        ("b", 0), ("c", 1), *(("b", chunk) for chunk in (5, 6, 8, 9)),
    ]  # fmt: skip


def test_nothing_waits_for_a_lost_peer_and_no_route_leads_over_one():
    made, line = multipath(busy=0)
    push(made, range(4))
    made.lose("c")
    line.leave("c")
    assert line.chunks("c") == []
    made.lose("b")
    line.queues.clear()
    push(made, [5])
    line.run_dry()
    assert [message.chunk for _, message in line.left] == [1, 5]
