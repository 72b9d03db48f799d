"""Runs with and without P3 on two centers and equal links, and what they are measured against."""

from simulated_runs import small_config

from experiments.bench.p3_schedule import Hop, ideal_round, serial_round, stage_times
from geojax.center.pace import step_seconds
from geojax.center.stages import build_stages
from geojax.config import WanConfig


def two_centers(*, p3, rate, rtt=20.0, **settings):
    """A star over one link; rates in Mbit/s, round trip in ms."""
    wan = WanConfig(name="uniform", generator="uniform", centers=2, rate=rate, rtt=rtt)
    config = small_config(sync__p3=p3, **settings)
    config.wan = wan
    return config


def round_time(outcome, node, first):
    """Mean time of a round from round ``first`` on, by when its results were held, s."""
    held = {event["round"]: event["held"] for event in outcome.of("round") if event["node"] == node}
    last = max(held)
    return (held[last] - held[first]) / (last - first)


def line_of(config):
    """The hops of a leaf center's chunks: up and down the WAN, between those of the LAN if any."""
    bytes_per_s = config.testbed.goodput_factor * 1e6 / 8
    wan = Hop(config.wan.rate * bytes_per_s, config.wan.rtt / 2e3)
    if config.lan.workers == 1:
        return (wan, wan)
    lan = Hop(config.lan.rate * bytes_per_s / config.lan.workers, config.lan.rtt / 2e3)
    return (lan, wan, wan, lan)


def schedule(config):
    """T_serial and T_ideal of a configuration, s."""
    stages = stage_times(build_stages(config), step_seconds(config, "c2"))
    line, chunk = line_of(config), 4 * config.overlay.chunk_elements
    return serial_round(stages, line, chunk), ideal_round(stages, line, chunk)
