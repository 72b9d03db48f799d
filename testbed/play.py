"""One simulated run that leaves no files: only its events and reports are kept."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from geojax.assemble import Setup
from geojax.config import RunConfig
from testbed.run import prepare
from testbed.simulated.run import simulate
from testbed.wan.build import Wan


class Played(NamedTuple):
    """What a simulated run gave.

    Attributes:
      setup: configuration, nodes and view.
      wan: its WAN.
      events: of all nodes, in order of time.
      reports: of all nodes, by name.
    """

    setup: Setup
    wan: Wan
    events: list[dict[str, Any]]
    reports: dict[str, dict[str, Any]]


def play(config: RunConfig) -> Played:
    """Simulates a run in a folder that is removed.

    Raises:
      ConfigError: it could not start.
      GeojaxError: it failed.
    """
    events: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="geojax-simulated-") as folder:
        setup, wan, faults = prepare(config, Path(folder))
        setup.models.mkdir()
        reports, _ = simulate(setup, wan, faults, events.append)
    events.sort(key=lambda event: event["t"])
    return Played(setup, wan, events, reports)
