"""Chunks to trees: by bytes no server is much above the mean, by key GeoMX's rule to the letter."""

from itertools import accumulate, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.config import OverlayConfig
from geojax.overlay.planners.multigps import MultigpsConfig, multigps
from geojax.overlay.policy.cutting import chunk_ranges, packed, unpacked
from geojax.overlay.policy.placement import by_bytes, by_key, ends_of_parts, loads, place
from geojax.overlay.policy.policy import Policy, Tree, deal
from geojax.overlay.view import NetworkView
from geojax.wire.frame import MAX_BODY_BYTES, pack_body

DEMO_CNN = [400, 16, 12_800, 32, 131_072, 256, 32_768, 128, 1_280, 10]
LEAF_CNN = [800, 32, 51_200, 64, 6_422_528, 2_048, 126_976, 62]  # 62 classes: 6,603,710
CENTERS = tuple("abcdef")


def configured(servers, placement="bytes", chunk_elements=65_536):
    return MultigpsConfig(servers=servers, placement=placement, chunk_elements=chunk_elements)


def policy_of(servers, placement="bytes"):
    view = NetworkView(CENTERS, rate={}, delay={})
    overlay = multigps(servers=servers, placement=placement)
    return overlay.plan(view, CENTERS, (1,), 0)


def sizes_of(ranges):
    return [stop - start for start, stop in ranges]


def carried(config, layers):
    """Elements and chunks of every server."""
    sizes = sizes_of(chunk_ranges(config, layers))
    policy = policy_of(config.servers, config.placement)
    placed = place(policy, sizes, layers)
    counts = [placed.count(tree) for tree in range(len(policy.trees))]
    return loads(policy, sizes, layers), counts


@pytest.mark.parametrize(("layers", "servers"), [(DEMO_CNN, 2), (DEMO_CNN, 4), (LEAF_CNN, 4)])
def test_by_bytes_the_most_loaded_server_is_at_most_5_percent_above_the_mean(layers, servers):
    elements, counts = carried(configured(servers), layers)
    assert sum(elements) == sum(layers)
    assert max(elements) <= 1.05 * sum(layers) / servers
    assert min(counts) >= 40


@given(
    st.lists(st.integers(1, 60_000), min_size=1, max_size=20),
    st.integers(1, 6),
    st.integers(1_000, 70_000),
)
def test_by_bytes_that_holds_for_every_model_of_40_elements_a_server(layers, servers, chunk):
    layers.append(40 * servers)
    elements, counts = carried(configured(servers, chunk_elements=chunk), layers)
    assert max(elements) <= 1.05 * sum(layers) / servers
    assert min(counts) >= 40


def test_leaf_and_demo_cnn_have_their_published_sizes():
    assert (sum(DEMO_CNN), sum(LEAF_CNN)) == (178_762, 6_603_710)


@given(st.integers(1, 3), st.lists(st.integers(1, 100), min_size=1, max_size=6))
def test_longest_first_is_within_grahams_bound_of_the_best_placement(count, sizes):
    def largest(placed):
        return max(
            sum(size for size, at in zip(sizes, placed, strict=True) if at == tree)
            for tree in range(count)
        )

    best = min(map(largest, product(range(count), repeat=len(sizes))))
    assert largest(by_bytes(count, sizes)) <= best * (4 / 3 - 1 / (3 * count)) + 1e-9


def test_by_key_the_demo_cnn_is_badly_balanced_on_two_servers():
    """9973 is odd, so key · 9973 mod 2 is the key's parity: weights here, biases there."""
    elements, _ = carried(configured(2, "geomx"), DEMO_CNN)
    assert elements == (178_320, 442)
    assert max(elements) / (sum(elements) / 2) > 1.99


