"""Global servers keep their chunks while they live."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.errors import GeojaxError
from geojax.overlay.planners.keep_roots import keep_roots
from geojax.overlay.planners.star import star_tree
from geojax.overlay.policy.placement import place
from geojax.overlay.policy.policy import Policy, Tree

SIZES = (10, 10, 10, 5)
MEMBERS = ("a", "b", "c")


def stars(*roots, members=MEMBERS, placement=(), version=0):
    trees = tuple(Tree(r, star_tree(r, members).parent, 1 / len(roots)) for r in roots)
    return Policy(version, tuple(members), trees, fixed=tuple(placement))


def homes(policy):
    return [policy.trees[tree].root for tree in place(policy, SIZES)]


def test_an_explicit_placement_survives_the_wire():
    policy = stars("a", "b", placement=(0, 1, 1, 0))
    assert Policy.from_dict(policy.to_dict()) == policy
    assert place(policy, SIZES) == (0, 1, 1, 0)
    assert "fixed" not in stars("a").to_dict()


def test_a_new_plan_moves_nothing_while_all_live():
    before = stars("c", "b", placement=(0, 1, 0, 1))
    kept = keep_roots(
        before,
        stars(*MEMBERS, version=7),
        SIZES,
        place,
        holding=MEMBERS,
        fresh=dict.fromkeys(MEMBERS, 0),
    )
    assert homes(kept) == ["c", "b", "c", "b"]
    assert (kept.version, kept.members) == (7, MEMBERS)
    assert [tree.share for tree in kept.trees] == pytest.approx([20 / 35, 15 / 35])


def test_chunks_of_the_dead_go_to_their_planned_root():
    before = stars("a", "b", placement=(0, 1, 0, 1))
    planned = stars("b", "c", members=("b", "c"), placement=(0, 0, 1, 1))
    kept = keep_roots(before, planned, SIZES, place, holding=("b", "c"), fresh={"b": 1, "c": 1})
    assert homes(kept) == ["b", "b", "c", "b"]
    assert kept.trees[0].parent == {"c": "b"}


def test_or_to_the_freshest_center_when_that_has_no_parameters():
    """The planned root comes back from the dead itself."""
    before, planned = stars("a"), stars("a", version=2)
    kept = keep_roots(before, planned, SIZES, place, holding=("b", "c"), fresh={"b": 3, "c": 4})
    assert homes(kept) == ["c"] * 4
    kept = keep_roots(before, planned, SIZES, place, holding=("b", "c"), fresh={"b": 4, "c": 4})
    assert homes(kept) == ["b"] * 4


def test_a_server_that_is_no_center_holds_but_takes_nothing_over():
    before = stars("g1", "g2", placement=(0, 1, 0, 1))
    planned = stars("g2")
    kept = keep_roots(
        before, planned, SIZES, place, holding=(*MEMBERS, "g2"), fresh={"a": 1, "b": 2}
    )
    assert homes(kept) == ["b", "g2", "b", "g2"]
    assert kept.passive == ("g2",)


def test_without_any_parameters_the_run_is_lost():
    with pytest.raises(GeojaxError, match="the parameters are lost: a is dead"):
        keep_roots(stars("a"), stars("b"), SIZES, place, holding=(), fresh={})


nodes = st.sampled_from(["a", "b", "c", "g"])


@given(
    roots=st.lists(nodes, min_size=1, max_size=4, unique=True),
    new=st.lists(nodes, min_size=1, max_size=4, unique=True),
    holding=st.sets(nodes), stateful=st.sets(st.sampled_from(MEMBERS), min_size=1),
)  # fmt: skip
def test_every_chunk_is_with_who_holds_it_or_with_a_center_that_has_parameters(
    roots, new, holding, stateful
):
    before = stars(*roots)
    fresh = {name: 0 for name in MEMBERS if name in stateful}
    kept = keep_roots(before, stars(*new), SIZES, place, holding=holding, fresh=fresh)
    for was, now in zip(homes(before), homes(kept), strict=True):
        assert now == was if was in holding else now in fresh
    assert sum(tree.share for tree in kept.trees) == pytest.approx(1)
