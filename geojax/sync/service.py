"""Services: what members of a run may ask, as pure objects.

A service is driven by (sender, question, now) alone: it has no clock, no network and no tasks, so a
test drives it with a list of messages. The scheduler hosts those that all centers share; a local
server may host the same ones for its own workers.

Questions and answers are flat mappings from names to None, booleans, whole numbers, finite numbers
and short texts. That much is checked where a message enters; what a service may believe beyond that
it checks itself, and raises ``Refused`` before it changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Service(Protocol):
    """Answers the members of a group."""

    def members(self, names: Sequence[str]) -> None:
        """From now on exactly these take part; who is back has no past."""
        ...

    def answer(self, sender: str, question: Mapping[str, Any], now: float) -> dict[str, Any]:
        """Answers a member.

        Args:
          sender: a member.
          question: what it asks, or tells (then nobody looks at the answer).
          now: time at which the question is handled, s; never less than before.

        Raises:
          Refused: the question cannot be true; nothing has changed.
        """
        ...

    def records(self) -> list[dict[str, Any]]:
        """What is worth recording since this was asked last, one mapping an event."""
        ...
