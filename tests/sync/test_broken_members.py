"""A member that dies, freezes, tells absurd times or floods a service: the others go on.

Whole runs of every algorithm whose rounds are decided by what members tell, and of asynchronous
ones, whose members tell the scheduler how far they are.
"""

import functools
import logging
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from simulated_runs import kill, simulated, small_config

from geojax.config import WanConfig
from geojax.hips.roles.chosen import Chosen
from geojax.hips.roles.local_steps import LocalSteps
from geojax.sync.esync_state import EsyncState
from geojax.sync.tifl_state import TiflState
from testbed.simulated.transport import SimulatedTransport

DEAD = 2.0  # timeouts.dead, s
SINCE = 2  # the round from which on a member is broken
ABSURD = {"negative": -1.0, "NaN": math.nan, "huge": 1e300}
BREAKS = ("dies", "freezes", *ABSURD, "reports again", "runs ahead", "floods")


class Case(NamedTuple):
    """A run, and who breaks in it.

    Attributes:
      settings: configuration keys.
      broken: the member.
      hosts: the node whose service it asks; None: it only tells the scheduler how far it is.
      asks: the keys of a question that absurd times are put in.
    """

    settings: dict[str, Any]
    broken: str
    hosts: str | None = "scheduler"
    asks: tuple[str, ...] = ("step_s", "push_s")


UNEQUAL = {"c1": 10.0, "c2": 20.0, "c3": 60.0}
LEVELS = {"sync__name": "esync", "workers": 2, "pace__centers": UNEQUAL, "rounds": 6}
LOCAL = {"sync__local_steps": 3, "pace__centers": UNEQUAL, "rounds": 9}
CASES = {
    "esync, workers": Case({**LEVELS, "sync__level": "workers"}, "c2/w1", "c2"),
    "esync, both: a worker": Case({**LEVELS, "sync__level": "both"}, "c2/w1", "c2"),
    "esync, both: a center": Case({**LEVELS, "sync__level": "both"}, "c2"),
    "tifl": Case(
        {"sync__name": "tifl", "sync__profiling_rounds": 1, **LOCAL}, "c2", asks=("push_s",)
    ),
    "tifl, two workers": Case(
        {"sync__name": "tifl", "sync__profiling_rounds": 1, **LOCAL, "workers": 2}, "c2/w1",
        asks=("push_s",),
    ),
    "fedasync": Case({"sync__name": "fedasync", **LOCAL}, "c2", None),
    "fedbuff": Case({"sync__name": "fedbuff", "sync__buffer": 2, **LOCAL}, "c2", None),
    "ssp": Case(
        {"sync__name": "ssp", "sync__s": 1, "pace__centers": UNEQUAL, "rounds": 12}, "c2", None
    ),
    "fedat": Case({"sync__name": "fedat", **LOCAL}, "c2", None),
    "quorum": Case({"sync__name": "quorum", "sync__quorum": 2, **LOCAL}, "c2", None),
    "async_diloco": Case({"sync__name": "async_diloco", **LOCAL}, "c2", None),
    "dc_aha": Case({"sync__name": "dc_aha", "pace__centers": UNEQUAL, "rounds": 12}, "c2", None),
    "halos": Case({"sync__name": "halos", **LOCAL, "workers": 2, "rounds": 5}, "c2", None),
}  # fmt: skip
WHOLE = {"esync, workers", "tifl", "fedasync"}  # of the others some breaks are left to nightly
FEW = {
    "esync, both: a worker": {"dies", "NaN", "reports again", "floods"},
    "tifl, two workers": {"NaN", "runs ahead"},
    "fedbuff": {"dies", "huge"},
    "quorum": {"dies", "runs ahead"},
    "async_diloco": {"runs ahead"},
    "dc_aha": {"huge"},
    "halos": {"huge"},
}


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def near(case, **settings):
    """Three centers near each other, so that transfers take next to no time."""
    common = {"timeouts__dead": DEAD, "timeouts__heartbeat": 0.2, "model__pace_s": 0.01}
    config = small_config(**{**case.settings, **common, **settings})
    config.wan = WanConfig(name="near", generator="uniform", centers=3, rate=1000.0, rtt=1.0)
    if case.settings.get("sync__level") == "workers":
        config.pace.profile = {"kind": "two_groups", "h": 4}
    return config


