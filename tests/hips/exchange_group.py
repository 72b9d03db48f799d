"""A group of exchange engines on virtual time, with a network and a scheduler made for tests.

The network loses nothing but what a killed member had under way; it delays every message at random
and so reorders them, more wildly than TCP would. The scheduler is the smallest one that keeps the
rules of the membership protocol.
"""

import asyncio
import math
import random
from types import SimpleNamespace

import numpy as np

from geojax.compression.dense import dense
from geojax.hips.exchange.contribution import Allowance, Allowances, ChunkSums, Contribution, Share
from geojax.hips.exchange.tree import TreeExchange
from geojax.overlay.policy.policy import Policy, Tree
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import Kind, Message
from geojax.wire.priority import chunk_priority, late_priority
from testbed.simulated.loop import run_virtual

__all__ = ["Group", "policy_of", "random_pair", "random_tree", "run_virtual", "star_policy"]


ANY = Allowance((Share(0.0, math.inf, 1 << 30),))  # whatever a test lets a member offer


def random_tree(members, rng, share=1.0):
    """Every member but the first of a random order gets a parent that comes before it."""
    order = rng.sample(list(members), len(members))
    parent = {name: rng.choice(order[:at]) for at, name in enumerate(order) if at}
    return Tree(order[0], parent, share)


def random_pair(members, rng, share=1.0):
    """A random way up, and from the same root a random way down of its own."""
    up = random_tree(members, rng)
    down = random_tree(members, rng)
    swap = {up.root: down.root, down.root: up.root}  # the two change places in the way down
    moved = {swap.get(a, a): swap.get(b, b) for a, b in down.parent.items()}
    return Tree(up.root, up.parent, share, moved)


def policy_of(members, *trees, version=0):
    return Policy(version, tuple(members), tuple(trees))


def star_policy(members, root=None, version=0):
    root = root or members[0]
    return policy_of(members, Tree(root, {m: root for m in members if m != root}), version=version)


class SlowMachine:
    """Host work takes a random while; every piece on its own, so that they overtake each other."""

    def __init__(self, rng, slowest):
        self._rng, self._slowest = rng, slowest

    def after(self, kind, nbytes, then):
        if nbytes == 0 or self._slowest == 0:
            then()
        else:
            asyncio.get_running_loop().call_later(self._rng.uniform(0, self._slowest), then)


class Network:
    """Delivers every message after a random delay, to whom lives then.

    Attributes:
      copies: says how often a datagram arrives.
      behind: late parts take so many times as long as others.
    """

    def __init__(self, rng, slowest, chunks):
        self._rng, self._slowest, self.chunks = rng, slowest, chunks
        self.copies, self.behind = lambda message: 1, 1
        self.engines = {}
        self.dead = set()
        self._under_way = {}  # sender, message and timer, by their place in the log
        self.log = []  # (sender, receiver, message), in order of sending

    def deliver(self, sender, receiver, message):
        self.log.append((sender, receiver, message))
        delay = self._rng.uniform(0, self._slowest)
        delay *= self.behind if message.kind is Kind.LATE else 1
        loop, key = asyncio.get_running_loop(), len(self.log)
        timer = loop.call_later(delay, self._arrive, key, sender, receiver, message)
        self._under_way[key] = sender, message, timer

    def withdraw(self, sender, unwanted):
        """Half of what is under way has not begun to leave."""
        found = [key for key, (name, message, _) in self._under_way.items()
                 if name == sender and unwanted(message) and self._rng.random() < 0.5]  # fmt: skip
        for key in found:
            self._under_way.pop(key)[2].cancel()
        return len(found)

    def _arrive(self, key, sender, receiver, message):
        del self._under_way[key]
        if receiver not in self.dead:
            self.engines[receiver].handle(sender, message)


class Ends:
    """One member's transport."""

    def __init__(self, name, network):
        self._name, self._network = name, network

    def send(self, peer, message, priority=0):
        of_chunk = chunk_priority(message.round, message.chunk)
        of_late = late_priority(message.round, message.chunk, self._network.chunks)
        note = {"retired", "begin", "cut"} & set(message.body or {})
        expected = 0 if note else of_late if message.kind is Kind.LATE else of_chunk
        assert priority == expected or message.kind is Kind.STATE
        if self._name not in self._network.dead:
            self._network.deliver(self._name, peer, message)

    def withdraw(self, unwanted):
        """See :meth:`Network.withdraw`."""
        return self._network.withdraw(self._name, unwanted)

    def send_datagram(self, peer, message, priority=0):
        """Datagrams come once, twice or not at all; see :attr:`Network.copies`."""
        assert message.kind is Kind.LATE
        for _ in range(self._network.copies(message)):
            if self._name not in self._network.dead:
                self._network.deliver(self._name, peer, message)


