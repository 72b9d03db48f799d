"""How much of each directed WAN link a run used, round by round or over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.plot.run_events import Rates, RunRecords, Window
from geojax.errors import GeojaxError
from geojax.overlay.view import Edge

MOST_ROUNDS = 120  # more are shown over time
BINS = 120  # of time


class LinkUse(NamedTuple):
    """What links carried ÷ what they could have carried, by link and column.

    Attributes:
      links: the directed links, in the order of the rows.
      edges: where the columns begin and where the last one ends: experiment time, s.
      rounds: the columns' rounds; None: they are spells of time.
      bits: carried, (links, columns).
      able: bits that could have been carried, (links, columns).
    """

    links: tuple[Edge, ...]
    edges: tuple[float, ...]
    rounds: tuple[int, ...] | None
    bits: np.ndarray
    able: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Carried ÷ could have been, (links, columns); NaN where nothing could be."""
        return _divided(self.bits, self.able)

    @property
    def means(self) -> np.ndarray:
        """The same of each link over all columns; 0 where nothing could be carried."""
        return np.nan_to_num(_divided(self.bits.sum(axis=1), self.able.sum(axis=1)))

    @property
    def mean(self) -> float:
        """The same of all links together."""
        return float(self.bits.sum() / self.able.sum())

    def most_used(self, count: int) -> LinkUse:
        """The links that were used most, most first; ties in the WAN's order."""
        order = np.argsort(-self.means, kind="stable")[:count]
        links = tuple(self.links[index] for index in order)
        return self._replace(links=links, bits=self.bits[order], able=self.able[order])


def _divided(bits: np.ndarray, able: np.ndarray) -> np.ndarray:
    return np.divide(bits, able, out=np.full(bits.shape, np.nan), where=able > 0)


def link_use(run: RunRecords) -> LinkUse:
    """The use of a run's links: by round where rounds are common and few, else over time.

    A round's share is bits sent for it ÷ what the link could carry from the round's first offer or
    bit to its last whole result, at the rates in force. Over time, what a node sent to a peer is
    spread evenly over the span in which it was sent. Rates are those of the links, so that TCP's
    overhead keeps shares below 1; a share can exceed it slightly, as a link's buffer empties after
    the last bit has been handed to it. Probes are of no round: they count in the one that
    began last before them.

    Raises:
      GeojaxError: nothing was sent over the WAN, or the run's trace cannot be read.
    """
    if not run.wan_sends:
        raise GeojaxError(f"{run.path}: nothing was sent over a WAN, so no link was used")
    if 0 < len(run.windows) <= MOST_ROUNDS:
        return _by_round(run)
    return _over_time(run)


def windows_with_sends(run: RunRecords) -> dict[int, Window]:
    """The rounds' windows, begun by what was sent before the first offer was whole."""
    starts = {number: window.start for number, window in run.windows.items()}
    for span, _ in run.wan_sends:
        number = span.args.get("round")  # None: a probe
        if number in starts:
            starts[number] = min(starts[number], span.start)
    return {n: Window(starts[n], window.end) for n, window in run.windows.items()}


def capacity(spells: Sequence[tuple[float, Rates]], link: Edge, start: float, end: float) -> float:
    """Bits that a link could carry in a time, at the rates in force.

    >>> capacity([(0.0, {("a", "b"): 2.0}), (3.0, {("a", "b"): 1.0})], ("a", "b"), 1.0, 5.0)
    6.0
    """
    begins = [at for at, _ in spells]
    ends = [*begins[1:], float("inf")]
    return sum(
        max(0.0, min(end, until) - max(start, at if index else float("-inf"))) * rates[link]
        for index, ((at, rates), until) in enumerate(zip(spells, ends, strict=True))
    )


def _by_round(run: RunRecords) -> LinkUse:
    windows = windows_with_sends(run)
    links, rounds = run.wan.edges, tuple(windows)
    row = {link: index for index, link in enumerate(links)}
    column = {number: index for index, number in enumerate(rounds)}
    bits = np.zeros((len(links), len(rounds)))
    for span, crossed in run.wan_sends:
        number = span.args.get("round")
        if number is None:  # a probe
            begun = [each for each in rounds if windows[each].start <= span.start]
            number = begun[-1] if begun else rounds[0]
        if number in column:
            for link in crossed:
                bits[row[link], column[number]] += 8 * span.args["bytes"]
    able = np.array(
        [[capacity(run.rates, link, *windows[number]) for number in rounds] for link in links]
    )
    edges = (*(windows[number].start for number in rounds), windows[rounds[-1]].end)
    return LinkUse(links, edges, rounds, bits, able)


def _over_time(run: RunRecords) -> LinkUse:
    end = max(span.end for span, _ in run.wan_sends)
    edges = np.linspace(0.0, end, BINS + 1)
    links = run.wan.edges
    row = {link: index for index, link in enumerate(links)}
    bits = np.zeros((len(links), BINS))
    for span, crossed in run.wan_sends:
        spread = 8 * span.args["bytes"] * _spread(span.start, span.end, edges)
        for link in crossed:
            bits[row[link]] += spread
    able = np.array(
        [
            [capacity(run.rates, link, edges[at], edges[at + 1]) for at in range(BINS)]
            for link in links
        ]
    )
    return LinkUse(links, tuple(edges), None, bits, able)


def _spread(start: float, end: float, edges: np.ndarray) -> np.ndarray:
    """What part of a span lies in each column."""
    if end <= start:
        inside = np.zeros(len(edges) - 1)
        inside[min(max(int(np.searchsorted(edges, start, "right")) - 1, 0), len(inside) - 1)] = 1
        return inside
    return np.diff(np.clip((edges - start) / (end - start), 0, 1))
