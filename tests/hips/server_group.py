"""A group of server exchanges on virtual time, and MixedSync as a plain loop beside it."""

import asyncio
import random

import numpy as np
from exchange_group import ANY, Ends, Network, SlowMachine, run_virtual

from geojax.center.outer import PlainSgd
from geojax.compression.dense import dense
from geojax.hips.exchange.contribution import Contribution
from geojax.hips.exchange.push_pull import PushPullExchange
from geojax.hips.exchange.shard import shard_maker
from geojax.hips.exchange.shard_server import ShardServer
from geojax.overlay.planners.keep_roots import keep_roots
from geojax.overlay.planners.star import star_tree
from geojax.overlay.policy.placement import place
from geojax.overlay.policy.policy import Policy, Tree
from geojax.sync.admission import immediately
from geojax.sync.mixed_sync import mixed_sync
from geojax.telemetry.recorder import Recorder

__all__ = ["ServerGroup", "plain_loop", "pull_to", "run_virtual", "stars"]


def stars(members, *roots, version=0, placement=()):
    """One star around each root."""
    trees = tuple(Tree(r, star_tree(r, members).parent, 1 / len(roots)) for r in roots)
    return Policy(version, tuple(members), trees, fixed=tuple(placement))


def pull_to(center, number, parameters):
    """A gradient that pulls to a point of the center's own: it tells stale parameters from new."""
    del number
    target = np.float32(int(center[1:]))
    return (parameters - target) * np.float32(0.25)


def count(center, number, parameters):
    """A gradient with which parameters count the pushes: element k is −1 for each of center k's."""
    del number
    return np.eye(1, parameters.size, int(center[1:]) % parameters.size, dtype=np.float32)[0]


