"""Scripted failures, on experiment time, the same script on every testbed.

``testbed.faults`` is a list of these:

* ``{at, kind: kill, node}``: the node's process ends at once (SIGKILL); also a global server's
  (``external``);
* ``{at, kind: restart, node}``: a node that was killed is started again; a center's local server
  comes back with its workers;
* ``{at, kind: freeze, node, duration}``: the node does nothing for a while (SIGSTOP, SIGCONT);
* ``{at, kind: slow, node, duration, factor}``: the steps of the node, or of all workers of a
  center, last ``factor`` times as long;
* ``{at, kind: cut, between: [a, b], duration}``: no bit passes between two neighbours;
* ``{at, kind: partition, centers: [...], duration}``: none between these centers and the others.

Slow-downs become a pace profile, cuts and partitions become outages of the WAN. The testbed does
the rest in time. ``at`` and ``duration`` are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from geojax import fields
from geojax.config import RunConfig
from geojax.errors import ConfigError, nearest
from geojax.hips.cluster import Cluster
from geojax.overlay.view import Edge

PROCESS_KINDS = ("kill", "restart", "freeze")
_FIELDS = {
    "kill": ("node",),
    "restart": ("node",),
    "freeze": ("node", "duration"),
    "slow": ("node", "duration", "factor"),
    "cut": ("between", "duration"),
    "partition": ("centers", "duration"),
}


@dataclass(frozen=True)
class Fault:
    """Something that breaks, or is mended; see the module's docstring.

    Attributes:
      at: experiment time, s.
      kind: one of the kinds.
      node: the node; ``wan`` for cuts and partitions.
      duration: s.
    """

    at: float
    kind: str
    node: str
    duration: float = 0.0

    def event(self) -> dict[str, Any]:
        """The fault as an event of the run."""
        event: dict[str, Any] = {"t": self.at, "node": self.node, "event": "fault"}
        event["kind"] = self.kind
        if self.duration:
            event["duration"] = self.duration
        return event


def apply_faults(
    config: RunConfig, edges: Sequence[Edge], nodes: Sequence[str]
) -> tuple[RunConfig, tuple[Fault, ...]]:
    """Reads ``testbed.faults``.

    Args:
      config: the run.
      edges: the WAN's directed links.
      nodes: names of all nodes.

    Returns:
      The configuration with slow-downs in its paces and cuts in its WAN, and all faults by time.
      The testbed acts on those of :data:`PROCESS_KINDS`, and only records the others.

    Raises:
      ConfigError: names the entry, the value and the fix.
    """
    script: list[Any] = config.testbed.faults
    faults: list[Fault] = []
    paces, outages = _as_list(config.pace.profile), _as_list(config.wan.dynamics)
    for number, entry in enumerate(script):
        key = f"testbed.faults[{number}]"
        _check_entry(key, entry)
        at, duration = (
            fields.number(f"{key}.{name}", entry.get(name, 0.0), "seconds", zero=True)
            for name in ("at", "duration")
        )
        kind = entry["kind"]
        if kind in PROCESS_KINDS:
            node = _one_of(f"{key}.node", entry["node"], nodes)
            faults.append(Fault(at, kind, node, duration))
        elif kind == "slow":
            node = _one_of(f"{key}.node", entry["node"], nodes)
            target = {"worker" if "/" in node else "center": node}
            times = {"at": at, "duration": duration, "factor": entry["factor"]}
            paces.append({"kind": "slowdown", **target, **times})
            faults.append(Fault(at, kind, node, duration))
        else:
            links = _cut_links(key, entry, edges)
            outages.append({"kind": "outage", "links": links, "at": at, "duration": duration})
            faults.append(Fault(at, kind, "wan", duration))
    _check_restarts(faults)
    changed = replace(
        config,
        pace=replace(config.pace, profile=paces or None),
        wan=replace(config.wan, dynamics=outages or None),
    )
    return changed, tuple(sorted(faults, key=lambda fault: fault.at))


def restarted(fault: Fault, cluster: Cluster, is_dead: Callable[[str], bool]) -> tuple[str, ...]:
    """The nodes that a ``restart`` starts: the named one, and dead workers of a named server."""
    server = fault.node in cluster.servers
    workers = cluster.workers(fault.node) if server else ()
    return tuple(name for name in (fault.node, *workers) if is_dead(name))


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, Mapping) else list(value)


def _check_entry(key: str, entry: Any) -> None:
    if not isinstance(entry, Mapping) or not {"at", "kind"} <= set(entry):
        raise ConfigError(key, entry, "write {at: SECONDS, kind: KIND, ...}")
    kind = entry["kind"]
    if kind not in _FIELDS:
        raise ConfigError(f"{key}.kind", kind, nearest(str(kind), _FIELDS))
    wanted = {"at", "kind", *_FIELDS[kind]}
    if set(entry) != wanted:
        raise ConfigError(key, dict(entry), f"{kind} takes exactly: {', '.join(sorted(wanted))}")


def _one_of(key: str, value: Any, names: Sequence[str]) -> str:
    if value not in names:
        raise ConfigError(key, value, nearest(str(value), names))
    return value


def _cut_links(key: str, entry: Mapping[str, Any], edges: Sequence[Edge]) -> list[dict[str, str]]:
    field = "between" if entry["kind"] == "cut" else "centers"
    named = entry[field]
    centers = sorted({center for edge in edges for center in edge})
    if not isinstance(named, Sequence) or isinstance(named, str):
        raise ConfigError(f"{key}.{field}", named, "write a list of centers")
    sides = [_one_of(f"{key}.{field}", name, centers) for name in named]
    if field == "between":
        cut = [edge for edge in edges if set(edge) == set(sides)]
    else:
        cut = [edge for edge in edges if len(set(edge) & set(sides)) == 1]
    if not cut:
        raise ConfigError(f"{key}.{field}", named, "no link is cut by this; name other centers")
    return [{"from": source, "to": target} for source, target in cut]


def _check_restarts(faults: Sequence[Fault]) -> None:
    killed: set[str] = set()
    for fault in sorted(faults, key=lambda fault: fault.at):
        if fault.kind == "kill":
            killed.add(fault.node)
        elif fault.kind == "restart" and fault.node not in killed:
            raise ConfigError(
                "testbed.faults", fault.node, "only a node that was killed before can be restarted"
            )
