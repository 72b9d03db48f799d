"""Where rounds go on after a change: the last one that anybody holds, and who sends it to whom."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from geojax.errors import GeojaxError
from geojax.hips.cluster import WAN_GROUP
from geojax.hips.control.messages import Report
from geojax.overlay.policy.policy import Policy
from geojax.overlay.routes.static_routes import is_up
from geojax.overlay.view import Edge, NetworkView


class RoundLost(GeojaxError):
    """Some members lack a round, and those that hold it have its results no longer.

    Attributes:
      holders: who holds it.
    """

    def __init__(self, number: int, lacking: Sequence[str], holders: Sequence[str]):
        super().__init__(
            f"round {number} is lost: {', '.join(lacking)} lack it, and {', '.join(holders)} no "
            "longer have it whole"
        )
        self.holders = tuple(holders)


class Recovery(NamedTuple):
    """How one group goes on.

    Attributes:
      held: the last round that anybody holds; all later ones run again.
      sends: who sends that round's results, and to whom: members who lack it. Who is sent them may
        have to send them on.
      able: who has them, the one that is asked first at the front.
    """

    held: int
    sends: Mapping[str, Sequence[str]] = {}
    able: tuple[str, ...] = ()


def recover(
    group: int,
    policy: Policy,
    reports: Mapping[str, Report],
    *,
    stateless: Collection[str],
    at_least: int,
    view: NetworkView,
) -> Recovery:
    """Finds the last round that any member of a group holds, and brings it to those who lack it.

    Args:
      group: index of the group.
      policy: its new policy.
      reports: of all its members.
      stateless: members that come back and have nothing.
      at_least: the round that counts as held if nobody has anything.
      view: the WAN; results take paths without links that are out, as far as there are any.

    Raises:
      RoundLost: some lack the round, and nobody has its results any more.
    """
    holding = {name: reports[name] for name in policy.members if name not in stateless}
    held = max((report.held[group] for report in holding.values()), default=at_least)
    holders = [name for name, report in holding.items() if report.held[group] == held]
    able = [name for name in holders if holding[name].keeps[group]]
    lacking = [name for name, report in holding.items() if report.held[group] < held]
    if group != WAN_GROUP and held >= 0 and holding:
        lacking += [name for name in policy.members if name in stateless]
    if lacking and not able:
        raise RoundLost(held, lacking, holders)
    first = tuple(able or holders)
    if group != WAN_GROUP:
        return Recovery(held, {able[0]: lacking} if lacking else {}, first)
    return Recovery(held, paths_to(lacking, able, view), first)


def recover_all(
    policies: Mapping[int, Policy],
    reports: Mapping[str, Report],
    *,
    stateless: Collection[str],
    lan_rounds: int,
    view: NetworkView,
    highest: int | None,
    behind: Mapping[str, int],
) -> dict[int, Recovery]:
    """Where every group goes on.

    Args:
      policies: the new ones, the WAN's first.
      reports: as of :func:`recover`.
      stateless: the same.
      lan_rounds: exchanges within a center in one round.
      view: as of :func:`recover`.
      highest: where centers go at paces of their own, the last round that anyone ever held: then
        nobody is sent a round of the WAN.
      behind: likewise the round behind which each member goes on that has come back.
    """
    found: dict[int, Recovery] = {}
    for group, policy in policies.items():
        if highest is not None and group == WAN_GROUP:
            found[group] = Recovery(highest)
            continue
        rounds = behind.get(policy.members[0], found[WAN_GROUP].held) + 1 if found else 0
        found[group] = recover(
            group, policy, reports, stateless=stateless, at_least=rounds * lan_rounds - 1, view=view
        )
    return found


def paths_to(
    lacking: Sequence[str], having: Sequence[str], view: NetworkView
) -> dict[str, list[str]]:
    """Who sends something to whom, so that in the end all have it: {sender: receivers}.

    A path over a link that is out (rate 0) is taken only where there is no other: the first that
    has it sends it to everybody whom it can reach, then the others that have it, then those who
    are sent it send it on. Whoever is cut off from all gets it from the first, once a link is back.

    >>> rates = {("a", "b"): 0.0, ("b", "a"): 0.0, ("a", "c"): 1.0, ("c", "a"): 1.0,
    ...          ("c", "b"): 1.0, ("b", "c"): 1.0}
    >>> paths_to(["b", "c"], ["a"], NetworkView(("a", "b", "c"), rates, {}))
    {'a': ['c'], 'c': ['b']}
    """
    if not lacking:
        return {}
    sends: dict[str, list[str]] = {}
    left, senders = list(lacking), list(having)
    for sender in senders:  # grows as results are sent on
        reached = [name for name in left if is_up(sender, name, view)]
        if reached:
            sends[sender] = reached
            senders += reached
            left = [name for name in left if name not in reached]
    if left:
        sends[having[0]] = [*sends.get(having[0], ()), *left]
    return sends


def sources(
    lacking: Sequence[str], having: Sequence[str], view: NetworkView
) -> dict[str, list[str]]:
    """The same without sending on: to each from the first that has it and has a path to it."""
    sends: dict[str, list[str]] = {}
    for name in lacking if having else ():
        reaching = (sender for sender in having if is_up(sender, name, view))
        sends.setdefault(next(reaching, having[0]), []).append(name)
    return sends


def pairs(sends: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Who sends to whom, one by one."""
    return [(sender, name) for sender, names in sends.items() for name in names]


class StateTransfer:
    """The results of the round after which all go on, and states for who comes back.

    No policy says that the run waits for these, so an outage of their links must be looked for.
    """

    def __init__(self) -> None:
        self._over_with: dict[Edge, int] = {}  # the round whose holder has got it, by who and whom

    def begin(self, wan: Recovery, states: Mapping[str, Sequence[str]], view: NetworkView) -> None:
        """These begin. Those over links that are out already wait for them: there is no other path.

        Args:
          wan: who sends that round to whom; it is over when the receiver holds the round.
          states: who sends its state to whom. Who comes back counts as holding the round before it
            has the state; so this is over when it holds one more.
          view: the WAN.
        """
        rounds = dict.fromkeys(pairs(wan.sends), wan.held)
        rounds |= dict.fromkeys(pairs(states), wan.held + 1)
        self._over_with = {path: over for path, over in rounds.items() if is_up(*path, view)}

    def cut(self, held: Mapping[str, int], view: NetworkView) -> bool:
        """Whether some that are not over are on a link that is out; ``held``: rounds, by member."""
        waiting = [path for path, over in self._over_with.items() if held.get(path[1], -1) < over]
        return not all(is_up(*path, view) for path in waiting)
