"""What a run directory holds for pictures: its WAN, events, spans, policies, rates over time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf.errors import OmegaConfBaseException

from experiments.runs import schema
from geojax.config import RunConfig
from geojax.errors import GeojaxError
from geojax.hips.cluster import WAN_GROUP, Cluster, NodeSpec
from geojax.overlay.planners.multigps import server_count
from geojax.overlay.policy.policy import Policy
from geojax.overlay.view import Edge
from geojax.telemetry.recorder import traced_spans
from testbed.wan.build import Wan, build_wan
from testbed.wan.dynamics.kept_traces import with_kept_traces
from testbed.wan.hops import hops

Event = Mapping[str, Any]
Rates = Mapping[Edge, float]  # of the directed links, bit/s


class NodeSpan(NamedTuple):
    """Something that took time at one node, in experiment seconds."""

    node: str
    name: str  # "compute", "wait", "send"
    start: float
    end: float
    args: Mapping[str, Any]


class Planned(NamedTuple):
    """A policy of the WAN and when it came.

    Attributes:
      at: experiment time, s.
      first: the first round that goes by it.
      policy: its trees.
      shares: of the model, by tree; they add up to 1.
      reason: why it was planned.
    """

    at: float
    first: int
    policy: Policy
    shares: tuple[float, ...]
    reason: str


class Window(NamedTuple):
    """When a round was exchanged: from its first offer or bit to its last whole result, s."""

    start: float
    end: float


@dataclass(frozen=True)
class RunRecords:
    """One run directory, read as far as it is asked for.

    Attributes:
      path: the directory.
      config: of the run.
      wan: as it was at t = 0, without the faults that were scripted.
      cluster: the nodes.
      events: in order of time.
    """

    path: Path
    config: RunConfig
    wan: Wan
    cluster: Cluster
    events: Sequence[Event]

    @cached_property
    def hops(self) -> Mapping[Edge, tuple[Edge, ...]]:
        """The directed WAN links that lie between two nodes."""
        return hops(self.wan, self.cluster)

    @cached_property
    def planned(self) -> tuple[Planned, ...]:
        """The policies of the WAN, in order."""
        return tuple(_planned(self.events))

    @cached_property
    def rates(self) -> tuple[tuple[float, Rates], ...]:
        """From when on which rates were in force, in order; the first from the start."""
        spells: list[tuple[float, Rates]] = [(0.0, {e.edge: e.rate for e in self.wan.links})]
        for event in self.events:
            if event["event"] == "rates":
                changed = {(source, target): rate for source, target, rate in event["rates"]}
                spells.append((event["t"], {**spells[-1][1], **changed}))
        return tuple(spells)

    @cached_property
    def spans(self) -> tuple[NodeSpan, ...]:
        """What the nodes did, from ``trace.json``.

        Raises:
          GeojaxError: there is no such file, or it holds no trace.
        """
        path = self.path / "trace.json"
        try:
            traced = traced_spans(json.loads(path.read_text()))
        except FileNotFoundError:
            fix = "is written at the end of a run; let the run end, or run it again"
            raise GeojaxError(f"{path} {fix}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise GeojaxError(f"{path} holds no trace: run it again") from error
        return tuple(NodeSpan(n, s.name, s.start, s.end, s.args) for n in traced for s in traced[n])

    @cached_property
    def wan_sends(self) -> tuple[tuple[NodeSpan, tuple[Edge, ...]], ...]:
        """What was sent from one center to another, with the links that it crossed.

        Raises:
          GeojaxError: as :attr:`spans`, and where the spans do not say how many bytes they are.
        """
        found = []
        for span in self.spans:
            crossed = self.hops[span.node, span.args["peer"]] if span.name == "send" else ()
            if crossed and "bytes" not in span.args:
                fix = "does not say how many bytes were sent: an older version wrote it; run again"
                raise GeojaxError(f"{self.path / 'trace.json'} {fix}")
            if crossed:
                found.append((span, crossed))
        return tuple(found)

    @cached_property
    def windows(self) -> Mapping[int, Window]:
        """When each round was exchanged, in order; empty where centers go at their own paces."""
        if any(event["event"] == "applied" for event in self.events):
            return {}
        starts: dict[int, float] = {}
        ends: dict[int, float] = {}
        for event in self.events:
            if event["event"] == "round":
                number = event["round"]
                starts[number] = min(starts.get(number, event["offered"]), event["offered"])
                ends[number] = max(ends.get(number, 0.0), event["held"])
        return {number: Window(starts[number], ends[number]) for number in sorted(ends)}

    def marks(self) -> dict[str, list[float]]:
        """Instants worth a line in pictures over time: changes of rates, policies after the first.

        Changes of rates are left out where they are too many to tell anything.
        """
        rates = [at for at, _ in self.rates[1:]]
        policies = [planned.at for planned in self.planned[1:]]
        return {"rates change": rates if len(rates) <= _MANY else [], "new policy": policies}


_MANY = 60


def read_records(run_dir: Path) -> RunRecords:
    """Reads a run directory.

    Raises:
      GeojaxError: its configuration or its events are missing, or cannot be read.
    """
    try:
        config = schema.load(run_dir / "config.yaml")
        lines = (run_dir / "events.jsonl").read_text().splitlines()
    except FileNotFoundError as error:
        raise GeojaxError(f"{run_dir}: there is no {Path(error.filename).name}") from None
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0]
        raise GeojaxError(f"{run_dir}/config.yaml is of another version: {said}") from None
    events = [json.loads(line) for line in lines if line.endswith("}")]
    config.wan.dynamics = with_kept_traces(config.wan.dynamics, run_dir)
    wan = build_wan(config.wan, config.lan, config.seed, server_count(config.overlay))
    cluster = Cluster(tuple(NodeSpec(node.name, node.center, node.role) for node in wan.nodes()))
    return RunRecords(run_dir, config, wan, cluster, events)


def _planned(events: Sequence[Event]) -> list[Planned]:
    found: list[Planned] = []
    for event in events:
        if event["event"] in ("start", "epoch") and "policies" in event:
            described = event["policies"][str(WAN_GROUP)]
            first, reason = event.get("held", -1) + 1, "members change"
            reason = reason if event["event"] == "epoch" else "start"
        elif event["event"] == "policy":
            described, first = event["policy"], event["first"]
            reason = event["reason"]
        else:
            if event["event"] == "loads" and found:
                found[-1] = _loaded(found[-1], event)
            continue
        policy = Policy.from_dict(described)
        total = sum(tree.share for tree in policy.trees)
        shares = tuple(tree.share / total for tree in policy.trees)
        found.append(Planned(event["t"], first, policy, shares, reason))
    return found


def _loaded(planned: Planned, event: Event) -> Planned:
    """With the shares that the trees really carry, which the cut into chunks decides."""
    elements = event["elements"]
    roots = [tree.root for tree in planned.policy.trees]
    if sorted(roots) != sorted(elements):  # several trees of one root: they are told in one number
        return planned
    total = sum(elements.values())
    return planned._replace(shares=tuple(elements[root] / total for root in roots))
