"""Scripted failures, on experiment time, the same script on every testbed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geojax.errors import ConfigError, nearest

KINDS = ("kill",)


@dataclass(frozen=True)
class Fault:
    """Something that breaks.

    Attributes:
      at: experiment time, s.
      kind: ``kill``: the node's process ends at once (SIGKILL).
      node: whose.
    """

    at: float
    kind: str
    node: str


def read_faults(script: Sequence[Any], nodes: Sequence[str]) -> tuple[Fault, ...]:
    """Validates ``testbed.faults`` and sorts it by time.

    >>> read_faults([{"at": 2, "kind": "kill", "node": "c1"}], ["c1"])
    (Fault(at=2.0, kind='kill', node='c1'),)

    Raises:
      ConfigError: names the entry, the value and the fix.
    """
    faults = []
    for number, entry in enumerate(script):
        key = f"testbed.faults[{number}]"
        if not isinstance(entry, Mapping) or set(entry) != {"at", "kind", "node"}:
            raise ConfigError(key, entry, "write {at: SECONDS, kind: kill, node: NAME}")
        at, kind, node = entry["at"], entry["kind"], entry["node"]
        if not isinstance(at, int | float) or not math.isfinite(at) or at < 0:
            raise ConfigError(f"{key}.at", at, "write seconds of experiment time")
        if kind not in KINDS:
            raise ConfigError(f"{key}.kind", kind, nearest(kind, KINDS))
        if node not in nodes:
            raise ConfigError(f"{key}.node", node, nearest(node, nodes))
        faults.append(Fault(float(at), kind, node))
    return tuple(sorted(faults, key=lambda fault: fault.at))