class ServerGroup:
    """Centers c1, c2, … and perhaps servers that are no centers. Make it within a virtual loop.

    Attributes:
      parameters: what every center went on from after each of its rounds.
      finished: in which order centers ended which rounds, as (center, round, loop time).
    """

    def __init__(
        self, centers, sizes, *, servers=(), seed=0, slowest=1.0, work=0.0, bound=None, held=-1,
        algorithm=None, outer=None, start=None, codec=None, answers=None,
    ):  # fmt: skip
        self.rng, self.seed = random.Random(seed), seed
        self.centers, self.servers, self.sizes = tuple(centers), tuple(servers), tuple(sizes)
        stops = np.cumsum(sizes).tolist()
        self.ranges = list(zip([0, *stops[:-1]], stops, strict=True))
        self.start_vector = np.zeros(stops[-1], np.float32) if start is None else start
        self.algorithm = algorithm or mixed_sync()
        self.outer = outer or (lambda spec: PlainSgd(1.0, spec))
        self.bound, self.slowest, self.work, self.held = bound, slowest, work, held
        self.codec, self.answers = codec or dense(), answers or dense()
        self.network = Network(self.rng, slowest, len(self.sizes))
        self.epoch, self.events, self.shard_servers = 0, [], {}
        self.dead, self.parameters, self.finished = set(), {}, []
        self.tasks = {}
        for name in (*self.centers, *self.servers):
            self.build(name)

    def __getitem__(self, name):
        return self.network.engines[name]

    def build(self, name):
        """A new process of that name."""
        size = self.start_vector.size
        recorder = Recorder(name, self._record)
        server = self.shard_servers[name] = ShardServer(
            codec=self.codec, answers=self.answers, machine=SlowMachine(self.rng, self.work),
            make_shard=shard_maker(self.algorithm, self.ranges, size, self.outer),
            recorder=recorder,
            admission=self.algorithm.admission if self.bound is None else immediately(self.bound),
        )  # fmt: skip
        self.network.engines[name] = PushPullExchange(
            name, 0, values=[self.start_vector[a:b] for a, b in self.ranges],
            transport=Ends(name, self.network), codec=self.codec, server=server,
            recorder=recorder, allowances=dict.fromkeys(self.centers, ANY),
        )  # fmt: skip
        self[name].go_on(self.held)
        self.parameters[name] = {-1: self.start_vector}

    def _record(self, event):
        now = asyncio.get_running_loop().time()
        self.events.append({**event, "at": now})

    def begin(self, policy):
        self.policy = policy
        for name in self.network.engines:
            self[name].resume(self.epoch, policy)

    # ---- a center's part

    def offer(self, name, number, vector, weight=1.0):
        for chunk, (a, b) in enumerate(self.ranges):
            self[name].offer(
                number, chunk, Contribution(vector[a:b] * np.float32(weight), weight, 1)
            )

    async def take_part(self, name, rounds, gradient=pull_to, *, first=0, pause=0.0, weight=1.0):
        pauses = random.Random(f"{self.seed} {name}")  # the same, however many messages there are
        for number in range(first, rounds):
            await asyncio.sleep(pauses.uniform(0, pause))
            vector = gradient(name, number, self.parameters[name][number - 1])
            self.offer(name, number, vector, weight)
            await self.whole(name, number)
        self[name].retire()

    async def whole(self, name, number):
        parts = await self[name].whole(number)
        self.parameters[name][number] = np.concatenate(
            [self.answers.decode(part.payload) for part in parts]
        )
        self.finished.append((name, number, asyncio.get_running_loop().time()))

    def launch(self, name, rounds, gradient=pull_to, **options):
        self.tasks[name] = asyncio.ensure_future(self.take_part(name, rounds, gradient, **options))

    async def all_done(self):
        for name in self.centers:
            if name in self.tasks and name not in self.dead:
                await asyncio.wait_for(self.tasks[name], 10_000)

    # ---- the scheduler's part

    def kill(self, *names):
        for name in names:
            self.dead.add(name)
            self.network.dead.add(name)
            if name in self.tasks:
                self.tasks.pop(name).cancel()

    def change(self, *, back=(), rounds=0, gradient=pull_to, spread=1.0):
        """A new epoch in which ``back`` take part again, from its instants on with ``rounds``."""
        self.epoch += 1
        epoch, loop = self.epoch, asyncio.get_running_loop()
        for name in back:
            self.dead.discard(name)
            self.network.dead.discard(name)
            self.build(name)
        living = [name for name in self.network.engines if name not in self.dead]
        old = [name for name in living if name not in back]

        def resume():
            members = [name for name in self.centers if name in living]
            fresh = {name: self[name].held for name in members if name in old}
            planned = stars(members, members[0], version=epoch)
            self.policy = keep_roots(
                self.policy, planned, self.sizes, place, holding=old, fresh=fresh
            )
            highest = max(self[name].held for name in old)
            for name in living:
                loop.call_later(self.rng.uniform(0, spread), go_on, name, self.policy, highest)

        def go_on(name, policy, highest):
            if epoch != self.epoch or name in self.dead:
                return
            if name in back:
                self[name].skip_to(highest)
            self[name].resume(epoch, policy)
            if name in back:
                self.tasks[name] = asyncio.ensure_future(self.return_with(name, rounds, gradient))

        for name in old:
            loop.call_later(self.rng.uniform(0, spread), self[name].freeze, epoch)
        loop.call_later(spread, resume)

    async def return_with(self, name, rounds, gradient):
        held = self[name].held
        await self.whole(name, held)
        await self.take_part(name, rounds, gradient, first=held + 1)

    # ---- what happened

    def of(self, name):
        return [event for event in self.events if event["event"] == name]

    def order(self, chunk=0):
        """(center, round) of the pushes to the shard that begins with a chunk, as applied."""
        return [(e["center"], e["round"]) for e in self.of("applied") if e["chunk"] == chunk]

    def model(self):
        """The present parameters of all shards."""
        parts = {}
        for name, engine in self.network.engines.items():
            if name not in self.dead:
                for hosted in engine.hosted:
                    parts |= dict(zip(hosted.shard.chunks, hosted.shard.pieces(), strict=True))
        return np.concatenate([parts[chunk] for chunk in range(len(self.sizes))])


def plain_loop(order, centers, start, gradient, step, compensate=None, bound=None):
    """MixedSync as a human reads it: pushes in a given order, one vector, one answer each.

    Returns the last parameters, and those that every center went on from after each round.
    """
    now, done, waiting = start, dict.fromkeys(centers, -1), []
    has = {center: {-1: start} for center in centers}
    for center, number in order:
        backup = has[center][number - 1]
        offered = gradient(center, number, backup)
        if compensate is not None:
            offered = compensate(offered, now, backup)
        now = step(now, offered)
        done[center] = number
        waiting.append((center, number))
        for one, its in list(waiting):
            if bound is None or its - min(done.values()) <= bound:
                waiting.remove((one, its))
                has[one][its] = now
    return now, has