def ends(outcome, node):
    """When a member held each of its rounds, s."""
    return [event["held"] for event in outcome.of("round") if event["node"] == node]


@functools.cache
def honest(name):
    return simulated(near(CASES[name]))


def begins(name):
    """When the broken member is in the middle of round SINCE, s."""
    own = CASES[name].broken
    found = ends(honest(name), own) or ends(honest(name), f"{own}/w0")
    return (found[SINCE - 1] + found[SINCE]) / 2


class Liar:
    """What a member sends instead of what it should; ``lies`` counts."""

    def __init__(self, case, what, since):
        self.case, self.what, self.since, self.lies = case, what, since, 0
        self._send = SimulatedTransport.send

    def report_more(self, monkeypatch):
        """It enters each round twice, or the next ones with it."""
        ahead = (1, 2, 3) if self.what == "runs ahead" else (0,)
        begin, enter = LocalSteps.begin, Chosen.begin

        def late(role):
            return role._recorder.node == self.case.broken and role._clock() > self.since

        def begins(steps, number):
            more = begin(steps, number)
            if late(steps) and steps.decided:
                rule, status = steps._policy.in_round, steps._status()
                for by in ahead:
                    told = status._replace(round=status.round + by)
                    steps._asks.tell(rule.service, rule.entered(told))
                    self.lies += 1
            return more

        async def enters(chosen, number, vector):
            found = await enter(chosen, number, vector)
            for by in ahead if late(chosen) else ():
                asked = chosen._choice.entered(number + by, chosen._push_s())
                chosen._asks.tell(chosen._choice.service, asked)
                self.lies += 1
            return found

        monkeypatch.setattr(LocalSteps, "begin", begins)
        monkeypatch.setattr(Chosen, "begin", enters)

    def install(self, monkeypatch):
        if self.what in ("reports again", "runs ahead") and self.case.hosts is not None:
            self.report_more(monkeypatch)
            return
        send = self._send

        def lying(transport, peer, message, priority=0):
            body = message.body or {}
            late = transport.name == self.case.broken and transport.network.loop.time() > self.since
            wanted = ("request", "scheduler" if self.case.hosts is None else self.case.hosts)
            kind = "heartbeat" if self.case.hosts is None else "request"
            if late and (body.get("type"), peer) == (kind, wanted[1]):
                for other in self._instead(body):
                    self.lies += other != body
                    send(transport, peer, type(message)(message.kind, body=other), priority)
                return
            send(transport, peer, message, priority)

        monkeypatch.setattr(SimulatedTransport, "send", lying)

    def _instead(self, body):
        asked = body.get("question", {})
        if self.what == "floods":
            if self.case.hosts is not None:
                more = {**body, "wanted": False}
            else:  # it has no service to ask: questions about nothing
                more = {"type": "request", "service": "esync", "number": 1000 * self.lies,
                        "question": {"op": "report"}, "wanted": False}  # fmt: skip
            return [body, *({**more, "number": more["number"] + n} for n in range(1, 500))]
        if self.what == "reports again":
            return [body] * 2 + [{**body, "held": 0}]
        if self.what == "runs ahead":
            return [{**body, "held": body["held"] + by} for by in (1, 2, 3)]
        if self.case.hosts is None:
            return [{**body, "held": ABSURD[self.what]}]
        absurd = {key: ABSURD[self.what] for key in self.case.asks if key in asked}
        return [{**body, "question": {**asked, **absurd}}]


def watch_rows(monkeypatch, broken):
    """No message of the broken member changes what a service knows of another one."""
    seen = []
    for kind, rows in ((EsyncState, "rows"), (TiflState, "_rows")):
        original = kind.answer

        def answer(self, sender, question, now, *, original=original, rows=rows):
            def others():
                return {n: dict(vars(r)) for n, r in getattr(self, rows).items() if n != sender}

            before = others()
            try:
                return original(self, sender, question, now)
            finally:
                if sender == broken:
                    seen.append(question)
                    assert others() == before

        monkeypatch.setattr(kind, "answer", answer)
    return seen


def cases():
    for name in CASES:
        for what in BREAKS:
            often = name in WHOLE or what in FEW.get(name, {"NaN"})
            marks = [] if often else [pytest.mark.nightly]
            yield pytest.param(name, what, marks=marks, id=f"{name}: {what}")