def test_by_key_a_large_layer_is_cut_evenly_and_a_small_one_goes_whole():
    ranges = chunk_ranges(configured(4, "geomx"), LEAF_CNN)
    sizes = sizes_of(ranges)
    placed = by_key(4, sizes, LEAF_CNN)
    starts = [0, *accumulate(LEAF_CNN)]
    for key, layer in enumerate(LEAF_CNN):
        mine = [
            (size, tree)
            for (start, stop), size, tree in zip(ranges, sizes, placed, strict=True)
            if starts[key] <= start and stop <= starts[key + 1]
        ]
        assert sum(size for size, _ in mine) == layer
        if layer < 1_000_000:
            assert {tree for _, tree in mine} == {key * 9973 % 4}
        else:
            assert [sum(s for s, t in mine if t == tree) for tree in range(4)] == [1_605_632] * 4
            assert [tree for _, tree in mine] == sorted(tree for _, tree in mine)


@given(st.integers(1_000_000, 3_000_000), st.integers(1, 7), st.integers(20_000, 400_000))
def test_parts_of_a_large_layer_are_those_of_the_rule(layer, count, chunk):
    """Part i has round(N/n · (i + 1)) − round(N/n · i) elements."""
    ends = ends_of_parts(layer, count)
    exact = [int(layer * part / count + 0.5) for part in range(1, count + 1)]
    assert list(ends) == exact
    config = configured(count, "geomx", chunk)
    sizes = sizes_of(chunk_ranges(config, [7, layer]))
    parts = [0] * count
    for size, tree in list(zip(sizes, by_key(count, sizes, [7, layer]), strict=True))[1:]:
        parts[tree] += size
    assert parts == [b - a for a, b in zip([0, *exact], exact, strict=False)]


def test_by_key_chunks_must_lie_within_layers():
    with pytest.raises(ValueError, match="chunk 1 does not lie within one layer"):
        by_key(2, [400, 20], [400, 16, 4])
    with pytest.raises(ValueError, match="chunk 0"):
        place(policy_of(2, "geomx"), [10])


def test_fewer_trees_than_the_chunks_were_cut_for_carry_all():
    """A server has died: the others take its chunks, cut as they are."""
    sizes = sizes_of(chunk_ranges(configured(4, "geomx"), LEAF_CNN))
    assert set(by_key(3, sizes, LEAF_CNN)) == {0, 1, 2}
    assert sum(loads(policy_of(3, "geomx"), sizes, LEAF_CNN)) == sum(LEAF_CNN)


def test_other_policies_go_by_shares():
    trees = (Tree("a", {}, 2.0), Tree("b", {}, 1.0))
    policy = Policy(0, ("a", "b"), trees)
    assert place(policy, [10, 10, 10]) == deal(trees, [10, 10, 10])
    assert loads(policy, [10, 10, 10]) == (20, 10)


sizes = st.lists(st.integers(1, 3000), min_size=1, max_size=8)


@given(sizes, st.integers(1, 700), st.lists(st.integers(1, 5000), max_size=5))
def test_ranges_follow_each_other_and_heed_every_boundary(layers, chunk, offsets):
    total = sum(layers)
    boundaries = [offset for offset in offsets if offset <= total]
    by_key = configured(3, "geomx", chunk)
    for config in (OverlayConfig(chunk_elements=chunk), configured(3, "bytes", chunk), by_key):
        ranges = chunk_ranges(config, layers, boundaries)
        assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges)][:-1]
        assert ranges[-1][1] == total
        assert all(0 < stop - start <= chunk for start, stop in ranges)
        cuts = set(boundaries) | (set(accumulate(layers)) if config is by_key else set())
        assert cuts <= {stop for _, stop in ranges}


@given(st.lists(st.integers(1, 5), max_size=50))
def test_what_is_packed_comes_out_again(numbers):
    assert unpacked(packed(numbers)) == tuple(numbers)


def test_the_cut_of_a_large_model_fits_into_a_control_message():
    """A hundred million elements, six hundred layers, and chunks of 16,384 within layers."""
    layers = [1 + (index * 7919) % 330_000 for index in range(600)]
    ranges = chunk_ranges(configured(4, "geomx", 16_384), layers)
    assert len(ranges) > 5000
    told = {"sizes": packed(sizes_of(ranges)), "layers": packed(layers)}
    assert len(pack_body(told)) < MAX_BODY_BYTES / 2
