"""The exchanges that a member takes part in: over the WAN, within its center, or both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from geojax.errors import Refused
from geojax.hips.cluster import WAN_GROUP
from geojax.hips.control.round_numbers import RoundNumbers
from geojax.hips.exchange.base import Exchange
from geojax.overlay.policy.policy import Policy


class MemberExchanges:
    """A member's exchanges, by group.

    Args:
      me: the member.
      engines: the exchanges.
      lan_rounds: exchanges within a center in one round.
      holds: the last round of the WAN that the member holds, where it does not follow from the
        rounds of its main group; None: it does.

    Attributes:
      main_group: the WAN's, if the member takes part in that; else its center's.
      main: the exchange of that group.
    """

    def __init__(
        self,
        me: str,
        engines: Mapping[int, Exchange],
        *,
        lan_rounds: int,
        holds: Callable[[], int] | None,
    ):
        self._me, self._engines, self._holds = me, engines, holds
        self._numbers = RoundNumbers(lan_rounds)
        self.main_group = min(engines)
        self.main = engines[self.main_group]

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self._engines.values())

    def items(self) -> Iterator[tuple[int, Exchange]]:
        """Groups and exchanges."""
        return iter(self._engines.items())

    def get(self, group: int) -> Exchange | None:
        """A group's exchange; None: the member is not in that group."""
        return self._engines.get(group)

    def of(self, group: int) -> Exchange:
        """A group's exchange.

        Raises:
          Refused: the member is not in that group.
        """
        engine = self._engines.get(group)
        if engine is None:
            raise Refused(f"{self._me} is no member of group {group}")
        return engine

    @property
    def epoch(self) -> int:
        """The membership epoch."""
        return self.main.gate.epoch

    @property
    def held(self) -> int:
        """The last whole round that it holds; a worker's follows from its LAN rounds, if common."""
        if self._holds is not None:
            return self._holds()
        return self._numbers.of_wan(self.main_group, self.main.held)

    def next_after(self, number: int) -> int:
        """The round of the WAN that has to be granted before round ``number`` of the main group.

        Where what this member holds does not follow from the rounds of its main group, it is the
        round of the WAN after that, whichever ``number`` its own has.
        """
        return number if self._holds is None else self._holds() + 1

    @property
    def workers(self) -> list[str]:
        """The living workers that this local server has on its LAN."""
        policies = [engine.policy for group, engine in self.items() if group != WAN_GROUP]
        names = [n for policy in policies if policy is not None for n in policy.members]
        return [name for name in names if name != self._me]

    def check(self, policies: Mapping[int, Policy], nodes: Collection[str]) -> None:
        """Raises ``Refused`` if the member cannot go by one of these; then it goes by none."""
        for group, policy in policies.items():
            engine, where = self.of(group), f"policy of group {group}"
            unknown = {*policy.members, *policy.passive} - {*nodes}
            if unknown:
                raise Refused(f"{where}: no node is called {min(unknown)}")
            if self._me not in (*policy.members, *policy.passive):
                raise Refused(f"{where}: {self._me} has no part in it")
            if policy.fixed and engine.sizes and len(policy.fixed) != len(engine.sizes):
                raise Refused(
                    f"{where}: expected trees of {len(engine.sizes)} chunks, came those of "
                    f"{len(policy.fixed)}"
                )
