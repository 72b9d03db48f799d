"""Who takes part in a round, by configured name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from geojax.config import SelectionConfig
from geojax.registry import Registry

Selection = Callable[[int, Sequence[str]], tuple[str, ...]]
"""``(round, members) -> those who take part``."""

SELECTIONS: Registry[Callable[[Any], Selection]] = Registry("selection.name", SelectionConfig)


@SELECTIONS.register("everyone")
def _everyone(config: SelectionConfig) -> Selection:
    del config
    return lambda _number, members: tuple(members)


def build_selection(config: SelectionConfig) -> Selection:
    """The configured selection; a wrong name raises ``ConfigError``."""
    return SELECTIONS.build(config)
