"""Tree packing: the optimum, its certificate, and the trees that chunks are dealt to."""

import msgpack
import numpy as np
import pytest
from wans import full_mesh, path, random_wan, ring

from geojax.config import LanConfig
from geojax.errors import ConfigError
from geojax.overlay.bounds.fluid import fluid_optimum
from geojax.overlay.planners.columns import pack
from geojax.overlay.planners.effort import Effort
from geojax.overlay.planners.packing import ordered, packing, slowness, whole_chunks
from geojax.overlay.planners.short_trees import refit, shorten
from geojax.overlay.policy.policy import Policy, deal
from geojax.overlay.registry import OVERLAYS, build_overlay
from geojax.overlay.routes.shared_links import shared_links
from geojax.wire.frame import MAX_BODY_BYTES
from testbed.wan.build import build_wan, load_preset
from testbed.wan.generators import GENERATORS

CHUNKS = 403  # of 16,384 elements in LEAF's CNN


def sparse(count, seed, generator="random_sparse"):
    config = GENERATORS.settings(
        generator, centers=count, degree=4, rtt=10, draw={"low": 20, "high": 155}
    )
    return build_wan(config, LanConfig(), seed).view()


def draw(seed):
    return build_wan(load_preset("netstorm9_draw"), LanConfig(), seed).view()


def loads(view, policy, sizes):
    """What every link and cap carries when chunks are dealt, in elements."""
    loaded = {}
    for tree, size in zip(deal(policy.trees, sizes), sizes, strict=True):
        used = policy.trees[tree]
        hops = [*used.parent.items(), *((up, child) for child, up in used.source.items())]
        for source, target in hops:
            assert (source, target) in view.rate
            for key in ((source, target), ("out", source), ("in", target)):
                loaded[key] = loaded.get(key, 0) + size
    return loaded


def busiest(view, policy, sizes):
    """Time in which the slowest link or cap carries its load, s for elements of one bit."""
    capacity = {
        **view.rate,
        **{("out", center): cap for center, cap in view.egress.items()},
        **{("in", center): cap for center, cap in view.ingress.items()},
    }
    return max(
        load / capacity[key] for key, load in loads(view, policy, sizes).items() if key in capacity
    )


@pytest.mark.parametrize("seed", range(20))
def test_column_generation_reaches_the_optimum_of_the_linear_program(seed):
    view = random_wan(seed)
    packed = pack(shared_links(view, view.centers), gap=0.0)
    value, limit = packed.value, packed.limit
    assert value == pytest.approx(fluid_optimum(view, view.centers), rel=1e-5)
    assert value <= limit * (1 + 1e-9)
    assert limit == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (full_mesh(9, egress=1.0, ingress=1.0), 9 / 16),
        (ring(9), 9 / 8),
        (path(9), 1.0),
        (path(2), 1.0),
    ],
)
def test_closed_forms(view, expected):
    packed = pack(shared_links(view, view.centers), gap=0.0)
    assert packed.value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_the_certificate_holds_and_planning_stops_within_the_gap(gap):
    view = sparse(16, 1)
    packed = pack(shared_links(view, view.centers), gap=gap)
    optimum = fluid_optimum(view, view.centers)
    assert packed.value <= optimum * (1 + 1e-6)
    assert packed.limit >= optimum * (1 - 1e-6)
    assert packed.limit <= packed.value * (1 + gap + 1e-5)
    assert packed.gap == pytest.approx(packed.limit / packed.value - 1)
    exact = pack(shared_links(view, view.centers), gap=0.0)
    assert gap == 0 or packed.masters <= exact.masters


def test_planning_stops_with_its_effort_and_says_what_is_proven(caplog):
    view = full_mesh(8, rate=np.arange(1.0, 57.0))
    links = shared_links(view, view.centers)
    packed = pack(links, gap=0.0, effort=Effort(0.004))
    exact = pack(links, gap=0.0)
    assert packed.masters < exact.masters
    assert packed.gap > 0.001 > exact.gap
    assert packed.value < exact.value * (1 + 1e-6)
    assert packed.limit >= exact.value * (1 - 1e-6), "a certificate, however little was done"
    plans = [packing(effort=0.008).plan(view, view.centers, [16_384] * 50, 0) for _ in range(2)]
    assert plans[0] == plans[1]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2
    assert told[0].startswith("overlay.effort = 0.008 is spent: trees for 8 centers, whose rate is")
    packing().plan(view, view.centers, [16_384] * 50, 0)
    assert len(caplog.records) == 2, "nothing is told of a plan that is within the gap"


