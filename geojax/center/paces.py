"""Pace profiles: how workers differ in speed, and how their speeds change.

A profile turns (worker, step number, experiment time) into a factor on the duration of a step, 1
being the fastest worker's undisturbed step. Factors are pure functions of the run's seed and these
arguments, so both testbeds see the same paces and a resumed run goes on with them. ``pace.profile``
holds one profile or a list, whose factors multiply::

    profile:
      - {kind: two_groups, h: 150}
      - {kind: jitter, distribution: lognormal, spread: 0.2}
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from numbers import Real

import numpy as np

from geojax import fields
from geojax.errors import ConfigError, nearest
from geojax.registry import Registry

Factor = Callable[[int, float], float]  # (step number, experiment time in s) -> factor

_BLOCK = 64  # stays that markov draws at a time; even: each block starts in the same state


class Workers:
    """The workers of a run, and the one whose profile is built.

    Attributes:
      names: all workers, in their order.
      name: this worker.
      index: its position.
      center: its center.
      seed: of the run.
    """

    def __init__(self, names: Sequence[str], name: str, seed: int):
        self.names, self.name, self.seed = tuple(names), name, seed
        self.index = self.names.index(name)
        self.center = name.partition("/")[0]

    def stream(self, kind: str, seed: int, number: int = 0) -> np.random.Generator:
        """Stream ``number`` of this worker and kind of profile, independent of all others."""
        return np.random.default_rng([seed, zlib.crc32(kind.encode()), self.index, number])

    def group(self, groups: int) -> int:
        """This worker's group when all are parted, in order, into equally large groups."""
        return self.index * groups // len(self.names)


@dataclass(frozen=True)
class Settings:
    """One profile's settings as configured, read value by value under their full keys."""

    key: str
    values: Mapping[str, object]

    def allow(self, *names: str) -> None:
        """Refuses every key but these."""
        fields.mapping(self.key, self.values, ("kind", *names))

    def number(self, name: str, what: str, *, least: float | None = None) -> float:
        """A finite number of at least ``least``, or above 0."""
        return fields.number(f"{self.key}.{name}", self.values.get(name), what, least=least)

    def speeds(self, name: str) -> tuple[float, ...]:
        """A list of relative speeds."""
        value = self.values.get(name)
        fix = "write a list of relative speeds above 0, one a group, e.g. [4, 2, 1]"
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            raise ConfigError(f"{self.key}.{name}", value, fix)
        for entry in value:
            wrong = isinstance(entry, bool) or not isinstance(entry, Real)
            if wrong or not math.isfinite(entry) or entry <= 0:
                raise ConfigError(f"{self.key}.{name}", value, fix)
        return tuple(float(entry) for entry in value)

    def choice(self, name: str, valid: Iterable[str]) -> str:
        """One of the names in ``valid``."""
        names, value = tuple(valid), self.values.get(name)
        if value not in names:
            raise ConfigError(f"{self.key}.{name}", value, nearest(str(value), names))
        return str(value)

    def seed(self, default: int) -> int:
        """``seed``, by default the run's."""
        value = self.values.get("seed")
        if value is None:
            return default
        return fields.integer(f"{self.key}.seed", value, "the seed of the draws", least=0)


PROFILES: Registry[Callable[[Settings, Workers], Factor]] = Registry("pace.profile.kind")


