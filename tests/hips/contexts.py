"""Contexts of nodes that a test plays by hand."""

from types import SimpleNamespace

from geojax.config import RunConfig
from geojax.hips.cluster import START, Cluster
from geojax.hips.context import NodeContext, Oracle
from geojax.overlay.view import NetworkView
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder


def node_context(
    name, transport, *, config=None, cluster=None, machine=None, clock=None, events=None
):
    """A context; what a test does not name is plain or empty. ``events``: a list that gets them."""
    clock = clock or Clock()
    events = [] if events is None else events
    setup = SimpleNamespace(
        config=config or RunConfig(), cluster=cluster or Cluster(()), resume=START,
        view=NetworkView((), {}, {}),
    )  # fmt: skip
    recorder = Recorder(name, events.append, clock=clock)
    return NodeContext(
        name, setup, Oracle(NetworkView((), {}, {})), transport, machine, clock, recorder
    )
