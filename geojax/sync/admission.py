"""Whose offers a global server takes into one merge, when, and when it answers their centers.

Rules are pure functions of a :class:`geojax.sync.algorithm.Desk`, so a test drives them with lists
of arrivals and no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from geojax.sync.algorithm import AdmissionRule, Arrival, Desk


def immediately(bound: int | None = None) -> AdmissionRule:
    """Every push by itself, when it arrives; its center is answered when it is merged.

    Args:
      bound: s of the stale synchronous parallel parameter server (Ho et al., NIPS 2013): a center
        that has pushed round n is answered when round n − s of every center is merged, so it is
        never more than s + 1 rounds beyond the slowest one's last merged round; None: no bound.

    >>> from geojax.sync.algorithm import Arrival
    >>> rule, one = immediately(bound=1), Arrival("c1", 3, 0.0)
    >>> rule.admit(Desk((one,), {"c1": 2, "c2": 1}, frozenset(), 2, 0.0))
    ('c1',)
    >>> rule.answers("c1", 3, Desk((), {"c1": 3, "c2": 1}, frozenset(), 3, 0.0))
    False
    >>> rule.answers("c1", 3, Desk((), {"c1": 3, "c2": 2}, frozenset(), 3, 0.0))
    True
    """

    def answers(center: str, number: int, desk: Desk) -> bool:
        return is_merged(center, number, desk) and (
            bound is None or number - slowest(desk) <= bound
        )

    name = "immediately" if bound is None else f"immediately, at most {bound} rounds ahead"
    return AdmissionRule(name, "server", lambda desk: first(desk, 1), answers)


def buffer(size: int, key: str) -> AdmissionRule:
    """The first ``size`` pushes together; a push that fills no buffer is answered at once.

    A center whose push waits in the buffer goes on from the parameters of the last merge, so one
    center may have several pushes in a buffer. What a buffer holds at the end of the run is never
    merged (Nguyen et al., AISTATS 2022, Algorithm 1: the server only steps on a full buffer), and
    what it holds when its server dies is lost with it.

    Args:
      size: K, at least 1.
      key: the setting that K is, for the message when there are fewer centers.
    """

    def admit(desk: Desk) -> tuple[str, ...]:
        return first(desk, size) if len(desk.arrived) >= size else ()

    return AdmissionRule(f"buffer of {size}", "server", admit, least=(key, size, size))


def quorum(size: int, grace: float, key: str, margin: float | None = None) -> AdmissionRule:
    """When ``size`` centers have pushed, all that come within a grace period more, together.

    Nobody is waited for once every center that still makes offers is there. Who comes later is in
    the next merge. A center is answered when its push is merged.

    With a margin the grace adapts to what the server measures (:func:`slack`): it is the lesser of
    ``grace`` and margin·slack, and ``grace`` until a push of the quorum was measured.

    Args:
      size: K, the quorum, at least 1.
      grace: seconds after the arrival that completed the quorum; with a margin, at most.
      key: the setting that K is, for the message when there are fewer centers.
      margin: share of the slack that may be waited, more than 0; None: the grace is fixed.
    """

    def opened(desk: Desk) -> float | None:
        """When the grace ends; None: there is no quorum yet."""
        if len(desk.arrived) < size:
            return None
        members = desk.arrived[:size]
        left = None if margin is None else slack(members)
        window = grace if left is None else min(grace, (margin or 0.0) * left)
        return members[-1].at + window

    def admit(desk: Desk) -> tuple[str, ...]:
        here = {one.center for one in desk.arrived}
        ends = opened(desk)
        everyone = bool(here) and all(name in here for name in counted(desk))
        due = everyone or (ends is not None and desk.now >= ends)
        return first(desk, len(desk.arrived)) if due else ()

    return AdmissionRule(
        f"quorum of {size}", "server", admit, is_merged, opened, least=(key, size, size),
        longest=("sync.grace_s", grace),
    )  # fmt: skip


def slack(quorum: Sequence[Arrival]) -> float | None:
    """What a server may wait for others after its quorum, s; None: nothing was measured yet.

    It is T - t, and at least 0: T is the mean time from the answer to a center until its next push
    was there, t the time between the first and the last push of the quorum. So a quorum that came
    quickly waits longer than one that has cost its first center time already.

    Reconstructed. Decoupled DiLoCo has overlap_steps·step_time − (quorum_time + sync_time): the
    time that learners train on while the server merges. Here they do not train on, so a round of
    theirs takes the place of the overlap, with both transfers in it; no other time is taken off.

    >>> slack([Arrival("c1", 3, 10.0, 6.0), Arrival("c2", 3, 11.5, 8.0)])
    5.5
    """
    measured = [one.took for one in quorum if one.took is not None]
    if not measured:
        return None
    return max(0.0, sum(measured) / len(measured) - (quorum[-1].at - quorum[0].at))


def tiers(tier_of: Mapping[str, int]) -> AdmissionRule:
    """Each tier waits for all of its own centers, and for no other tier.

    Args:
      tier_of: the tier of each center.
    """

    def admit(desk: Desk) -> tuple[str, ...]:
        here = {one.center for one in desk.arrived}
        for tier in dict.fromkeys(tier_of[one.center] for one in desk.arrived):
            waited = [name for name in counted(desk) if tier_of[name] == tier]
            if all(name in here for name in waited):
                return tuple(o.center for o in desk.arrived if tier_of[o.center] == tier)
        return ()

    return AdmissionRule("tiers", "server", admit, is_merged)


def first(desk: Desk, count: int) -> tuple[str, ...]:
    """The centers of the first pushes."""
    return tuple(one.center for one in desk.arrived[:count])


def is_merged(center: str, number: int, desk: Desk) -> bool:
    """Whether a center's push of this round is merged."""
    return desk.merged.get(center, -1) >= number


def counted(desk: Desk) -> list[str]:
    """The centers whose progress is known and that make further offers."""
    return [name for name in desk.merged if name not in desk.retired]


def slowest(desk: Desk) -> int:
    """The last merged round of the center that is furthest behind."""
    return min((desk.merged[name] for name in counted(desk)), default=desk.highest)
