"""What the last change of the membership has members send each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geojax.hips.control.recovery import Recovery, is_up, pairs
from geojax.overlay.view import Edge, NetworkView


class Transfers:
    """The results of the round after which all go on, and states for who comes back.

    No policy says that the run waits for these, so an outage of their links must be looked for.
    """

    def __init__(self) -> None:
        self._over_with: dict[Edge, int] = {}  # the round whose holder has got it, by who and whom

    def begin(self, wan: Recovery, states: Mapping[str, Sequence[str]], view: NetworkView) -> None:
        """These begin. Those over links that are out already wait for them: there is no other way.

        Args:
          wan: who sends that round to whom; it is over when the receiver holds the round.
          states: who sends its state to whom. Who comes back counts as holding the round before it
            has the state; so this is over when it holds one more.
          view: the WAN.
        """
        rounds = dict.fromkeys(pairs(wan.sends), wan.held)
        rounds |= dict.fromkeys(pairs(states), wan.held + 1)
        self._over_with = {way: over for way, over in rounds.items() if is_up(*way, view)}

    def cut(self, held: Mapping[str, int], view: NetworkView) -> bool:
        """Whether some that are not over are on a link that is out; ``held``: rounds, by member."""
        waiting = [way for way, over in self._over_with.items() if held.get(way[1], -1) < over]
        return not all(is_up(*way, view) for way in waiting)
