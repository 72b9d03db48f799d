"""The selections by their configured names."""

from __future__ import annotations

from geojax.config import SelectionConfig
from geojax.selection import (  # noqa: F401  they register themselves
    bayesian,
    brute_force,
    gbp_cs,
    genetic,
    milp,
    sampling,
)
from geojax.selection.choice import SELECTIONS, Choice, Selection, choose, choose_all, draws_for

__all__ = [
    "SELECTIONS", "Choice", "Selection", "build_selection", "choose", "choose_all", "draws_for",
]  # fmt: skip


def build_selection(config: SelectionConfig) -> Selection:
    """The configured selection; wrong names and values raise ``ConfigError``."""
    return SELECTIONS.build(config)
