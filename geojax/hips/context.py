"""What one node of a run knows and works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from geojax.config import RunConfig
from geojax.hips.cluster import Cluster, ResumePoint
from geojax.machine.machine import Machine
from geojax.overlay.view import NetworkView
from geojax.telemetry.clock import Clock
from geojax.telemetry.recorder import Recorder
from geojax.wire.transport import Transport


class RunSetup(Protocol):
    """What all nodes of a run know; :class:`geojax.assemble.setup.Setup` adds data and models."""

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        ...

    @property
    def cluster(self) -> Cluster:
        """All nodes."""
        ...

    @property
    def resume(self) -> ResumePoint:
        """Where the run goes on, if it continues a broken one."""
        ...


S = TypeVar("S", bound=RunSetup, covariant=True)


@dataclass
class Oracle:
    """What only the testbed knows while a run goes on. The testbed writes it, the scheduler reads.

    Attributes:
      view: the WAN as it is now.
      reached: experiment time of the evaluation by which the run has reached its target, s: it may
        end (``stop_at_target``), and nothing counts after that; None: it has not.
    """

    view: NetworkView
    reached: float | None = None


@dataclass(frozen=True)
class NodeContext(Generic[S]):
    """Everything that the parts of one node share.

    Attributes:
      name: of the node.
      setup: what all nodes of the run know.
      oracle: what only the testbed knows.
      transport: moves the node's messages.
      machine: where its work runs and what it is charged.
      clock: experiment time.
      recorder: takes its events.
      restarted: the node has lived in this run before; what it counted then is in the recorder, the
        transport and the machine.
    """

    name: str
    setup: S
    oracle: Oracle
    transport: Transport
    machine: Machine
    clock: Clock
    recorder: Recorder
    restarted: bool = False
