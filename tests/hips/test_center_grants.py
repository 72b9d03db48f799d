"""How far ahead rounds are granted where policies may change."""

from geojax.config import RunConfig
from geojax.hips.cluster import Cluster, NodeSpec
from geojax.hips.control.grants import Grants

PLACES = Cluster((NodeSpec("scheduler", "a", "scheduler"), NodeSpec("a", "a", "server")))


def until_after(ends: list[float], *, replans: bool = True) -> list[int]:
    """The round that grants reach to when a round ends at each of these times, s."""
    granting = Grants(RunConfig(rounds=1000), PLACES, first=0, independent=False, replans=replans)
    reached = [granting.common.until]
    for number, at in enumerate(ends):
        granting.note("a", number)
        granting.extend("a", at)
        granting.extend("a", at + 0.5)  # a heartbeat within the next round changes nothing
        reached.append(granting.common.until)
    return reached


def test_two_rounds_ahead():
    assert until_after([1.0, 2.0, 3.0]) == [2, 3, 4, 5]


def test_one_where_rounds_are_long():
    assert until_after([20.0, 40.0, 60.0, 61.0, 62.0]) == [2, 2, 3, 4, 6, 7]


def test_many_where_no_policy_changes():
    assert until_after([20.0, 40.0], replans=False) == [64, 65, 66]
