"""LANs whose local servers wait for none of their workers: HALoS, as a plain loop and in runs."""

import asyncio
import io
import itertools
import logging
import random

import numpy as np
import pytest
from asynchronous_twins import halos_loop
from examples import examples
from exchange_group import ANY, Ends, Network, SlowMachine, run_virtual, star_policy
from hypothesis import given
from hypothesis import strategies as st
from server_group import ServerGroup, stars
from simulated_runs import kill, simulated, small_config

from geojax.center.optimizers import OUTER_OPTIMIZERS
from geojax.center.outer import PlainSgd, build_outer_optimizer
from geojax.center.spec import VectorSpec
from geojax.compression.dense import dense
from geojax.config import TimeoutsConfig
from geojax.errors import ConfigError
from geojax.hips.exchange.async_lan import AsyncDownlink
from geojax.hips.exchange.buckets import buckets_of
from geojax.hips.exchange.contribution import Contribution
from geojax.hips.exchange.cuts import Cut, Cuts
from geojax.hips.exchange.push_pull import PushPullExchange
from geojax.hips.exchange.shard import shard_maker
from geojax.hips.exchange.shard_server import ShardServer
from geojax.hips.storage.checkpoint import packed_state, unpack
from geojax.sync.halos import halos
from geojax.sync.lan_tier import in_center
from geojax.telemetry.recorder import Recorder

THREE = ("c1", "c2", "c3")
SIZES = (2, 3, 2)
START = np.linspace(-1, 1, 7, dtype=np.float32)
LAN = 1  # the index of every center's group: each has a network of its own here
PLAIN = (1.0, 0.0, 1)  # step, β and N of a server that adds deltas


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, logger="geojax")


def local(worker, number, parameters):
    """A quarter of the way to a point of the center's own, and a little noise of the worker's."""
    seed = [int(worker[1]), int(worker[-1]), number]
    noise = np.float32(np.random.default_rng(seed).normal(scale=0.01))
    return parameters + np.float32(0.25) * (np.float32(int(worker[1])) - parameters) + noise


class Machine(SlowMachine):
    """Encodes at once."""

    async def host(self, kind, nbytes, work):
        return work()


class Lan:
    """The local server and the workers of one center. Make it within a virtual loop.

    Attributes:
      kept: what the last cut has of each member, after which round; to go on from at the start.
    """

    def __init__(self, center, workers, algorithm, rng, events, outer, kept=None):
        self.kept, self.parameters = kept or {}, START
        self.center, self.workers = center, tuple(f"{center}/w{at}" for at in range(workers))
        self.algorithm, self.rng, self.events, self.outer = algorithm, rng, events, outer
        stops = np.cumsum(SIZES).tolist()
        self.ranges = list(zip([0, *stops[:-1]], stops, strict=True))
        spec = VectorSpec.of([("w", (7,))])
        (self.bucket,) = buckets_of(spec, [((0, 7),)], self.ranges)
        self.network = Network(rng, 0.5, len(SIZES))
        for name in (center, *self.workers):
            self.build(name)

    def build(self, name):
        """A new process of that name."""
        mine = in_center(self.algorithm, self.center)
        recorder = Recorder(name, self.events.append)
        server = ShardServer(
            codec=dense(), answers=dense(), machine=SlowMachine(self.rng, 0.1), recorder=recorder,
            make_shard=shard_maker(mine, self.ranges, 7, self.outer), admission=mine.admission,
            event="lan_applied",
        )  # fmt: skip
        cuts = Cuts(0, clock=lambda: 0.0, centers=(self.center, *self.workers), most=99)
        cuts.keep = lambda _, held, state: self.kept.update({name: (held, state)})
        engine = self.network.engines[name] = PushPullExchange(
            name, LAN, values=[START[a:b] for a, b in self.ranges], cuts=cuts,
            transport=Ends(name, self.network), codec=dense(), server=server, recorder=recorder,
            allowances=dict.fromkeys((self.center, *self.workers), ANY),
        )  # fmt: skip
        engine.go_on(*self.kept.get(name, (-1, None)))
        if name == self.center:
            tier = self.algorithm.lan
            assert tier is not None
            self.link = AsyncDownlink(
                engine, dense(), self.bucket, START, offers=tier.offers,
                machine=Machine(self.rng, 0), timeouts=TimeoutsConfig(),
            )  # fmt: skip
            if name in self.kept:
                self.link.load(self.kept[name][1])
        return engine

    def begin(self):
        for name in (self.center, *self.workers):
            self[name].resume(0, star_policy((self.center, *self.workers)))

    def __getitem__(self, name):
        return self.network.engines[name]

    async def train(self, worker, rounds, pause, train):
        """Pushes until the parameters contain the center's last round of the WAN."""
        pauses, number, parameters = random.Random(worker), 0, START
        while self[worker].contains(self.center) < rounds - 1:
            await asyncio.sleep(pauses.uniform(pause / 2, pause))
            self.offer(worker, number, train(worker, number, parameters) - parameters)
            parts = await self[worker].whole(number)
            parameters = np.concatenate([dense().decode(part.payload) for part in parts])
            number += 1

    async def push(self, worker, number):
        """Round ``number`` of the only worker, after which it has other parameters."""
        self.offer(worker, number, local(worker, number, self.parameters) - self.parameters)
        parts = await self[worker].whole(number)
        self.parameters = np.concatenate([dense().decode(part.payload) for part in parts])

    def offer(self, name, number, vector):
        for chunk, (a, b) in enumerate(self.ranges):
            self[name].offer(number, chunk, Contribution(vector[a:b], 1.0, 1))


