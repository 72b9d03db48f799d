"""What the scheduler believes about the WAN, and where it knows it from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from geojax.overlay.view import NetworkView


class Belief(Protocol):
    """A view of the WAN that may change while a run goes on.

    Attributes:
      revision: grows whenever the view has changed enough to be looked at again.
    """

    @property
    def revision(self) -> int:
        """See above."""
        ...

    def view(self) -> NetworkView:
        """What is believed now."""
        ...

    def take(self, member: str, samples: Sequence[Sequence], now: float) -> None:
        """Takes what a member measured.

        Args:
          member: who.
          samples: the ``links`` of its heartbeat, as they came.
          now: experiment time, s.
        """
        ...


class OracleBelief:
    """The true rates, as the testbed sets them.

    Args:
      read: gives the view that is true now; another object as soon as anything has changed.

    >>> views = [NetworkView(("a", "b"), {("a", "b"): rate}, {}) for rate in (1e6, 2e6)]
    >>> belief = OracleBelief(lambda: views[0])
    >>> belief.revision
    0
    >>> del views[0]
    >>> belief.revision, belief.view().rate["a", "b"]
    (1, 2000000.0)
    """

    def __init__(self, read: Callable[[], NetworkView]):
        self._read, self._seen, self._revision = read, read(), 0

    @property
    def revision(self) -> int:
        """How often the view was found changed."""
        found = self._read()
        if found is not self._seen:
            self._seen = found
            self._revision += 1
        return self._revision

    def view(self) -> NetworkView:
        """The true view."""
        return self._read()

    def take(self, member: str, samples: Sequence[Sequence], now: float) -> None:
        """Whoever knows the truth needs no measurements."""