class Group:
    """Members, their engines, and the scheduler's part. Make it within a running virtual loop.

    Attributes:
      results: for every member and round, the chunks that it held, in order.
    """

    def __init__(self, members, sizes, *, seed=0, slowest=1.0, work=0.0, codec=None, options=None):
        self.rng = random.Random(seed)
        self.members, self.sizes = tuple(members), tuple(sizes)
        self.alive = self.members
        self.network = Network(self.rng, slowest, len(self.sizes))
        options = {name: dict(mine) for name, mine in (options or {}).items()}
        silent = {n for n, mine in options.items() if not mine.pop("contributes", True)}
        allowances = Allowances(dict.fromkeys((n for n in members if n not in silent), ANY))
        self.epoch = 0
        self.events = []
        self.results = {name: {} for name in members}
        for name in members:
            mine = options.get(name, {})
            at_root, counts = mine.pop("at_root", None), mine.pop("counts", None)
            codec = codec or dense()._replace(splits=True)
            self.network.engines[name] = TreeExchange(
                name, 0, sizes=self.sizes, transport=Ends(name, self.network),
                sums=ChunkSums(codec, SlowMachine(self.rng, work), counts),
                recorder=Recorder(name, self.events.append),
                **{"allowances": allowances, **mine},
            )  # fmt: skip
            if at_root is not None:
                self[name].at_root = SimpleNamespace(merged=at_root)

    def __getitem__(self, name):
        return self.network.engines[name]

    def start(self, policy):
        for name in self.members:
            self[name].resume(self.epoch, policy)

    def offer(self, name, number, chunks, weight=1.0):
        for chunk, values in enumerate(chunks):
            payload = np.asarray(values, np.float32)
            self[name].offer(number, chunk, Contribution(payload, weight, 1))

    async def whole(self, name, number):
        held = await self[name].whole(number)
        self.results[name][number] = held
        return held

    async def take_part(self, name, rounds, offer_of, pause=0.0):
        """Offers ``offer_of(name, round)`` and holds the result, round by round."""
        for number in range(rounds):
            await asyncio.sleep(self.rng.uniform(0, pause))
            self.offer(name, number, offer_of(name, number))
            await self.whole(name, number)

    def values(self, name, number):
        """The whole merged vector that a member holds of a round."""
        return np.concatenate([_floats(c.payload) for c in self.results[name][number]])

    # ---- the scheduler's part

    def kill(self, name):
        """The member is gone; what it has under way still arrives, or not, by its delays."""
        self.network.dead.add(name)
        self.alive = tuple(member for member in self.alive if member != name)

    def prepare(self):
        """Everybody stops, at an instant of its own; returns the longest delay."""
        self.epoch += 1
        epoch, loop = self.epoch, asyncio.get_running_loop()
        self.reports = {}

        def stop(name):
            if name in self.alive and epoch == self.epoch:
                self[name].freeze(epoch)
                self.reports[name] = self[name].held

        for name in self.alive:
            loop.call_later(self.rng.uniform(0, 1), stop, name)
        return epoch

    def go_on(self, policy):
        """Everybody goes on under a policy, at an instant of its own."""
        held = max(self.reports.values())
        source = next(name for name in self.alive if self.reports[name] == held)
        lacking = [name for name in self.alive if self.reports[name] < held]
        epoch, loop = self.epoch, asyncio.get_running_loop()

        def resume(name):
            if name in self.alive and epoch == self.epoch:
                others = lacking if name == source else ()
                by = source if name in lacking else None
                self[name].resume(epoch, policy, held=held, lacking=others, source=by)

        for name in self.alive:
            loop.call_later(self.rng.uniform(0, 1), resume, name)

    def hold(self):
        """Everybody holds back results, at an instant of its own, and says what it lacks."""
        self.holding = {}
        loop = asyncio.get_running_loop()

        def hold_back(name, holding):
            holding[name] = self[name].hold_back()

        for name in self.members:
            loop.call_later(self.rng.uniform(0, 1), hold_back, name, self.holding)

    def take_over(self, policy):
        """A policy takes over the round that nobody has begun to apply, or the one after it."""
        first = 1 + max(begun for begun, _ in self.holding.values())
        behind = any(begun < first - 1 for begun, _ in self.holding.values())
        every = {*range(len(self.sizes))}
        again = every if behind else {c for _, lacks in self.holding.values() for c in lacks}
        if self.rng.random() < 0.4:
            first, again = first + 1, every
        for name in self.members:
            asyncio.get_running_loop().call_later(
                self.rng.uniform(0, 1), self[name].take_over, first, policy, again
            )

    def sent(self, *kinds):
        return [entry for entry in self.network.log if entry[2].kind in kinds]


def forged(kind=Kind.OFFER, *, epoch=0, policy=None, number=0, chunk=0, values=(1.0,), weight=1.0):
    """A message that somebody may send to an engine of group 0; by the policy of that epoch."""
    payload = np.asarray(values, np.float32)
    return Message(
        kind,
        epoch=epoch,
        policy=epoch if policy is None else policy,
        round=number,
        chunk=chunk,
        weight=weight,
        contributors=1,
        payload=payload,
    )


def _floats(payload):
    return payload.view(np.float32)
