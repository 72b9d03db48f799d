"""Link rates from measurements that fade, and an assumption for links without any."""

from __future__ import annotations

from dataclasses import dataclass, replace

from geojax.overlay.view import Edge, NetworkView

HALF_LIFE_S = 5.0  # after which a sample counts half as much as one of now
CHANGED = 0.2  # a sample that departs so much from the sums, relatively, replaces them
CHANGE_BYTES = 192 * 1024  # that a sample needs for that, or more than what is left of the sums
ASSUMED_RATE = 100e6  # bit/s, of every link while nothing is known; only its ratio to delays counts


@dataclass(slots=True)
class _Sums:
    """What was measured between two centers, in one direction.

    Attributes:
      nbytes: bytes moved; older ones count less.
      seconds: that this took, weighted alike.
      at: time of the last sample, s.
      gathered: bytes since the link was found changed, all alike.
    """

    nbytes: float = 0.0
    seconds: float = 0.0
    at: float = 0.0
    gathered: float = 0.0

    @property
    def rate(self) -> float:
        """bit/s."""
        return 8.0 * self.nbytes / self.seconds

    def take(self, nbytes: float, seconds: float, now: float) -> bool:
        """Adds a sample; returns whether the link has changed, and then starts from this sample."""
        kept, changed = 0.0, False
        if self.seconds > 0:
            kept = 0.5 ** (max(0.0, now - self.at) / HALF_LIFE_S)
            departs = abs(8.0 * nbytes / seconds / self.rate - 1.0) > CHANGED
            changed = departs and nbytes >= min(CHANGE_BYTES, kept * self.nbytes)
        if changed:
            kept = self.gathered = 0.0
        self.gathered += nbytes
        self.nbytes = kept * self.nbytes + nbytes
        self.seconds = kept * self.seconds + seconds
        self.at = now
        return changed


class LinkRates:
    """Estimates the rate of every directed link from samples (bytes, seconds) between centers.

    The WAN's description says which links there are, their delays and the access caps, as an
    operator knows what was ordered. The rates in it are never read.

    A link's rate is Σ bytes ÷ Σ seconds over its samples. A sample's weight is 0.5 ** (its age ÷
    ``HALF_LIFE_S``). A link has changed if a sample differs from its rate by more than ``CHANGED``
    and has at least ``CHANGE_BYTES`` or more weight than the faded sums; the sample then replaces
    the sums.

    A link that was never measured is assumed to be as fast as the fastest known one. So plans try
    it, and it gets measured. Before anything is known, all links count as equal. Samples between
    centers that are no neighbours say nothing of single links, but count for the fastest rate.

    A link that is out has rate 0. When it is back it has its old rate again; the first sample after
    that is left out, since the time of the outage is in it.

    Args:
      known: the WAN's description.

    Attributes:
      changed_at: time of the last sample by which a link was found changed, s; -inf: of none.

    >>> links = [("a", "b"), ("b", "c"), ("c", "b"), ("b", "a")]
    >>> rates = LinkRates(NetworkView(("a", "b", "c"), dict.fromkeys(links, 1.0), delay={}))
    >>> rates.take("a", "b", nbytes=1_000_000, seconds=0.1, now=3.0)
    >>> view = rates.view(now=4.0)
    >>> view.rate["a", "b"] / 1e6, view.rate["b", "c"] / 1e6, view.age
    (80.0, 80.0, {('a', 'b'): 1.0})
    """

    def __init__(self, known: NetworkView):
        self._known = known
        self._sums: dict[Edge, _Sums] = {}  # also of centers that are no neighbours
        self._out: dict[Edge, None] = {}
        self._back: dict[Edge, None] = {}  # were out, and have had no sample since
        self._moved: dict[Edge, float] = {}  # when the last sample came, even if left out
        self.changed_at = float("-inf")

    def take(self, source: str, target: str, nbytes: float, seconds: float, now: float) -> None:
        """Takes a sample: so many bytes came from ``source`` to ``target`` in so many seconds.

        Raises:
          ValueError: a sample without bytes or without time, or between centers that are none.
        """
        edge = source, target
        if source == target or not {*edge} <= {*self._known.centers}:
            raise ValueError(f"expected a sample between two centers of the WAN, came {edge}")
        if not (nbytes > 0 and seconds > 0):
            raise ValueError(f"expected bytes and seconds above 0, came {nbytes} and {seconds}")
        self._moved[edge] = now
        self.set_out(edge, out=False)
        if edge in self._back:
            del self._back[edge]
            return
        if self._sums.setdefault(edge, _Sums()).take(nbytes, seconds, now):
            self.changed_at = now

    def set_out(self, edge: Edge, *, out: bool) -> None:
        """Says that a link moves nothing, or that it does so again."""
        if not out:
            if edge in self._out:
                del self._out[edge]
                self._back[edge] = None
        elif edge in self._known.rate:
            self._out[edge] = None

    @property
    def out(self) -> tuple[Edge, ...]:
        """The links that are out."""
        return tuple(self._out)

    def moved(self, edge: Edge) -> float:
        """Time of the last sign that a link moved something, s; -inf: never."""
        return self._moved.get(edge, float("-inf"))

    def last(self, edge: Edge) -> tuple[float, float]:
        """When a link was measured last, and all bytes of that since it changed; (-inf, 0): never.

        Old bytes count like new ones here.
        """
        sums = self._sums.get(edge)
        return (float("-inf"), 0.0) if sums is None else (sums.at, sums.gathered)

    def rates(self) -> dict[Edge, float]:
        """The believed rate of every link, bit/s."""
        measured = {edge: sums.rate for edge, sums in self._sums.items()}
        fastest = max(measured.values(), default=ASSUMED_RATE)
        believed = {edge: measured.get(edge, fastest) for edge in self._known.rate}
        return {**believed, **dict.fromkeys(self._out, 0.0)}

    def view(self, now: float) -> NetworkView:
        """What is believed, with the ages of the measured rates at time ``now``, s."""
        sums = self._sums
        age = {edge: max(0.0, now - sums[edge].at) for edge in self._known.rate if edge in sums}
        return replace(self._known, rate=self.rates(), age=age)