def test_efforts_have_parts_and_tell_how_far_they_are(caplog):
    effort = Effort(8.0, "a thing")
    part = effort.part(0.5)
    with caplog.at_level("DEBUG"):
        for _ in range(4):
            assert not part.over
            part.spend(1.0)
    assert part.over
    assert (effort.left, effort.part(0.9).left) == (4.0, 4.0)
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "planning a thing: 10 % of overlay.effort is spent"
    assert told[-1] == "planning a thing: 50 % of overlay.effort is spent"


def test_a_sketch_spans_the_members_and_solves_nothing(monkeypatch):
    """Configurations are checked by it: no plan of a run is made more than once."""
    view = draw(1)
    whole = packing().plan(view, view.centers, [16_384] * 50, 0)
    monkeypatch.setattr("geojax.overlay.planners.packing.pack", None)
    sketch = packing().sketch(view, view.centers, (1,), 0)
    (tree,) = sketch.trees
    assert sketch.members == whole.members
    for way in (tree.parent, tree.source):
        assert set(way) == set(view.centers) - {tree.root}
        assert all((child, up) in view.rate for child, up in way.items())


def test_long_trees_are_dealt_first_and_none_more_than_its_chunks():
    counts = np.array([10, 20, 5])
    placed = ordered(counts, np.array([0.0, 0.3, 0.6]))
    assert np.bincount(placed).tolist() == counts.tolist()
    last = [max(at for at, tree in enumerate(placed) if tree == each) for each in range(3)]
    assert last[2] < last[1] < last[0] == 34
    even = ordered(counts, np.zeros(3))
    for tree, count in enumerate(counts.tolist()):
        dealt = np.cumsum(np.array(even) == tree)
        assert np.abs(dealt - count * np.arange(1, 36) / 35).max() <= 1.0


@pytest.mark.parametrize("generator", ["random_sparse", "random_geometric"])
def test_32_centers_of_degree_4_come_within_3_percent(generator):
    view = sparse(32, 0, generator)
    links = shared_links(view, view.centers)
    packed = pack(links)
    assert packed.gap <= 0.0011
    policy = packing().plan(view, view.centers, [16_384] * CHUNKS, 0)
    ideal = CHUNKS * 16_384 / packed.value
    assert busiest(view, policy, [16_384] * CHUNKS) <= 1.06 * ideal


@pytest.mark.parametrize("seed", range(4))
def test_dealt_chunks_load_the_links_as_the_optimum_does(seed):
    view = random_wan(seed + 100)
    sizes = [16_384] * CHUNKS
    policy = packing().plan(view, view.centers, sizes, 0)
    ideal = sum(sizes) / fluid_optimum(view, view.centers)
    assert ideal * (1 - 1e-5) <= busiest(view, policy, sizes) <= 1.05 * ideal


def test_shares_are_whole_chunks_and_every_tree_gets_its_own():
    sizes = [16_384] * CHUNKS
    policy = packing().plan(draw(18), draw(18).centers, sizes, 0)
    placed = deal(policy.trees, sizes)
    assert [placed.count(tree) for tree in range(len(policy.trees))] == [
        pytest.approx(tree.share * CHUNKS) for tree in policy.trees
    ]


def test_chunks_of_a_tree_are_spread_evenly_over_the_vector():
    """Else a tree would still be busy when the others are done, or stand still at first."""
    sizes = [16_384] * CHUNKS
    policy = packing().plan(draw(18), draw(18).centers, sizes, 0)
    placed = np.array(deal(policy.trees, sizes))
    for index, tree in enumerate(policy.trees):
        so_far = np.cumsum(placed == index)
        assert np.abs(so_far - tree.share * np.arange(1, CHUNKS + 1)).max() <= 2.0


