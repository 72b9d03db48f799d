"""A plan from its inputs alone, so that another process can make it."""

from __future__ import annotations

from collections.abc import Sequence

from geojax.config import OverlayConfig
from geojax.overlay.policy import Policy
from geojax.overlay.registry import build_overlay
from geojax.overlay.view import NetworkView


def plan_policy(
    overlay: OverlayConfig,
    centers: Sequence[str],
    sites: Sequence[str],
    view: NetworkView,
    members: Sequence[str],
    sizes: Sequence[int],
    version: int,
) -> Policy:
    """The WAN's policy; made for :meth:`geojax.hips.machine.Machine.plan`.

    Args:
      overlay: the configured overlay.
      centers: names of all centers of the WAN.
      sites: names of the global servers on a site of their own.
      view: what is believed about the WAN.
      members: who contributes.
      sizes: elements of each chunk, in order.
      version: of the policy.

    Raises:
      ConfigError: the configured overlay is none, see :func:`build_overlay`.
    """
    return build_overlay(overlay, centers, sites).plan(view, members, sizes, version)
