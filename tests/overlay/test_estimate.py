"""Estimated sync times: exact where one can count, and near what simulated runs take."""

import math
from dataclasses import replace

import numpy as np
import pytest
from simulated_runs import simulated, small_config

from geojax.config import OverlayConfig
from geojax.overlay.planners.columns import pack
from geojax.overlay.policy.estimate import estimate
from geojax.overlay.policy.planning import Task, propose
from geojax.overlay.policy.policy import Policy, Tree
from geojax.overlay.registry import build_overlay
from geojax.overlay.routes.shared_links import shared_links
from geojax.overlay.view import NetworkView
from testbed.wan.build import build_wan

LINE = ("a", "b", "c")
RATE = 32_000.0  # one chunk of 1000 float32 a second


def line(delay=0.0, **caps):
    edges = [("a", "b"), ("b", "a"), ("b", "c"), ("c", "b")]
    return NetworkView(LINE, dict.fromkeys(edges, RATE), dict.fromkeys(edges, delay), **caps)


def policy(*trees, **settings):
    return Policy(0, LINE, trees, **settings)


def test_a_chain_fills_its_pipe_once():
    """Up to c over b: the first chunk takes 2 s, each of the others 1 s more; and down likewise."""
    chain = policy(Tree("c", {"b": "c", "a": "b"}))
    assert estimate(chain, line(), [1000]).seconds == 4.0
    assert estimate(chain, line(), [1000] * 5) == (8.0, 5.0)
    assert estimate(chain, line(delay=0.25), [1000] * 5).seconds == 9.0


def test_members_without_a_link_load_all_of_their_route():
    """In a star at c, a's chunks and b's share the link from b to c; results go twice back."""
    star = policy(Tree("c", {"a": "c", "b": "c"}))
    found = estimate(star, line(), [1000] * 3)
    assert found.busiest_s == 6.0
    assert found.seconds == 6.0 + 1.0, "the last chunk to be up, and its result down at once"


def test_access_caps_are_loaded_too():
    star = policy(Tree("b", {"a": "b", "c": "b"}))
    assert estimate(star, line(), [1000] * 3).busiest_s == 3.0
    assert estimate(star, line(ingress={"b": RATE}), [1000] * 3).busiest_s == 6.0
    assert estimate(star, line(egress={"b": RATE / 2}), [1000] * 3).busiest_s == 12.0


def test_trees_of_one_policy_share_links_by_their_chunks():
    """Two of three chunks on one tree: what each link carries in both directions adds up."""
    two = policy(Tree("a", {"b": "a", "c": "b"}, 2.0), Tree("c", {"b": "c", "a": "b"}, 1.0))
    assert estimate(two, line(), [1000] * 3).busiest_s == 3.0
    fixed = policy(
        Tree("a", {"b": "a", "c": "b"}), Tree("c", {"b": "c", "a": "b"}), fixed=(0, 0, 0)
    )
    assert estimate(fixed, line(), [1000] * 3) == estimate(
        policy(Tree("a", {"b": "a", "c": "b"})), line(), [1000] * 3
    )


def test_other_ways_down_count_where_they_are():
    edges = [(x, y) for x in LINE for y in LINE if x != y]
    ring = NetworkView(LINE, dict.fromkeys(edges, RATE), {})
    both = Tree("a", {"b": "a", "c": "a"}, down={"b": "a", "c": "b"})
    assert estimate(policy(both), ring, [1000] * 4).seconds == 6.0  # 4 s, and two hops down


def test_a_link_that_is_out_matters_only_where_it_is_used():
    out = line().with_rates({("b", "c"): 0.0})
    assert estimate(policy(Tree("c", {"b": "c", "a": "b"})), out, [1000]).seconds == math.inf
    edges = {("a", "c"): RATE, ("c", "a"): RATE, ("a", "b"): RATE, ("b", "a"): RATE}
    around = replace(out, rate={**out.rate, **edges})
    assert estimate(policy(Tree("a", {"b": "a", "c": "a"})), around, [1000]).seconds == 2.0


def test_one_member_takes_no_time():
    assert estimate(Policy(0, ("a",), (Tree("a", {}),)), line(), [1000]) == (0.0, 0.0)


@pytest.fixture(scope="module")
def nine():
    config = small_config(wan="netstorm9_draw")
    return build_wan(config.wan, config.lan, 1).view()


def test_the_busiest_link_of_a_packing_is_what_the_packing_says(nine):
    links = shared_links(nine, nine.centers)
    value = pack(links).packing.value
    sizes = (1000,) * 20_000  # so many that shares are as good as exact
    planned = build_overlay(OverlayConfig(name="packing", chunk_elements=1000), nine.centers).plan(
        nine, nine.centers, sizes, 0
    )
    found = estimate(planned, nine, sizes)
    bits = 32 * sum(sizes)
    assert found.busiest_s == pytest.approx(bits / value, rel=0.02)
    assert found.busiest_s < found.seconds < 1.1 * found.busiest_s


@pytest.mark.parametrize("name", ["star", "mlnet", "netstorm", "packing", "ring"])
def test_simulated_runs_take_about_as_long(name, nine):
    elements, chunk = 400_000, 8_000
    outcome = simulated(
        small_config(
            wan="netstorm9_draw",
            elements=elements,
            chunk_elements=chunk,
            rounds=4,
            seed=1,
            overlay__name=name,
            overlay__replan=False,
        )
    )
    rounds = {number: [] for number in range(1, 4)}
    for event in outcome.of("round"):
        if event["round"] in rounds:
            rounds[event["round"]].append((event["offered"], event["held"]))
    took = np.mean([
        max(held for _, held in those) - max(offered for offered, _ in those)
        for those in rounds.values()
    ])  # fmt: skip
    (start,) = outcome.of("start")
    planned = Policy.from_dict(start["policies"]["0"])
    sizes = [chunk] * (elements // chunk)
    expected = estimate(planned, replace(nine, relayed=True), sizes).seconds
    assert 0.7 < 0.95 * took / expected < 1.5, "0.95: what TCP makes of a link's rate"


def test_a_proposal_compares_on_the_same_view(nine):
    sizes = (1000,) * 50
    task = Task(nine, nine.centers, sizes, (50_000,), 7)
    star = propose(OverlayConfig(), nine.centers, (), task)
    assert (star.policy.version, star.present_s) == (7, ())
    packed = propose(
        OverlayConfig(name="packing"), nine.centers, (),
        task._replace(version=8, present=(star.policy,)),
    )  # fmt: skip
    relayed = replace(nine, relayed=True)
    assert packed.present_s == (estimate(star.policy, relayed, sizes).seconds,)
    assert packed.present_s[0] < estimate(star.policy, nine, sizes).seconds
    hops = OverlayConfig(name="packing", routes="fewest_hops")
    packed = propose(hops, nine.centers, (), task._replace(version=8, present=(star.policy,)))
    assert packed.present_s == (estimate(star.policy, nine, sizes).seconds,)
    assert packed.seconds < packed.present_s[0] / 2
