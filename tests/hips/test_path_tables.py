"""When path tables are planned, and which of them are told, while the view and epochs change."""

import asyncio
import logging
from itertools import pairwise

import pytest
from exchange_group import run_virtual, star_policy

from geojax.config import PaceConfig
from geojax.hips.control.path_tables import PathTables
from geojax.hips.routing.source_routes import unpacked_table
from geojax.overlay.routes.auxiliary import path_tables
from geojax.overlay.view import NetworkView
from testbed.simulated.machine import VirtualMachine

NAMES = ("a", "b", "c", "d")
MESH = {(x, y): 8e6 for x in NAMES for y in NAMES if x != y}
POLICY, OTHER = star_policy(NAMES), star_policy(NAMES, root="d", version=1)
OUT = {("b", "c"): 0.0}  # no link of the star


class WanView:
    """What the test says; a change is another revision."""

    def __init__(self):
        self.revision, self.rates = 0, dict(MESH)

    def view(self):
        return NetworkView(NAMES, self.rates, {})

    def change(self, rates):
        self.revision += 1
        self.rates = {**MESH, **rates}


class Played:
    """Path tables whose plans take a second."""

    def __init__(self):
        self.asked, self.told, self.epochs, self.tasks = [], [], [], []
        self.wan_view = WanView()
        self.tables = PathTables(
            self.plan, VirtualMachine(PaceConfig(plan_s=1.0)), self.wan_view, names=NAMES,
            start=lambda work: self.tasks.append(asyncio.ensure_future(work)),
            say=self.say,
        )  # fmt: skip

    def say(self, name, said):
        self.told.append((name, said))
        self.epochs.append(self.tables._epoch)

    def plan(self, view, *policies):
        self.asked.append((view.rate, policies[-1].version))
        return path_tables(view, *policies)

    def links(self, since=0):
        """Those of all routes that were told."""
        found = [unpacked_table(said.table, NAMES) for _, said in self.told[since:]]
        routes = [route.hops for table in found for many in table.values() for route in many]
        return {link for hops in routes for link in pairwise(hops)}


def played(test):
    async def main():
        group = Played()
        group.tables.begin(0)
        group.tables.tell(POLICY)
        await test(group)
        assert all(task.done() and not task.exception() for task in group.tasks)

    run_virtual(main())


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def test_every_center_is_told_its_table_when_it_is_planned():
    async def test(group):
        await asyncio.sleep(0.9)
        assert not group.told
        await asyncio.sleep(0.2)
        assert [name for name, _ in group.told] == list(NAMES)
        assert ("b", "c") in group.links()
        assert not group.tables.review(), "nothing has changed"
        assert len(group.asked) == 1

    played(test)


def test_one_plan_is_under_way_however_often_the_belief_changes():
    async def test(group):
        for change in range(20):
            await asyncio.sleep(0.04)
            group.wan_view.change({("b", "c"): 1e6 + change})
            assert not group.tables.review()
        await asyncio.sleep(2.5)
        assert [rate["b", "c"] for rate, _ in group.asked] == [8e6, 1e6 + 19]
        assert len(group.told) == 8, "tables for rates that have changed are better than none"

    played(test)


def test_tables_are_told_even_if_the_belief_changes_faster_than_they_are_planned():
    async def test(group):
        for change in range(50):
            await asyncio.sleep(0.1)
            group.wan_view.change({("b", "c"): 1e6 + change})
            assert not group.tables.review()
        assert len(group.told) >= 4 * 4
        await asyncio.sleep(2.0)
        assert group.asked[-1][0]["b", "c"] == 1e6 + 49

    played(test)


@pytest.mark.parametrize("reviewed", [True, False])
def test_tables_with_a_link_that_has_gone_out_meanwhile_are_dropped(reviewed):
    async def test(group):
        await asyncio.sleep(0.5)
        group.wan_view.change(OUT)
        assert not (reviewed and group.tables.review()), "no chunk can be on it"
        await asyncio.sleep(0.9)
        assert not group.told
        await asyncio.sleep(1.0)
        assert len(group.told) == 4
        assert not {("b", "c"), ("c", "b")} & group.links()
        assert not group.tables.review()
        group.wan_view.change({})
        assert not group.tables.review(), "it is back"
        await asyncio.sleep(1.1)
        assert ("b", "c") in group.links()

    played(test)


@pytest.mark.parametrize("changed", [True, False])
def test_what_may_be_on_a_link_that_goes_out_is_to_be_sent_again(changed):
    """Even if another policy is told of between the outage and the next look at the view."""

    async def test(group):
        await asyncio.sleep(1.1)
        group.wan_view.change(OUT)
        if changed:
            group.tables.tell(OTHER)
        assert group.tables.review()
        group.tables.begin(1)
        group.tables.tell(OTHER)
        assert not group.tables.review()
        await asyncio.sleep(2.1)
        since = group.epochs.index(1)
        assert not {("b", "c"), ("c", "b")} & group.links(since)

    played(test)


def test_tables_of_an_epoch_that_is_over_are_dropped():
    async def test(group):
        await asyncio.sleep(0.5)
        group.tables.begin(1)
        await asyncio.sleep(1.0)
        assert not group.told
        group.tables.tell(OTHER)
        await asyncio.sleep(0.5)
        group.tables.begin(2)
        group.tables.tell(POLICY)
        await asyncio.sleep(1.0)
        assert not group.told
        await asyncio.sleep(1.0)
        assert {*group.epochs} == {2}
        assert [version for _, version in group.asked] == [0, 1, 0]

    played(test)


def test_the_policy_that_is_told_of_last_is_planned_for_last():
    async def test(group):
        await asyncio.sleep(0.5)
        group.tables.tell(OTHER)
        await asyncio.sleep(2.0)
        assert [version for _, version in group.asked] == [0, 1]

    played(test)


def test_tables_are_for_all_policies_that_rounds_go_by():
    """Else the rounds of the one before would go as packets go, whose way may be out."""

    async def test(group):
        await asyncio.sleep(1.1)
        since = len(group.told)
        group.tables.tell(POLICY, OTHER)
        await asyncio.sleep(1.1)
        peers = {
            name: "".join(unpacked_table(said.table, NAMES)) for name, said in group.told[since:]
        }
        assert peers == {"a": "bcd", "b": "ad", "c": "ad", "d": "abc"}

    played(test)
