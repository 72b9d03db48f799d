"""The record that every overlay is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from geojax.config import OverlayConfig
from geojax.overlay.policy.policy import Policy
from geojax.overlay.view import NetworkView
from geojax.registry import Registry

Plan = Callable[[NetworkView, Sequence[str], Sequence[int], int], Policy]


class Overlay(NamedTuple):
    """Plans exchange trees over a WAN.

    Attributes:
      name: as configured.
      plan: ``plan(view, members, sizes, version) -> Policy``: trees over ``members`` (centers of
        the view, in their fixed order) for chunks of ``sizes`` elements. A pure function: equal
        arguments give equal policies, on every machine. An overlay that was made for global servers
        on a site of their own finds those that live last among ``members``; they are no members of
        its policy, as they do not contribute.
      follows_rates: whether plans depend on the rates of the view, so that it is worth to plan anew
        when they change.
      serves: whether its trees are stars on every network, so that their roots can be global
        servers, with which centers exchange one by one.
      sketch: a plan of the same shape that takes no time, by which a configuration is checked;
        None: ``plan`` takes none.
    """

    name: str
    plan: Plan
    follows_rates: bool = False
    serves: bool = False
    sketch: Plan | None = None


Build = Callable[[Any, Sequence[str], Sequence[str]], Overlay]
"""``(settings, centers, sites) -> Overlay``; see :func:`geojax.overlay.registry.build_overlay`."""

OVERLAYS: Registry[Build] = Registry("overlay.name", OverlayConfig)