class TwoTiers(ServerGroup):
    """The centers' local servers, among which is the global one, and the LAN of each."""

    lans: dict[str, Lan]


def nesterov(keys):
    settings = OUTER_OPTIMIZERS.settings("delayed_nesterov", **keys)
    return lambda spec: build_outer_optimizer(settings, keys["lr"], spec)


def run(algorithm, *, rounds=4, workers=2, seed=3, pause=1.0, train=local, plain=False):
    """All workers push to their centers, and centers to the global server at c2."""
    tier = algorithm.lan
    assert tier is not None
    sums = lambda spec: PlainSgd(1.0, spec)  # noqa: E731
    inside = sums if plain else nesterov(tier.outer_keys)

    async def main():
        group = TwoTiers(
            THREE, SIZES, start=START, algorithm=algorithm, seed=seed, slowest=2.0,
            outer=sums if plain else nesterov(algorithm.outer_keys),
        )  # fmt: skip
        group.begin(stars(THREE, "c2"))
        lans = [Lan(c, workers, algorithm, group.rng, group.events, inside) for c in THREE]
        group.lans = {lan.center: lan for lan in lans}

        async def serve(lan):
            for number in range(rounds):
                total = await lan.link.total(number, lan.bucket)
                group.offer(lan.center, number, total.vector)
                await group.whole(lan.center, number)
                mixed = group.parameters[lan.center][number]
                await lan.link.publish(number, lan.bucket, mixed)

        for lan in lans:
            lan.begin()
        tasks = [asyncio.ensure_future(serve(lan)) for lan in lans]
        for lan in lans:
            tasks += [
                asyncio.ensure_future(lan.train(each, rounds, pause * (1 + 3 * at), train))
                for at, each in enumerate(lan.workers)
            ]
        for task in tasks:
            await asyncio.wait_for(task, 10_000)
        return group

    return run_virtual(main())


def order_of(group):
    tiers = {"applied": "wan", "lan_applied": "lan"}
    return [
        (tiers[e["event"]], e["center"], e["round"])
        for e in group.events
        if e["event"] == "applied" or (e["event"] == "lan_applied" and e["chunk"] == 0)
    ]


def models_of(group):
    return {c: lan[c].hosted[0].shard.vector for c, lan in group.lans.items()}


# ---- it equals its plain loop


@pytest.mark.parametrize(
    ("offers", "share", "inner", "outer"),
    [(3, 0.25, (0.2, 0.9, 4), (0.15, 0.5, 2)), (1, 1.0, PLAIN, PLAIN), (5, 0.5, PLAIN, PLAIN)],
)
def test_halos_equals_its_plain_loop(offers, share, inner, outer):
    group = run(halos(steps=1, offers=offers, share=share, local=inner, total=outer))
    order = order_of(group)
    model, models = halos_loop(order, THREE, START, local, offers, share, inner, outer)
    np.testing.assert_allclose(group.model(), model, rtol=1e-4, atol=1e-5)
    for center, vector in models_of(group).items():
        np.testing.assert_allclose(vector, models[center], rtol=1e-4, atol=1e-5)
    between = [e["staleness"] for e in group.events if e["event"] == "lan_applied"]
    assert max(between) > 2, "nobody waits for the slow worker"


