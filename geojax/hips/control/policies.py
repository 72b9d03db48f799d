"""The policies that rounds go by, at the scheduler, and plans for others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from geojax.awareness.views import WanView
from geojax.hips.cluster import WAN_GROUP, Cluster
from geojax.machine.machine import Machine
from geojax.overlay.planners.keep_roots import keep_roots
from geojax.overlay.planners.within_center import WITHIN
from geojax.overlay.policy.placement import loads, place
from geojax.overlay.policy.planning import Proposal, Task
from geojax.overlay.policy.policy import Policy
from geojax.telemetry.recorder import Recorder

Propose = Callable[[Task], Proposal]


class Policies:
    """Policies of all groups, by the rounds that they hold for.

    The group of a center has the trees of ``overlay.lan``. The WAN's policy is planned by the
    overlay, on another process (:meth:`geojax.machine.machine.Machine.plan`), from what is believed
    then. Every plan gets a version of its own, higher than all before.

    Args:
      cluster: all nodes.
      machine: makes plans.
      wan_view: what the WAN is believed to be.
      propose: makes a plan; a function that another process can be given.
      within: ``overlay.lan``.

    Attributes:
      groups: the policy of the latest rounds, by group.
      cut: elements of each chunk, and of each layer.
      considered: revision of the view that was planned for last.
    """

    def __init__(
        self,
        cluster: Cluster,
        machine: Machine,
        wan_view: WanView,
        propose: Propose,
        within: str = "star",
    ):
        self._trees_within = WITHIN[within]
        self._cluster, self._machine = cluster, machine
        self._wan_view, self._propose = wan_view, propose
        self._version, self.considered = -1, -1
        self._by_round: list[tuple[int, Policy]] = []  # of the WAN, with their first rounds
        self.groups: dict[int, Policy] = {}
        self.cut: tuple[tuple[int, ...], tuple[int, ...]] = (), ()

    async def plan(self, alive: Sequence[str], wan: Policy | None = None) -> dict[int, Policy]:
        """A fresh policy for every group of the living, one of which may be there already.

        The run waits for it, so it goes before other plans.
        """
        groups = self._cluster.groups(alive)
        members = groups.pop(WAN_GROUP)
        if wan is None:
            self.considered = self._wan_view.revision
        version = self._version if wan is not None else self._next_version()
        planned = wan or (await self._ask(members, version, urgent=True)).policy
        within = {
            group: Policy(version, center, self._trees_within(center))
            for group, center in groups.items()
        }
        return {WAN_GROUP: planned, **within}

    @property
    def outdated(self) -> bool:
        """Whether what is believed about the WAN has changed since it was planned for last."""
        return self._wan_view.revision != self.considered

    @property
    def present(self) -> tuple[Policy, ...]:
        """Those that rounds go by which are not known to be over, the newest last."""
        return tuple(policy for _, policy in self._by_round)

    def at(self, number: int) -> Policy:
        """That of a round which is not known to be over."""
        return next(policy for first, policy in reversed(self._by_round) if first <= number)

    async def compare(self, alive: Sequence[str], held: int) -> Proposal:
        """Another policy for the WAN, estimated beside those that rounds after ``held`` go by."""
        self.forget(held)
        self.considered = self._wan_view.revision
        members = self._cluster.groups(alive)[WAN_GROUP]
        return await self._ask(members, self._next_version(), self.present)

    def begin(self, policies: dict[int, Policy]) -> None:
        """All rounds to come go by these."""
        self.groups = policies
        self._by_round = [(0, policies[WAN_GROUP])]

    def change(self, first: int, policy: Policy) -> None:
        """The WAN's rounds go by this one from ``first`` on."""
        self._by_round = [*(entry for entry in self._by_round if entry[0] < first), (first, policy)]
        self.groups = {**self.groups, WAN_GROUP: policy}

    def forget(self, held: int) -> None:
        """Forgets policies that no round after ``held`` goes by."""
        while len(self._by_round) > 1 and self._by_round[1][0] <= held + 1:
            del self._by_round[0]

    def of(self, name: str) -> dict[int, Policy]:
        """The policies of a node's groups."""
        return {
            group: policy
            for group, policy in self.groups.items()
            if name in policy.members or name in policy.passive
        }

    def told_cut(self, name: str) -> dict[str, Any]:
        """How vectors are cut, for a node that has none of its own to tell by."""
        if name not in self._cluster.global_servers:
            return {}
        return dict(zip(("sizes", "layers"), self.cut, strict=True))

    def with_kept_roots(
        self, planned: dict[int, Policy], holding: Sequence[str], fresh: Mapping[str, int]
    ) -> dict[int, Policy]:
        """The same where the WAN's shards stay where they are; see :func:`keep_roots`."""
        sizes, layers = self.cut
        kept = keep_roots(
            self.groups[WAN_GROUP], planned[WAN_GROUP], sizes,
            lambda policy, sizes: place(policy, sizes, layers), holding=holding, fresh=fresh,
        )  # fmt: skip
        return {**planned, WAN_GROUP: kept}

    def described(self) -> dict[str, Any]:
        """All of them, for the record."""
        return {str(group): policy.to_dict() for group, policy in self.groups.items()}

    def record_loads(self, recorder: Recorder, at: float | None = None) -> None:
        """Records what share of the model the WAN's roots merge, where they are several."""
        policy = self.groups[WAN_GROUP]
        if len(policy.trees) > 1:
            carried = zip(policy.trees, loads(policy, *self.cut), strict=True)
            elements = {tree.root: count for tree, count in carried}
            recorder.event("loads", at=at, elements=elements)

    def record(self, recorder: Recorder, first: int, reason: str, **also: Any) -> None:
        """Records that the WAN's rounds go by another policy from ``first`` on."""
        policy = self.groups[WAN_GROUP]
        recorder.event(
            "policy", version=policy.version, first=first, reason=reason, **also,
            policy=policy.to_dict(),
        )  # fmt: skip

    def _next_version(self) -> int:
        self._version += 1
        return self._version

    async def _ask(
        self,
        members: tuple[str, ...],
        version: int,
        present: tuple[Policy, ...] = (),
        *,
        urgent: bool = False,
    ) -> Proposal:
        task = Task(self._wan_view.view(), members, *self.cut, version, present)
        return await self._machine.plan(self._propose, task, urgent=urgent)
