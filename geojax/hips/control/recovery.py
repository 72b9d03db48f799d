"""Where rounds go on after a change: the last round that anybody holds, and who sends it on."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from geojax.errors import GeojaxError
from geojax.hips.cluster import WAN_GROUP
from geojax.hips.control.messages import Report
from geojax.hips.control.round_numbers import RoundNumbers
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
      sends: {sender: members that lack the round}. A member that is sent the results may have to
        send them on.
      able: the members that have the results; the first one is asked first.
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
    """Finds the last round that any member of a group holds, and who sends it to those without it.

    Args:
      group: index of the group.
      policy: its new policy.
      reports: of all its members.
      stateless: members that come back and have nothing.
      at_least: the round that counts as held if nobody has anything.
      view: the WAN; results take paths without links that are out, as far as there are any.

    Raises:
      RoundLost: some members lack the round, and no member has its results any more.
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
    numbers: RoundNumbers,
    stateless: Collection[str],
    behind: Mapping[str, int],
    highest: int,
    view: NetworkView,
) -> dict[int, Recovery]:
    """Where every group goes on.

    Args:
      policies: the new ones, the WAN's first.
      reports: as of :func:`recover`.
      numbers: of the rounds. Where centers go at their own paces, no round of the WAN is sent;
        where workers do, who comes back goes on behind all others.
      stateless: as of :func:`recover`.
      behind: where centers go at their own paces, the round after which each member that has come
        back goes on.
      highest: the last round that anyone ever held.
      view: as of :func:`recover`.
    """
    found: dict[int, Recovery] = {}
    for group, policy in policies.items():
        if group == WAN_GROUP and numbers.independent:
            found[group] = Recovery(highest)
            continue
        wan = behind.get(policy.members[0], found[WAN_GROUP].held) if found else -1
        before = numbers.last_in_center(wan)
        if numbers.workers_alone:
            living = [name for name in policy.members if name not in stateless]
            held = max((reports[name].held[group] for name in living), default=wan)
            found[group] = Recovery(held)
            continue
        found[group] = recover(
            group, policy, reports, stateless=stateless, at_least=before, view=view
        )
    return found


def paths_to(
    lacking: Sequence[str], having: Sequence[str], view: NetworkView
) -> dict[str, list[str]]:
    """Senders and their receivers, so that in the end all have something: {sender: receivers}.

    Links that are out (rate 0) are avoided. The first member of ``having`` sends to all that it can
    reach, then the others do; then receivers send it on to those that are left. A member that none
    of them can reach gets it from the first of ``having``, once a link is back.

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
    """The same without sending on: each gets it from the first of ``having`` that can reach it."""
    sends: dict[str, list[str]] = {}
    for name in lacking if having else ():
        reaching = (sender for sender in having if is_up(sender, name, view))
        sends.setdefault(next(reaching, having[0]), []).append(name)
    return sends


def pairs(sends: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """All pairs of a sender and one of its receivers."""
    return [(sender, name) for sender, names in sends.items() for name in names]


class StateTransfer:
    """What is sent after a change: results of the last round, and states for returning members.

    No policy contains these transfers, so outages of their links are looked for here.
    """

    def __init__(self) -> None:
        self._over_with: dict[Edge, int] = {}  # (sender, receiver): over when it holds this round

    def begin(self, wan: Recovery, states: Mapping[str, Sequence[str]], view: NetworkView) -> None:
        """Transfers begin. One over a link that is out already has no other path: it just waits.

        Args:
          wan: senders and receivers of the round; a transfer is over when the receiver holds it.
          states: senders of states and their receivers. A returning member counts as holding the
            round before it has the state, so its transfer is over when it holds one more.
          view: the WAN.
        """
        rounds = dict.fromkeys(pairs(wan.sends), wan.held)
        rounds |= dict.fromkeys(pairs(states), wan.held + 1)
        self._over_with = {path: over for path, over in rounds.items() if is_up(*path, view)}

    def cut(self, held: Mapping[str, int], view: NetworkView) -> bool:
        """Whether an unfinished transfer is on a link that is out; ``held``: rounds, by member."""
        waiting = [path for path, over in self._over_with.items() if held.get(path[1], -1) < over]
        return not all(is_up(*path, view) for path in waiting)