@pytest.mark.parametrize(("name", "what"), [*cases()])
def test_nobody_else_waits_beyond_the_bound(name, what, monkeypatch):
    case, whole = CASES[name], honest(name)
    since, faults = begins(name), []
    seen = watch_rows(monkeypatch, case.broken)
    liar = Liar(case, what, since)
    if what == "dies":
        faults = [kill(case.broken, since)]
    elif what == "freezes":
        faults = [{"at": since, "kind": "freeze", "node": case.broken, "duration": 60.0}]
    else:
        liar.install(monkeypatch)
    outcome = simulated(near(case, testbed__faults=faults))
    if not faults:
        assert liar.lies
    assert {event["peer"] for event in outcome.of("refused")} <= {case.broken}
    others = {"c1", "c2", "c3"} - {case.broken}
    last = case.settings["rounds"] - 1
    assert {n: at for n, (at, _) in outcome.finals.items() if n in others} == dict.fromkeys(
        others, last
    )
    # The scheduler declares dead whose questions it refused. Another host has to complain of them
    # in two epochs, so that no member brings down another one by a single complaint.
    looks = 2 if case.hosts == "c2" and what in (*ABSURD, "runs ahead") else 1
    watched = {event["node"] for event in whole.of("round")}
    watched = {node for node in watched if not f"{node}/".startswith(f"{case.broken}/")}
    for node in watched:
        usual = max(b - a for a, b in pairwise([0.0, *ends(whole, node)]))
        waits = max(b - a for a, b in pairwise([0.0, *ends(outcome, node)]))
        assert waits <= usual + looks * DEAD + 0.5, node
        assert len(ends(outcome, node)) == last + 1
    assert case.hosts is None or len(seen) > 1


def test_who_runs_ahead_while_rounds_are_timed_neither_ends_the_run_nor_makes_its_tiers(
    monkeypatch,
):
    """Nobody has told its times yet when it says that it is in the round that goes by them."""
    liar = Liar(CASES["tifl"], "runs ahead", -1.0)
    liar.install(monkeypatch)
    outcome = simulated(near(CASES["tifl"]))
    assert liar.lies
    assert {event["peer"] for event in outcome.of("refused")} == {"c2"}
    assert {name: outcome.finals[name][0] for name in ("c1", "c3")} == {"c1": 8, "c3": 8}
    made = [event["tiers"] for event in outcome.of("tifl") if "tiers" in event]
    assert made == [[["c1"], ["c3"]]]


@pytest.mark.parametrize("name", ["tifl", "esync, both: a center"])
def test_whose_very_first_question_names_an_absurd_round_holds_nobody_up(name, monkeypatch):
    send, told = SimulatedTransport.send, []

    def lying(self, peer, message, priority=0):
        body = message.body or {}
        if self.name == "c1" and body.get("type") == "request" and not told:
            told.append(message)
            asked = {**body, "question": {**body["question"], "round": 2**30}}
            message = replace(message, body=asked)
        send(self, peer, message, priority)

    monkeypatch.setattr(SimulatedTransport, "send", lying)
    last = CASES[name].settings["rounds"] - 1
    outcome = simulated(near(CASES[name]))  # the scheduler is at c1
    assert told
    assert {event["peer"] for event in outcome.of("refused")} == {"c1"}
    assert {other: outcome.finals[other][0] for other in ("c2", "c3")} == {"c2": last, "c3": last}


@pytest.mark.parametrize("name", ["esync, workers", "esync, both: a center"])
def test_who_is_back_before_the_others_go_on_without_it_begins_anew(name):
    """The services that it asks forget it, although it was a member before and is one after."""
    case, at = CASES[name], begins(name)
    faults = [kill(case.broken, at), {"at": at + 0.001, "kind": "restart", "node": case.broken}]
    outcome = simulated(near(case, pace__plan_s=0.02, testbed__faults=faults))
    assert not outcome.of("refused")
    last = case.settings["rounds"] - 1
    assert {node: at for node, (at, _) in outcome.finals.items()} == dict.fromkeys(
        ("c1", "c2", "c3"), last
    )
    own = case.broken if ends(outcome, case.broken) else f"{case.broken}/w0"
    assert outcome.rounds_of(own)[-1] == last, "it takes part again"
