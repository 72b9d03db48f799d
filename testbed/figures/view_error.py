"""How far a run's measured view was from the rates of the WAN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geojax.overlay.view import Edge, NetworkView

Event = Mapping[str, Any]


def view_error(
    view: NetworkView, events: Sequence[Event], goodput_factor: float | None
) -> dict[str, dict[str, float]]:
    """The error of the measured view over time, for ``summary.json``.

    A link's error is |believed rate ÷ (goodput factor × rate in force) − 1|. Mean and 95th
    percentile are taken over all links of positive rate and over the time from the first view to
    the end of the run, in which each view holds until the next one. Links that were never measured
    count with what is believed of them.

    Args:
      view: the WAN at t = 0.
      events: of the run, in order of time.
      goodput_factor: TCP payload ÷ link rate; None: not known.

    Returns:
      ``{"view_error": {"mean": ..., "p95": ...}}``, or nothing where no view was recorded.
    """
    if not goodput_factor or not any(event["event"] == "view" for event in events):
        return {}
    true, believed = dict(view.rate), dict[Edge, float]()
    errors: list[float] = []
    weights: list[float] = []
    end = events[-1]["t"]
    told = [event for event in events if event["event"] in ("view", "rates")]
    for event, after in zip(told, [*told[1:], None], strict=True):
        known = true if event["event"] == "rates" else believed
        for source, target, rate, *_ in event["rates" if known is true else "links"]:
            known[source, target] = rate
        seconds = (end if after is None else after["t"]) - event["t"]
        for edge, rate in true.items():
            if rate > 0 and edge in believed and seconds > 0:
                errors.append(abs(believed[edge] / (goodput_factor * rate) - 1.0))
                weights.append(seconds)
    if not errors:
        return {}
    return {"view_error": _mean_and_p95(np.array(errors), np.array(weights))}


def _mean_and_p95(values: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    p95 = values[order][np.searchsorted(share, 0.95)]
    return {"mean": float(np.average(values, weights=weights)), "p95": float(p95)}
