"""Whole runs on virtual time with a model that costs nothing, for tests of the protocol."""

import copy
import functools
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from geojax.axes import change
from geojax.config import RunConfig
from geojax.errors import GeojaxError
from geojax.models.registry import SyntheticConfig
from testbed.run import prepare
from testbed.simulated.run import simulate
from testbed.wan.build import load_preset

__all__ = ["Outcome", "kill", "simulated", "small_config"]


def small_config(*, rounds=6, workers=1, elements=1000, chunk_elements=300, wan="three_centers",
                 **settings):  # fmt: skip
    """Three centers that exchange a synthetic model in four small chunks.

    ``settings``: any other key of the configuration, with ``__`` for the dot; None: its
    default, if there is such a key.
    """
    config = RunConfig()
    config.wan = copy.deepcopy(_preset(wan))
    config.testbed.name = "simulated"
    config.model = SyntheticConfig(bytes=4 * elements, pace_s=0.01)
    config.rounds, config.lan.workers = rounds, workers
    config.overlay.chunk_elements = chunk_elements
    config.hash_every = 1
    given = {key.replace("__", "."): value for key, value in settings.items()}
    change(config, {key: value for key, value in given.items() if value is not None})
    for group, _, name in (key.partition(".") for key, value in given.items() if value is None):
        target = getattr(config, group)
        if name in vars(target):
            setattr(target, name, getattr(type(target)(), name))
    return config


_preset = functools.cache(load_preset)


@dataclass
class Outcome:
    """What a run left; ``final`` is the model of the last round."""

    events: list = field(default_factory=list)
    reports: dict = field(default_factory=dict)
    spans: dict = field(default_factory=dict)
    final: np.ndarray | None = None
    error: GeojaxError | None = None

    def of(self, name):
        """The events of a name, in order."""
        return [event for event in self.events if event["event"] == name]

    @property
    def finals(self):
        """Last round and digest of every center that reached the end."""
        return {event["node"]: (event["round"], event["digest"]) for event in self.of("final")}

    @property
    def end(self):
        """Time of the last event, experiment s."""
        return max(event["t"] for event in self.events)

    @property
    def accused(self):
        """Those of whom anybody refused a message, or says that they owe one for too long."""
        owing = {event["peer"] for event in self.of("owed") if event["accuses"]}
        return {event["peer"] for event in self.of("refused")} | owing

    def rounds_of(self, node):
        return [event["round"] for event in self.of("round") if event["node"] == node]

    def lines(self):
        """What ``events.jsonl`` would hold."""
        return "".join(json.dumps(event) + "\n" for event in self.events)


def simulated(
    config: RunConfig, *, fails: bool | None = False, folder=None, watch=lambda event: None
):
    """Runs; an error is raised unless it is expected (``fails``), and then it is in the outcome.

    ``folder``: the run's directory, where checkpoints are; by default one that is not kept.
    ``watch`` is called with every event as it happens.
    """
    outcome = Outcome()

    def sink(event):
        outcome.events.append(event)
        watch(event)

    with tempfile.TemporaryDirectory() as passing:
        setup, wan, faults = prepare(config, Path(folder or passing))
        setup.models.mkdir(exist_ok=True)
        try:
            outcome.reports, outcome.spans = simulate(setup, wan, faults, sink)
        except GeojaxError as error:
            if not fails:
                raise
            outcome.error = error
        final = setup.models / "final.npy"
        outcome.final = np.load(final) if final.exists() else None
    assert fails in (None, outcome.error is not None)
    return outcome


def kill(node, at):
    return {"at": at, "kind": "kill", "node": node}
