"""How many examples a property test draws."""

from __future__ import annotations

from hypothesis import settings

USUAL = 100  # hypothesis' own count, which a test without a count of its own draws


def examples(count: int) -> settings:
    """Settings for ``count`` examples, and for as many times more as the profile draws more."""
    return settings(max_examples=count * settings().max_examples // USUAL)
