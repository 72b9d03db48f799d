"""The conformance table of selections: one row each, and every row meets every check."""

import pytest

from geojax.config import SelectionConfig
from geojax.errors import ConfigError
from geojax.selection.registry import SELECTIONS, build_selection

MEMBERS = ("c1", "c2", "c3", "c4", "c5")

# name of the row -> the configuration of the selection
SELECTION_ROWS = {
    "everyone": SelectionConfig(name="everyone"),
}

each_row = pytest.mark.parametrize("row", SELECTION_ROWS.values(), ids=SELECTION_ROWS.keys())


def test_every_registered_selection_has_a_row():
    assert {row.name for row in SELECTION_ROWS.values()} == set(SELECTIONS)


def test_a_wrong_name_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"selection\.name = 'everone': did you mean 'everyone'"):
        build_selection(SelectionConfig(name="everone"))


@each_row
@pytest.mark.parametrize("members", [MEMBERS, MEMBERS[1:], ("c4", "c2"), ("c3",)])
def test_it_chooses_at_least_one_member_each_once_and_in_member_order(row, members):
    chosen_of = build_selection(row)
    for number in range(50):
        chosen = chosen_of(number, members)
        assert isinstance(chosen, tuple)
        assert chosen
        assert list(chosen) == [name for name in members if name in chosen]


@each_row
def test_every_member_gets_its_turn(row):
    chosen_of = build_selection(row)
    seen = {name for number in range(500) for name in chosen_of(number, MEMBERS)}
    assert seen == set(MEMBERS)


@each_row
def test_the_choice_of_a_round_depends_on_nothing_else(row):
    first, second = build_selection(row), build_selection(row)
    asked_in_order = [first(number, MEMBERS) for number in range(20)]
    asked_backwards = [second(number, MEMBERS) for number in reversed(range(20))]
    assert asked_in_order == asked_backwards[::-1]


def test_everyone_is_everyone():
    assert build_selection(SelectionConfig(name="everyone"))(3, MEMBERS) == MEMBERS
