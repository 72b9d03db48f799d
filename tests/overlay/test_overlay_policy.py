"""Dealing chunks to trees, and what a view and a tree answer."""

from hypothesis import given
from hypothesis import strategies as st

from geojax.overlay.policy.policy import Policy, Tree, deal
from geojax.overlay.view import NetworkView

shares = st.lists(st.integers(1, 1000), min_size=1, max_size=6)
sizes = st.lists(st.integers(1, 65_536), max_size=60)


def trees(weights):
    return tuple(Tree("c1", {}, share) for share in weights)


@given(shares, sizes)
def test_every_tree_gets_its_share_up_to_a_chunk(weights, chunks):
    placed = deal(trees(weights), chunks)
    assert len(placed) == len(chunks)
    largest = max(chunks, default=0)
    for index, share in enumerate(weights):
        target = sum(chunks) * share / sum(weights)
        given_out = sum(size for size, tree in zip(chunks, placed, strict=True) if tree == index)
        assert given_out - target <= largest + 1e-6
        assert target - given_out <= (len(weights) - 1) * largest + 1e-6


@given(shares, sizes)
def test_chunks_dealt_so_far_do_not_depend_on_later_ones(weights, chunks):
    half = len(chunks) // 2
    assert deal(trees(weights), chunks)[:half] == deal(trees(weights), chunks[:half])


@given(shares, sizes)
def test_only_the_proportions_of_shares_matter(weights, chunks):
    scaled = [share / 1024 for share in weights]  # a power of two: exact in floating point
    assert deal(trees(weights), chunks) == deal(trees(scaled), chunks)


def test_one_tree_takes_everything():
    assert deal(trees([1.0]), [5, 3, 9]) == (0, 0, 0)


def test_a_tree_without_share_gets_nothing():
    assert set(deal(trees([1.0, 0.0, 2.0]), [10] * 9)) == {0, 2}


def test_equal_shares_take_turns():
    assert deal(trees([1, 1, 1]), [8] * 6) == (0, 1, 2, 0, 1, 2)


def test_children_of_a_tree():
    tree = Tree("a", {"b": "a", "c": "b", "d": "a"})
    assert tree.children("a") == ("b", "d")
    assert tree.children("c") == ()


def test_results_go_the_way_up_backwards_or_a_way_of_their_own():
    up = {"b": "a", "c": "b"}
    same, other = Tree("a", up), Tree("a", up, down={"c": "a", "b": "c"})
    assert [same.receivers(name) for name in "abc"] == [("b",), ("c",), ()]
    assert [other.receivers(name) for name in "abc"] == [("c",), (), ("b",)]
    assert [other.children(name) for name in "abc"] == [("b",), ("c",), ()]
    assert (same.source, other.source) == (up, {"c": "a", "b": "c"})


def test_a_policy_with_a_passive_root_and_a_way_down_survives_the_wire():
    policy = Policy(
        4,
        ("a", "b"),
        (Tree("s", {"a": "s", "b": "s"}, 0.25), Tree("a", {"b": "a"}, 0.75, {"b": "a"})),
    )
    sent = policy.to_dict()
    assert sent["nodes"] == ["a", "b", "s"]
    received = Policy.from_dict(sent)
    assert received == policy
    assert [tree.down for tree in received.trees] == [None, {"b": "a"}]


def test_neighbours_in_wan_order():
    view = NetworkView(("a", "b", "c"), {("a", "c"): 1.0, ("a", "b"): 1.0}, {})
    assert view.neighbours("a") == ("b", "c")
    assert view.neighbours("b") == ()
