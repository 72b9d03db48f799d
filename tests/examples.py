"""How many examples a property test draws."""

from __future__ import annotations

from hypothesis import settings

USUAL = 100  # hypothesis' own count, which a test without a count of its own draws


def examples(count: int) -> settings:
    """Settings for ``count`` examples, as many times more or fewer as the profile draws."""
    return settings(max_examples=max(1, count * settings().max_examples // USUAL))
