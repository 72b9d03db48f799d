"""How old offers were when global servers merged them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def staleness(events: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Of all offers: in merges since the parameters that they began with were sent, and in seconds.

    The seconds (``mean_s``, ``p95_s``, ``max_s``) are from the instant at which the first worker of
    the center held these parameters until the merge; in the first round from the start of the
    run. Offers are left out whose center had come back and pulled without a round before.

    >>> held = {"event": "round", "node": "c1", "round": 0, "held": 2.0}
    >>> applied = {"event": "applied", "center": "c1", "staleness": 0}
    >>> merges = [{**applied, "t": 1.5, "round": 0}, {**applied, "t": 4.5, "round": 1}]
    >>> found = staleness([*merges, held])
    >>> found["max"], found["mean_s"], found["max_s"]
    (0, 2.0, 2.5)

    Args:
      events: of all nodes.

    Returns:
      None: nothing was merged at global servers.
    """
    applied = [event for event in events if event["event"] == "applied"]
    if not applied:
        return None
    held: dict[tuple[str, int], float] = {}
    for event in events:
        if event["event"] == "round":
            at = event["node"].partition("/")[0], event["round"]
            held[at] = min(event["held"], held.get(at, event["held"]))
    merges = [event["staleness"] for event in applied]
    begun = [
        (event["t"], held.get((event["center"], event["round"] - 1)) if event["round"] else 0.0)
        for event in applied
    ]
    seconds = [merged - since for merged, since in begun if since is not None]
    return {**_figures(merges, ""), **(_figures(seconds, "_s") if seconds else {})}


def _figures(values: Sequence[float], unit: str) -> dict[str, float]:
    return {
        f"mean{unit}": float(np.mean(values)),
        f"p95{unit}": float(np.percentile(values, 95)),
        f"max{unit}": max(values),
    }
