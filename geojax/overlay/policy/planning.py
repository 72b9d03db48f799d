"""Planning as work that a process of its own can do: only plain values go in and come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from geojax.config import FASTEST, OverlayConfig
from geojax.overlay.policy.estimate import estimate
from geojax.overlay.policy.policy import Policy
from geojax.overlay.registry import build_overlay
from geojax.overlay.routes.auxiliary import PathTable, path_tables
from geojax.overlay.routes.static_routes import two_way
from geojax.overlay.view import NetworkView


class Task(NamedTuple):
    """What to plan for.

    Attributes:
      view: what is believed about the WAN.
      members: the living members of the WAN's group.
      sizes: elements of each chunk.
      layers: elements of each layer.
      version: of the new policy.
      present: policies that rounds go by now, the newest last; empty: there is nothing to compare.
    """

    view: NetworkView
    members: tuple[str, ...]
    sizes: tuple[int, ...]
    layers: tuple[int, ...]
    version: int
    present: tuple[Policy, ...] = ()


class Proposal(NamedTuple):
    """A policy, and what it is estimated to be worth.

    Attributes:
      policy: the new one.
      seconds: its estimated sync time; nothing to compare with: 0.
      present_s: that of each present policy on the same view; inf: it needs a link that is out.
    """

    policy: Policy
    seconds: float = 0.0
    present_s: tuple[float, ...] = ()


def relays(config: OverlayConfig, sites: Sequence[str]) -> bool:
    """Whether members relay chunks; a global server on a site of its own takes no part in it."""
    return config.routes == FASTEST and not sites


def plan_tables(
    config: OverlayConfig, sites: Sequence[str], view: NetworkView, *policies: Policy, seed: int
) -> dict[str, PathTable]:
    """The primary and auxiliary routes of all members (:func:`path_tables`)."""
    return path_tables(
        replace(view, relayed=relays(config, sites)), *policies, kind=config.auxiliary,
        elements=config.chunk_elements, seed=seed,
    )  # fmt: skip


def propose(
    config: OverlayConfig, centers: Sequence[str], sites: Sequence[str], task: Task
) -> Proposal:
    """Plans a policy, and estimates it and the present ones.

    Estimates are those of :mod:`geojax.overlay.policy.estimate`.
    A link counts as out while either direction is; see :func:`two_way`.

    Args:
      config: the overlay group of the run's configuration.
      centers: names of the WAN's centers.
      sites: names of the global servers on a site of their own.
      task: what to plan for.

    >>> view = NetworkView(("a", "b"), {("a", "b"): 32e3, ("b", "a"): 32e3}, {})
    >>> task = Task(view, ("a", "b"), (1000,) * 3, (3000,), 1)
    >>> propose(OverlayConfig(), ("a", "b"), (), task).policy.trees[0].root
    'a'
    """
    view = replace(two_way(task.view), relayed=relays(config, sites))
    planned = build_overlay(config, centers, sites).plan(
        view, task.members, task.sizes, task.version
    )
    if not task.present:
        return Proposal(planned)
    seconds, *present = (
        estimate(policy, view, task.sizes, task.layers).seconds
        for policy in (planned, *task.present)
    )
    return Proposal(planned, seconds, tuple(present))