@examples(8)
@given(seed=st.integers(0, 10**6), offers=st.integers(1, 6), workers=st.integers(1, 3))
def test_a_center_offers_after_so_many_pushes_since_the_last_parameters_came(seed, offers, workers):
    group = run(halos(steps=1, offers=offers), seed=seed, workers=workers, plain=True)
    for center, lan in group.lans.items():
        mine = [(t, m, n) for t, m, n in order_of(group) if m.partition("/")[0] == center]
        count = 0
        for tier, member, _ in mine:
            assert tier != "wan" or count >= offers
            count = 0 if (tier, member) == ("lan", center) else count + (tier == "lan")
        assert [n for t, m, n in mine if (t, m) == ("lan", center)] == [0, 1, 2, 3]
        assert all(lan[worker].contains(center) == 3 for worker in lan.workers)


# ---- K = 1, α = 1, no momentum: two hops, both asynchronous


def count_pushes(worker, number, parameters):
    """A delta with which parameters count the pushes: element k is those of center k."""
    del number
    return parameters + np.eye(1, 7, int(worker[1]), dtype=np.float32)[0]


def two_hops(pause):
    algorithm = halos(steps=1, offers=1, share=1.0, local=PLAIN, total=PLAIN)
    return run(algorithm, rounds=6, workers=1, pause=pause, train=count_pushes, plain=True)


def test_two_hops_deliver_every_push_that_none_overtakes():
    group = two_hops(pause=100.0)  # a trip over the WAN lasts 4 s at most
    np.testing.assert_array_equal(pushes(group), offers(group))
    np.testing.assert_allclose(group.model() - START, pushes(group), atol=1e-5)
    assert pushes(group).sum() == 18


def test_a_push_between_offer_and_answer_is_in_no_offer():
    """The trap of K = 1 and α = 1: the answer takes the place of such pushes."""
    group = two_hops(pause=0.1)
    np.testing.assert_allclose(group.model() - START, offers(group), atol=1e-5)
    assert pushes(group).sum() > offers(group).sum() == 18


def pushes(group):
    """Of every center: its workers' pushes before the last parameters came back, by its number."""
    order = order_of(group)
    found = np.zeros(7)
    for k, center in enumerate(THREE, 1):
        last = max(at for at, event in enumerate(order) if event[:2] == ("lan", center))
        found[k] = sum(member == f"{center}/w0" for _, member, _ in order[:last])
    return found


def offers(group):
    """Of every center: its offers, by its number."""
    return np.array([sum(("wan", f"c{k}") == e[:2] for e in order_of(group)) for k in range(7)])


def test_a_center_that_comes_back_serves_its_workers_when_it_has_the_parameters():
    async def main():
        rng, events = random.Random(5), []
        algorithm = halos(steps=1, offers=2)
        lan = Lan("c1", 2, algorithm, rng, events, lambda spec: PlainSgd(1.0, spec))
        for name in ("c1", *lan.workers):
            lan[name].skip_to(7)
        lan.begin()
        pulls = [asyncio.ensure_future(lan[worker].whole(7)) for worker in lan.workers]
        await asyncio.sleep(50)
        assert not any(pull.done() for pull in pulls), "there is nothing to serve yet"
        back = START + np.float32(5)
        await lan.link.adopt(7, back)
        for pull in pulls:
            parts = await asyncio.wait_for(pull, 50)
            np.testing.assert_array_equal(
                np.concatenate([dense().decode(part.payload) for part in parts]), back
            )
        assert [lan[worker].contains("c1") for worker in lan.workers] == [7, 7]
        due = asyncio.ensure_future(lan.link.total(8, lan.bucket))
        for worker in lan.workers:
            lan.offer(worker, 8, np.ones(7, np.float32))
        total = await asyncio.wait_for(due, 50)
        np.testing.assert_array_equal(total.vector, np.full(7, 2.0))

    run_virtual(main())


async def two_rounds(lan, numbers, first):
    """Rounds of the WAN from ``first`` on, five pushes before each; what is left of them."""
    totals = []
    for wan_round in (first, first + 1):
        for _ in range(5):
            await lan.push("c1/w0", next(numbers))
        total = await asyncio.wait_for(lan.link.total(wan_round, lan.bucket), 50)
        totals.append(total.vector)
        await lan.link.publish(wan_round, lan.bucket, START + np.float32(0.5) * total.vector)
    return [*totals, lan[lan.center].hosted[0].shard.vector]


