"""Which LAN round follows: where their number in a round of the WAN is decided while it runs.

LAN rounds of round r of the WAN have the numbers r · most to (r + 1) · most − 1, and the exchange
over the WAN belongs to the last one. If round n is decided to be the last one already, its results
*stand for* those of (r + 1) · most − 1 too, and the numbers between are skipped. So what a member
holds tells its round of the WAN, whatever was decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geojax.errors import Refused

SERVICE = "lan_rounds"
_KEPT = 4  # numbers of old LAN rounds that somebody may still ask for


class LanRounds:
    """A local server's service: workers ask which LAN round follows the one that they hold."""

    def __init__(self) -> None:
        self._following: dict[int, int] = {}

    def decide(self, number: int, following: int) -> None:
        """After LAN round ``number`` comes ``following``; said before its results are sent."""
        self._following[number] = following
        for old in sorted(self._following)[:-_KEPT]:
            del self._following[old]

    def following(self, number: int) -> int:
        """The number of the next LAN round, for who is in this process."""
        return self._following[number]

    def members(self, names: Sequence[str]) -> None:
        """See :class:`geojax.sync.service.Service`: any worker may ask."""

    def answer(self, sender: str, question: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Answers ``{"round": n}`` with ``{"following": m}``."""
        del now
        number = question.get("round")
        if set(question) != {"round"} or type(number) is not int:
            raise Refused(f"{SERVICE}.round: expected a LAN round, came {question!s:.100}")
        if number not in self._following:
            raise Refused(f"{SERVICE}.round: {sender} cannot hold round {number} now")
        return {"following": self._following[number]}

    def records(self) -> list[dict[str, Any]]:
        """Nothing."""
        return []
