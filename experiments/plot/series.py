"""Numbers over time of several seeds: accuracy, WAN bytes, sync times; mean and band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.plot.run_events import RunRecords
from geojax.overlay.bounds.bound import BOUND_WORK, bounds
from geojax.telemetry.summary import sync_times
from testbed.figures.efficiency import ELEMENT_BYTES, TOTAL_WORK, WHOLE


class Series(NamedTuple):
    """Points of one run, x ascending."""

    x: np.ndarray
    y: np.ndarray


class Band(NamedTuple):
    """Mean over runs at each x; the standard deviation is 0 where there is one run."""

    x: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def band(runs: Sequence[Series]) -> Band:
    """Mean and sample standard deviation over runs, at every x that any of them has.

    Between a run's points its line counts. Only the stretch that all runs cover is kept, so that a
    run that ended early does not move the mean of the others.

    >>> two = [Series(np.array([0.0, 2.0]), np.array([0.0, 2.0])),
    ...        Series(np.array([1.0, 3.0]), np.array([3.0, 3.0]))]
    >>> band(two).x.tolist(), band(two).mean.tolist()
    ([1.0, 2.0], [2.0, 2.5])
    """
    start, end = max(run.x[0] for run in runs), min(run.x[-1] for run in runs)
    x = np.unique(np.concatenate([run.x for run in runs]))
    x = x[(x >= start) & (x <= end)]
    values = np.array([np.interp(x, run.x, run.y) for run in runs])
    std = values.std(axis=0, ddof=1) if len(runs) > 1 else np.zeros(len(x))
    return Band(x, values.mean(axis=0), std)


def accuracy_over_time(run: RunRecords) -> Series | None:
    """Test accuracy over experiment time (s); None: nothing was evaluated."""
    evaluations = [e for e in run.events if e["event"] == "evaluation" and "accuracy" in e]
    found = sorted((e["t"], e["accuracy"]) for e in evaluations)
    if not found:
        return None
    times, accuracies = zip(*found, strict=True)
    return Series(np.array(times), np.array(accuracies))


def wan_bytes_until(run: RunRecords, times: np.ndarray) -> np.ndarray:
    """Bytes that had left over WAN links at some times, every link counted.

    What a node sent to a peer counts evenly over the span in which it was sent.

    Raises:
      GeojaxError: the run's trace cannot be read.
    """
    sends = [(s.start, s.end, s.args["bytes"] * len(hops)) for s, hops in run.wan_sends]
    starts, ends, sizes = (np.array(column, float) for column in zip(*sends, strict=True))
    lengths = np.maximum(ends - starts, 1e-12)
    return np.array([(np.clip((at - starts) / lengths, 0, 1) * sizes).sum() for at in times])


def accuracy_over_bytes(run: RunRecords) -> Series | None:
    """Test accuracy over bytes that had left over the WAN; None: nothing evaluated or sent.

    Raises:
      GeojaxError: the run's trace cannot be read.
    """
    found = accuracy_over_time(run)
    if found is None or not run.wan_sends:
        return None
    return Series(wan_bytes_until(run, found.x), found.y)


def sync_series(run: RunRecords, *, over_time: bool) -> Series | None:
    """Sync time (s) of each round over the round's number, or over the time of its end (s).

    None: no round ended, or the run's centers go at paces of their own.
    """
    if not run.windows:
        return None
    syncs = sync_times(run.events)
    x = [run.windows[number].end if over_time else number for number in syncs]
    return Series(np.array(x, float), np.array(list(syncs.values())))


def mean_sync(run: RunRecords) -> float | None:
    """Mean sync time (s) of the rounds after the run's warm-up; None: there are none."""
    syncs = sync_times(run.events) if run.windows else {}
    counted = [sync for number, sync in syncs.items() if number >= run.config.warmup_rounds]
    return sum(counted) / len(counted) if counted else None


def bound_spells(run: RunRecords) -> list[tuple[float, float]]:
    """The bound of a synchronization (s) at the rates in force, and from when on it holds.

    The fluid optimum of the dense float32 vector among all centers, at whole link rates; see
    :func:`geojax.overlay.bounds.bound.bounds`. Empty where there is no such bound (a compressed
    run, ``testbed=local``), or where its linear programs would take too long.
    """
    config, members = run.config, run.cluster.servers
    sizes = [e["elements"] for e in run.events if e["event"] == "start" and "elements" in e]
    view = run.wan.view()
    work = len(view.centers) * len(view.rate)
    whole = config.compression.name in WHOLE and config.testbed.name != "local"
    affordable = work <= BOUND_WORK and work * len(run.rates) <= TOTAL_WORK
    if not (whole and affordable and sizes and len(members) > 1):
        return []
    nbytes = ELEMENT_BYTES * sizes[-1]
    return [
        (at, bounds(view.with_rates(rates), nbytes, members).bound_s) for at, rates in run.rates
    ]


def mean_spells(runs: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Mean over runs of values that hold from some instant on; empty where a run has none.

    >>> mean_spells([[(0.0, 1.0), (5.0, 3.0)], [(0.0, 2.0)]])
    [(0.0, 1.5), (5.0, 2.5)]
    """
    if not all(runs):
        return []
    instants = sorted({at for run in runs for at, _ in run})
    held = [[[value for at, value in run if at <= now][-1] for run in runs] for now in instants]
    return [(now, sum(values) / len(values)) for now, values in zip(instants, held, strict=True)]
