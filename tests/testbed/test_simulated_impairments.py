"""Jitter and loss on the simulated testbed: their effect on rates and arrivals."""

import json
import math
import statistics

import pytest

from geojax.config import RunConfig, WanConfig
from geojax.models.registry import SyntheticConfig
from testbed.run import run
from testbed.simulated.fluid import FluidNetwork
from testbed.simulated.impairments import Arrivals, along
from testbed.simulated.loop import VirtualLoop
from testbed.wan.build import Link
from testbed.wan.tcp_rates import SEGMENT_BYTES, loss_limit

FAR_APART = 100.0  # s between messages that cannot hold up each other


def test_reno_follows_mathis_and_cubic_is_never_slower():
    for round_trip in (0.02, 0.08):
        for loss in (1e-4, 1e-3, 1e-2):
            reno = loss_limit("reno", round_trip, loss)
            expected = SEGMENT_BYTES * 8 / round_trip * math.sqrt(1.5 / loss)
            assert reno == pytest.approx(expected)
            assert loss_limit("cubic", round_trip, loss) >= reno
    at_200_ms = loss_limit("cubic", 0.2, 1e-5)  # where RFC 9438's own window is the larger one
    assert at_200_ms == pytest.approx(1.0538 * (0.2 / 1e-5) ** 0.75 * 1448 * 8 / 0.2, rel=1e-3)
    assert at_200_ms > 3 * loss_limit("reno", 0.2, 1e-5)


@pytest.mark.parametrize("case", [("cubic", 0.02, 0.0), ("cubic", 0.0, 0.1), ("bbr", 0.02, 0.1)])
def test_without_losses_or_delay_and_with_bbr_nothing_is_limited(case):
    assert loss_limit(*case) == math.inf


def test_links_in_a_row_lose_one_after_the_other_and_jitter_together():
    first = Link("a", "b", 1e6, 0.01, jitter=0.002, loss=0.1)
    second = Link("b", "c", 1e6, 0.01, jitter=0.001, loss=0.5, jitter_distribution="normal")
    plain = Link("c", "d", 1e6, 0.01)
    impairments = along([first, plain, second])
    assert impairments.loss == pytest.approx(0.55)
    assert impairments.jitters == ((0.002, False), (0.001, True))
    assert along([plain]) == along([])


def test_a_limited_flow_leaves_the_rest_to_others():
    loop = VirtualLoop()
    fluid = FluidNetwork({"link": 10e6}, loop)
    slow, fast = fluid.flow(["link"], limit=1e6), fluid.flow(["link"])
    ends = {}
    fluid.start(slow, 1e6 / 8, lambda: ends.setdefault("slow", loop.time()))
    fluid.start(fast, 9e6 / 8, lambda: ends.setdefault("fast", loop.time()))
    assert fluid.room(slow) == 1e6
    loop.call_later(2.0, loop.stop)
    loop.run_forever()
    loop.close()
    assert ends == pytest.approx({"slow": 1.0, "fast": 1.0})


def delays(arrivals, nbytes, took, count=4000):
    found = []
    for number in range(count):
        left = (1 + number) * FAR_APART
        found.append(arrivals.arrival(nbytes, left - took, left) - left)
    return found


def test_a_short_message_draws_its_delay_from_the_links_distribution():
    uniform = delays(Arrivals(0.02, [(0.004, False)], "s"), 100, 0.0)
    expected = [0.016 + 0.0008 * n for n in range(1, 10)]
    assert statistics.quantiles(uniform, n=10) == pytest.approx(expected, abs=3e-4)
    normal = delays(Arrivals(0.02, [(0.002, True)], "s"), 100, 0.0)
    assert statistics.mean(normal) == pytest.approx(0.02, abs=2e-4)
    assert statistics.stdev(normal) == pytest.approx(0.002, rel=0.05)
    both = delays(Arrivals(0.02, [(0.004, False), (0.002, True)], "s"), 100, 0.0)
    together = math.hypot(0.004 / math.sqrt(3), 0.002)
    assert statistics.stdev(both) == pytest.approx(together, rel=0.05)


def test_a_long_message_is_there_when_the_slowest_of_its_last_packets_is():
    scale, took = 0.004, 1.0
    packets = 1000  # of which 8 leave within the span of the jitter
    found = delays(Arrivals(0.02, [(scale, False)], "s"), packets * SEGMENT_BYTES, took)
    assert statistics.mean(found) == pytest.approx(0.02 + scale * (1 - 2 / (8 + 1)), abs=1e-4)
    assert max(found) <= 0.02 + scale


def test_jitter_never_reorders_and_follows_its_seed():
    def found(seed):
        arrivals = Arrivals(0.005, [(0.005, False)], seed)
        return [arrivals.arrival(100, 0.0, 0.0005 * number) for number in range(200)]

    first = found("1/a>b")
    assert first == sorted(first)
    assert first == found("1/a>b") != found("2/a>b")


def sync_times(run_dir, connections=1, **links):
    config = RunConfig(rounds=3, experiment="test")
    link = {"between": ["a", "b"], "rate": 100, "rtt": 40, **links}
    config.wan = WanConfig(name="two", centers=["a", "b"], links=[link], connections=connections)
    config.model = SyntheticConfig(bytes=4_000_000, pace_s=0.1)
    run(config, run_dir)
    lines = (run_dir / "events.jsonl").read_text().splitlines()
    rounds = [event for event in map(json.loads, lines) if event["event"] == "round"]
    last = [event for event in rounds if event["round"] == 2]
    return max(e["held"] for e in last) - max(e["offered"] for e in last)


def test_a_run_on_a_lossy_wan_takes_as_long_as_its_connections_need(tmp_path):
    lossless = sync_times(tmp_path / "lossless")
    lossy = sync_times(tmp_path / "lossy", loss=0.001)
    expected = 8 * 4_000_000 / loss_limit("cubic", 0.04, 0.001)
    assert lossy == pytest.approx(expected, rel=0.1)  # the way back follows chunk by chunk
    assert lossy > 3 * lossless
    jittery = sync_times(tmp_path / "jittery", jitter=10)
    assert lossless + 0.005 < jittery < lossless + 0.025  # there and back, at most 10 ms each


def test_several_connections_reach_as_many_times_the_rate_that_losses_allow(tmp_path):
    one, three, auto = (
        sync_times(tmp_path / str(count), count, loss=0.001) for count in (1, 3, "auto")
    )
    assert three == pytest.approx(one / 3, rel=0.1)
    assert auto == pytest.approx(sync_times(tmp_path / "lossless"), rel=0.1)