def test_a_few_trees_with_weights_of_their_own_are_nearly_as_good():
    view, sizes = draw(4), [16_384] * CHUNKS
    whole = packing().plan(view, view.centers, sizes, 0)
    few = packing(max_trees=5).plan(view, view.centers, sizes, 0)
    one = packing(max_trees=1).plan(view, view.centers, sizes, 0)
    assert (len(few.trees), len(one.trees)) == (5, 1)
    assert len(whole.trees) > 5
    slow = [busiest(view, policy, sizes) for policy in (whole, few, one)]
    assert slow == sorted(slow)
    assert slow[1] <= 1.25 * slow[0]


def test_kept_trees_get_their_weights_anew():
    view = draw(4)
    packed = pack(shared_links(view, view.centers))
    found = shorten(packed, slowness(packed.columns.links) * 1e3, Effort(1.0))
    heaviest = np.argsort(-found.rates)[:3]
    kept = refit(packed.columns, [found.pairs[index] for index in heaviest])
    assert kept.value > found.rates[heaviest].sum()


def test_rounding_gives_out_every_chunk_and_no_share_loses_one():
    view = full_mesh(6, rate=np.arange(20.0, 50.0))
    found = pack(shared_links(view, view.centers)).packing
    for chunks in (1, 7, 403):
        counts = whole_chunks(found, chunks)
        assert counts.sum() == chunks
        assert (counts >= np.floor(chunks * found.rates / found.value)).all()


def test_a_mesh_of_equal_links_gets_the_sharded_star():
    view = full_mesh(9, rate=100e6)
    policy = packing().plan(view, view.centers, [16_384] * CHUNKS, 0)
    assert all(set(tree.parent.values()) == {tree.root} for tree in policy.trees)
    assert all(set(tree.source.values()) == {tree.root} for tree in policy.trees)


# ---- members that are not all the centers


def test_others_relay_where_they_lie_between_members():
    view = path(4, rate=8e6)
    links = shared_links(view, ("c1", "c3", "c4"))
    named = [(links.members[a], links.members[b]) for a, b in zip(links.sources, links.targets,
             strict=True)]  # fmt: skip
    assert named == [("c1", "c3"), ("c3", "c1"), ("c3", "c4"), ("c4", "c3")]
    assert links.use.sum(axis=0).tolist() == [2, 2, 1, 1]  # c1 - c3 lies over c2


def test_a_relay_pays_with_its_caps():
    view = path(3, rate=8e6, egress=4e6, ingress=6e6)
    packed = pack(shared_links(view, ("c1", "c3")))
    assert packed.packing.value == pytest.approx(2e6)  # c2 sends both ways


def test_a_link_without_rate_carries_nothing_that_another_can():
    view = ring(4, rate=8e6)
    dead = {("c1", "c2"), ("c2", "c1")}
    broken = type(view)(
        view.centers, {e: 0.0 if e in dead else r for e, r in view.rate.items()}, {}
    )
    policy = packing().plan(broken, view.centers, [10] * 50, 0)
    assert not dead & loads(broken, policy, [10] * 50).keys()


# ---- on the wire, and in the configuration


def test_a_policy_for_40_centers_fits_into_a_control_message():
    view = sparse(40, 0)
    policy = packing().plan(view, view.centers, [16_384] * CHUNKS, 7)
    assert len(policy.trees) > 40
    body = {"type": "start", "policies": {"0": policy.to_dict()}}
    assert len(msgpack.packb(body)) < MAX_BODY_BYTES / 2
    assert Policy.from_dict(policy.to_dict()) == policy


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"root": "c1"}, "overlay.root"),
        ({"max_trees": 0}, "overlay.max_trees"),
        ({"gap": -0.1}, "overlay.gap"),
        ({"gap": 1.0}, "overlay.gap"),
    ],
)
def test_wrong_settings_are_refused(settings, key):
    with pytest.raises(ConfigError) as raised:
        build_overlay(OVERLAYS.settings("packing", **settings), ("c1", "c2"))
    assert raised.value.key == key