@pytest.mark.parametrize("before", [0, 2, 3, 5])
def test_a_local_server_goes_on_from_a_cut_as_if_it_had_not_broken(before):
    """With momentum; three pushes make an offer: before it, as it is made, with pushes behind."""

    async def main():
        algorithm = halos(steps=1, offers=3, local=(0.2, 0.9, 4))
        tier = algorithm.lan
        assert tier is not None
        build = ("c1", 1, algorithm, random.Random(5), [], nesterov(tier.outer_keys))
        lan = Lan(*build)
        lan.begin()
        numbers = itertools.count()
        await two_rounds(lan, numbers, 0)
        for _ in range(before):
            await lan.push("c1/w0", next(numbers))
        lan.kept["c1"] = (1, lan.link.part_of(Cut(7, 0.0)))
        await asyncio.sleep(50)
        assert lan.kept["c1/w0"][0] == 9 + before, "the worker has taken its part"
        kept, parameters = unpack(io.BytesIO(packed_state(lan.kept).tobytes())), lan.parameters
        assert (kept["c1"][1]["offered"] is not None) == (before >= 3)
        whole = await two_rounds(lan, numbers, 2)
        again = Lan(*build, kept=kept)
        again.parameters = parameters
        again.begin()
        found = await two_rounds(again, itertools.count(10 + before), 2)
        for ours, theirs in zip(found, whole, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    run_virtual(main())


# ---- whole runs


RUN = {
    "rounds": 8, "workers": 3, "sync__name": "halos", "sync__offers": 5, "sync__local_steps": 4,
    "pace__centers": {"c1": 2.0}, "events": "chunk", "timeouts__dead": 0.3,
    "timeouts__heartbeat": 0.05,
}  # fmt: skip


def restart(node, at):
    return {"at": at, "kind": "restart", "node": node}


FAULTS = {
    "a worker": [kill("c2/w1", 0.2)],
    "a worker, which comes back": [kill("c2/w1", 0.2), restart("c2/w1", 0.5)],
    "a center, which comes back": [kill("c2", 0.2), restart("c2", 0.5)],
    "the global server's center": [kill("c1", 0.2)],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_chunk_events_under_faults_are_the_same_on_replay(faults):
    one, two = (simulated(small_config(**RUN, testbed__faults=faults)) for _ in range(2))
    assert one.lines() == two.lines()
    gone = {f["node"] for f in faults if f["kind"] == "kill"}
    gone -= {f["node"] for f in faults if f["kind"] == "restart"}
    assert {name: last for name, (last, _) in one.finals.items()} == dict.fromkeys(
        set(THREE) - gone, 7
    )
    assert not one.of("refused")
    if faults[1:]:
        node = faults[0]["node"]
        again = [e for e in one.of("lan_applied") if e["center"].startswith(node) and e["t"] > 0.6]
        assert again, "who came back pushes again"


def test_workers_of_a_center_that_comes_back_count_their_lan_rounds_on():
    """As far as the scheduler has heard: from the last heartbeat before the death."""
    died, beat = 0.5, RUN["timeouts__heartbeat"]
    faults = [kill("c2", died), restart("c2", 0.8)]
    config = small_config(**{**RUN, "rounds": 7, "sync__offers": 15}, testbed__faults=faults)
    outcome = simulated(config)
    assert outcome.finals["c2"][0] == 6
    for worker in ("c2/w0", "c2/w1", "c2/w2"):
        mine = [e for e in outcome.of("lan_round") if e["node"] == worker]
        before = [e["round"] for e in mine if e["t"] < died]
        known = [e["round"] for e in mine if e["t"] < died - 2 * beat]
        after = [e["round"] for e in mine if e["t"] > died]
        assert known[-1] < after[0] <= before[-1] + 1
        assert after == [*range(after[0], after[0] + len(after))]


def test_pushes_do_not_wait_for_slow_workers_of_the_same_center():
    profile = {"kind": "groups", "speeds": [4, 1, 4, 1, 4, 1]}
    outcome = simulated(small_config(
        rounds=4, workers=2, sync__name="halos", sync__offers=5, sync__local_steps=2,
        sync__dylu=False, pace__profile=profile,
    ))  # fmt: skip
    pushes = [e["center"] for e in outcome.of("lan_applied")]
    fast, slow = pushes.count("c2/w0"), pushes.count("c2/w1")
    assert 3.0 < fast / slow < 4.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"workers": 1}, r"lan\.workers = 1: sync=halos .*use lan\.workers=2 .*sync=async_diloco"),
        ({"sync__offers": 0}, r"sync\.offers = 0: .*at least 1"),
        ({"sync__share": 0.0}, r"sync\.share = 0\.0: .*more than 0"),
        ({"overlay__name": "ring"}, r"overlay\.name = 'ring': sync=halos .*overlay=star"),
        ({"compression__name": "dgt"}, r"compression\.name = 'dgt': .*compression=fp16"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(settings, message):
    with pytest.raises(ConfigError, match=message):
        simulated(small_config(**{"workers": 2, "sync__name": "halos", **settings}))