def build_profile(value: object, seed: int, trainers: Sequence[str], name: str) -> Factor:
    """The factor of one worker's steps.

    Args:
      value: ``pace.profile``: None, a mapping with ``kind``, or a list of such mappings.
      seed: the run's seed.
      trainers: names of all workers, in their order.
      name: whose factor.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    if value is None:
        return lambda _step, _now: 1.0
    workers = Workers(trainers, name, seed)
    factors: list[Factor] = []
    keyed: list[tuple[str, object]] = [("pace.profile", value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        keyed = [(f"pace.profile[{index}]", entry) for index, entry in enumerate(value)]
    for key, entry in keyed:
        if not isinstance(entry, Mapping) or "kind" not in entry:
            fix = f"write a mapping with a kind; kinds: {', '.join(PROFILES)}"
            raise ConfigError(key, entry, fix)
        factors.append(PROFILES[str(entry["kind"])](Settings(key, entry), workers))
    return lambda step, now: math.prod(factor(step, now) for factor in factors)


@PROFILES.register("homogeneous")
def homogeneous(settings: Settings, workers: Workers) -> Factor:  # noqa: ARG001
    """All workers alike, always (h_c = 1)."""
    settings.allow()
    return lambda _step, _now: 1.0


@PROFILES.register("two_groups")
def two_groups(settings: Settings, workers: Workers) -> Factor:
    """The first half of the workers fast, the second half ``h`` times slower.

    ``h`` is ESync's computing heterogeneity h_c = c_max / c_min, the slowest worker's iteration
    time over the fastest one's; its testbed of 6 GPU and 6 CPU workers has h_c = 150, varied from
    10 to 300 (Li et al., IEEE TSC 15(4), 2022). With an odd number the fast half is the larger.
    """
    settings.allow("h")
    h = settings.number("h", "how many times longer a slow worker's step lasts", least=1)
    slow = workers.index >= (len(workers.names) + 1) // 2
    return lambda _step, _now: h if slow else 1.0


@PROFILES.register("groups")
def groups(settings: Settings, workers: Workers) -> Factor:
    """Equally large groups of workers, one for each of ``speeds``; the fastest has factor 1.

    TiFL gives its five groups 4, 2, 1, 0.5 and 0.1 CPUs (Chai et al., HPDC 2020), so the last
    computes 40 times slower than the first.
    """
    settings.allow("speeds")
    speeds = settings.speeds("speeds")
    factor = max(speeds) / speeds[workers.group(len(speeds))]
    return lambda _step, _now: factor


@PROFILES.register("drawn")
def drawn(settings: Settings, workers: Workers) -> Factor:
    """Every worker's speed drawn once from U[``low``, ``high``], relative to a speed of 1.

    A step lasts the model's pace divided by the speed.
    """
    settings.allow("low", "high", "seed")
    low = settings.number("low", "the lowest relative speed")
    high = settings.number("high", "the highest relative speed", least=low)
    factor = 1 / workers.stream("drawn", settings.seed(workers.seed)).uniform(low, high)
    return lambda _step, _now: float(factor)


@PROFILES.register("jitter")
def jitter(settings: Settings, workers: Workers) -> Factor:
    """Every step's duration varies around its mean, independently of all others.

    ``uniform``: U[1 - spread, 1 + spread]; ``lognormal``: mean 1, standard deviation ``spread`` of
    the logarithm.
    """
    settings.allow("distribution", "spread", "seed")
    kind = settings.choice("distribution", ("lognormal", "uniform"))
    spread = settings.number("spread", "the relative variation of a step", least=0)
    if kind == "uniform" and spread >= 1:
        raise ConfigError(f"{settings.key}.spread", spread, "must lie below 1 if uniform")
    seed = settings.seed(workers.seed)

    def factor(step: int, now: float) -> float:
        del now
        stream = workers.stream("jitter", seed, step)
        if kind == "uniform":
            return float(stream.uniform(1 - spread, 1 + spread))
        return math.exp(stream.normal(-(spread**2) / 2, spread))

    return factor


@PROFILES.register("markov")
def markov(settings: Settings, workers: Workers) -> Factor:
    """Every worker alternates between fast (1) and slow (``factor``) in continuous time.

    A two-state Markov chain: the times in a state are exponential with means ``fast_s`` and
    ``slow_s``; the state at time 0 is drawn from the stationary distribution. A step has the pace
    of the state in which it starts.
    """
    settings.allow("factor", "fast_s", "slow_s", "seed")
    slow = settings.number("factor", "how many times longer a step lasts when slow", least=1)
    means = (
        settings.number("fast_s", "the mean seconds in the fast state"),
        settings.number("slow_s", "the mean seconds in the slow state"),
    )
    seed = settings.seed(workers.seed)
    first = int(workers.stream("markov", seed).random() < means[1] / sum(means))  # 1: slow
    ends: list[float] = [0.0]  # ends[k + 1]: when the k-th stay in a state ends

    def extend(now: float) -> None:
        """Draws further stays, a block at a time, until one ends later than ``now``."""
        while ends[-1] <= now:
            block = 1 + (len(ends) - 1) // _BLOCK
            stays = workers.stream("markov", seed, block).exponential(size=_BLOCK)
            scaled = (float(stay) * means[(first + k) % 2] for k, stay in enumerate(stays))
            ends[:] = [*ends[:-1], *accumulate(scaled, initial=ends[-1])]

    def factor(step: int, now: float) -> float:
        del step
        extend(now)
        stay = bisect_right(ends, now) - 1
        return slow if (first + stay) % 2 else 1.0

    return factor


@PROFILES.register("slowdown")
def slowdown(settings: Settings, workers: Workers) -> Factor:
    """One center (or one ``worker``) is ``factor`` times slower from ``at`` for ``duration`` s.

    A step has the pace of the instant at which it starts.
    """
    settings.allow("center", "worker", "at", "factor", "duration")
    centers = dict.fromkeys(name.partition("/")[0] for name in workers.names)
    if ("center" in settings.values) == ("worker" in settings.values):
        fix = "name either the center or the worker that slows down"
        raise ConfigError(settings.key, dict(settings.values), fix)
    if "center" in settings.values:
        mine = settings.choice("center", centers) == workers.center
    else:
        mine = settings.choice("worker", workers.names) == workers.name
    start = settings.number("at", "the experiment time at which it starts, s", least=0)
    factor = settings.number("factor", "how many times longer a step lasts")
    end = start + settings.number("duration", "how many seconds it lasts")
    return lambda _step, now: factor if mine and start <= now < end else 1.0
