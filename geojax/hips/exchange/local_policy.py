"""Policies as one member sees them, and which of them a round goes by."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from geojax.hips.exchange.contribution import Allowance, Allowances
from geojax.overlay.policy.placement import place
from geojax.overlay.policy.policy import Policy, Tree


@dataclass(frozen=True)
class LocalPolicy:
    """A policy, and what follows from it for one member.

    Attributes:
      policy: the policy.
      placement: the tree of each chunk.
      receivers: the members that this one sends results to, by tree.
      expected: the members whose contributions it sums, in member order, by tree.
      sources: the member that sends this one results, by tree; None: this is the root.
      allowed: what the sums of this member's children may carry, by tree.
      allowed_result: what the sum of all members may carry.
      me: the member.
      own: number of chunks whose root it is.
      passive: whether it merges without being a member.
    """

    policy: Policy
    placement: tuple[int, ...]
    receivers: tuple[tuple[str, ...], ...]
    expected: tuple[tuple[str, ...], ...]
    sources: tuple[str | None, ...]
    allowed: tuple[Mapping[str, Allowance], ...]
    allowed_result: Allowance
    own: int
    passive: bool
    me: str

    def tree(self, chunk: int) -> Tree:
        """The tree that carries a chunk."""
        return self.policy.trees[self.placement[chunk]]

    def expected_of(self, chunk: int) -> tuple[str, ...]:
        """The members whose contributions to a chunk this one sums."""
        return self.expected[self.placement[chunk]]

    def receivers_of(self, chunk: int) -> tuple[str, ...]:
        """The members that this one sends the result of a chunk to."""
        return self.receivers[self.placement[chunk]]

    def first_hop(self, chunk: int) -> bool:
        """Whether this member's own offer goes to a parent as it is."""
        return self.expected_of(chunk) == (self.me,) and self.tree(chunk).root != self.me

    def is_leaf(self, peer: str, chunk: int) -> bool:
        """Whether ``peer`` is a child without children: then it sends its own offers alone."""
        tree = self.tree(chunk)
        return tree.parent.get(peer) == self.me and not tree.children(peer)

    def source_of(self, chunk: int) -> str | None:
        """The member that sends this one the result of a chunk; None: this is the root."""
        return self.sources[self.placement[chunk]]


def local_policy(
    me: str,
    policy: Policy,
    sizes: Sequence[int],
    layers: Sequence[int],
    *,
    allowances: Allowances,
) -> LocalPolicy:
    """Works out what a policy means for a member.

    Args:
      me: the member.
      policy: the policy.
      sizes: elements of each chunk.
      layers: elements of each layer.
      allowances: what the own offer of each member may carry.

    >>> policy = Policy(0, ("a", "b"), (Tree("a", {"b": "a"}),))
    >>> allowances = Allowances(dict.fromkeys("ab", Allowance(())))
    >>> laid = local_policy("a", policy, [9, 9], [18], allowances=allowances)
    >>> laid.expected_of(1), laid.receivers_of(1), laid.own
    (('a', 'b'), ('b',), 2)
    """
    placement = place(policy, sizes, layers)

    def expected(tree: Tree) -> tuple[str, ...]:
        wanted = {*tree.children(me), *((me,) if me in allowances else ())}
        return tuple(name for name in policy.members if name in wanted)

    return LocalPolicy(
        policy,
        placement,
        receivers=tuple(tree.receivers(me) for tree in policy.trees),
        expected=tuple(expected(tree) for tree in policy.trees),
        sources=tuple(tree.source.get(me) for tree in policy.trees),
        allowed=tuple(
            {child: allowances.of_some(tree.subtree(child)) for child in tree.children(me)}
            for tree in policy.trees
        ),
        allowed_result=allowances.of_all(policy.members),
        own=sum(policy.trees[tree].root == me for tree in placement),
        passive=me not in policy.members,
        me=me,
    )


_REMEMBERED = 8  # policies that no round goes by any more
_TAKEN_OVER = 64  # rounds that are known to have been; more than after which a late part may come


class ByRound:
    """Which policy each round goes by: one holds from its first round on, until the next one's.

    Attributes:
      until: the policies of all rounds before this one are known for good.

    The last policies that no round goes by any more are still found by their version.

    >>> trees = (Tree("a", {}),)
    >>> own = Allowances({"a": Allowance(())})
    >>> one, two = (local_policy("a", Policy(v, ("a",), trees), [9], [9], allowances=own)
    ...             for v in (4, 7))
    >>> rounds = ByRound()
    >>> rounds.begin(one)
    >>> rounds.change(10, two)
    >>> [rounds.of(number).policy.version for number in (0, 9, 10, 99)]
    [4, 4, 7, 7]
    >>> rounds.forget_before(10)
    >>> len(rounds)
    1
    """

    def __init__(self) -> None:
        self._known: list[tuple[int, LocalPolicy]] = []
        self._taken: list[tuple[int, int]] = []  # first rounds and versions of those that took over
        self._over: deque[LocalPolicy] = deque(maxlen=_REMEMBERED)
        self.until = math.inf

    def knows(self, number: int) -> bool:
        """Whether the policy of a round is known for good."""
        return number < self.until

    def __len__(self) -> int:
        return len(self._known)

    def begin(self, laid: LocalPolicy) -> None:
        """All rounds go by one policy."""
        self._over.extend(before for _, before in self._known)
        self._known = [(0, laid)]

    def change(self, first: int, laid: LocalPolicy) -> None:
        """Rounds go by another policy from ``first`` on, whatever was set for them before.

        Raises:
          ValueError: its version is not higher than those before, or no policy came before it.
        """
        version = laid.policy.version
        if not self._known or version <= self.newest.policy.version:
            raise ValueError(f"policy version {version} does not follow the one before")
        self._known = [*(entry for entry in self._known if entry[0] < first), (first, laid)]

    def take_over(self, first: int, laid: LocalPolicy) -> None:
        """As :meth:`change`, for rounds of which chunks are under way by the policy before."""
        self._over.extend(before for since, before in self._known if since >= first)
        self.change(first, laid)
        before = [taken for taken in self._taken if taken[0] < first]
        self._taken = [*before[1 - _TAKEN_OVER :], (first, laid.policy.version)]

    def superseded(self, number: int, version: int) -> bool:
        """Whether a later policy than that of this version has taken the round over.

        That holds in later epochs, too: a late part counts though its epoch is over.
        """
        if not self._taken or version >= self._taken[-1][1]:
            return False
        return any(number >= first and version < later for first, later in reversed(self._taken))

    def of(self, number: int) -> LocalPolicy:
        """The policy of a round; if that is forgotten already, the oldest known one.

        Raises:
          ValueError: there is none yet.
        """
        if not self._known:
            raise ValueError(f"no policy is known for round {number}")
        if len(self._known) == 1:
            return self._known[0][1]
        for first, laid in reversed(self._known):
            if first <= number:
                return laid
        return self._known[0][1]

    def forget_before(self, number: int) -> None:
        """Forgets policies that no round from ``number`` on goes by."""
        while len(self._known) > 1 and self._known[1][0] <= number:
            self._over.append(self._known.pop(0)[1])

    def by_version(self, version: int) -> LocalPolicy | None:
        """The policy of a version; None: it is not known any more, or not yet."""
        these = (*self._over, *(laid for _, laid in self._known))
        return next((laid for laid in these if laid.policy.version == version), None)

    @property
    def newest(self) -> LocalPolicy:
        """The policy of the latest rounds."""
        return self._known[-1][1]
