"""The configurations of the calibration: one half to fit the simulator's constants, one to test it.

No rate, message size or delay of one half occurs in the other. Both halves have dense and sparse
WANs, constant and changing rates, small and large messages, many-to-one and all-to-all. All rates
together stay within what two cores can emulate, and a run within some 20 s of experiment time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from geojax.config import LanConfig, RunConfig, WanConfig
from geojax.errors import ConfigError, nearest
from geojax.models.registry import SyntheticConfig
from testbed.wan.build import Wan, build_wan, load_preset
from testbed.wan.dynamics import MBIT

EXPERIMENT = "calibrate"
FIT, HELD_OUT = "fit", "held-out"
ALL_TO_ALL, MANY_TO_ONE = "sharded_star", "star"  # overlays
LONGEST_S = 25.0  # experiment time of a run
SMALL_BYTES, LARGE_BYTES = 500_000, 5_000_000  # a small message is not larger, a large not smaller


@dataclass(frozen=True)
class Case:
    """One configuration that runs on both testbeds.

    Attributes:
      name: of its row and its folder.
      half: ``FIT`` or ``HELD_OUT``.
      wan: makes the WAN.
      overlay: ``ALL_TO_ALL`` or ``MANY_TO_ONE``.
      nbytes: what each center sends and receives in a round.
      rounds: of a run.
      chunk_elements: float32 numbers in a chunk.
    """

    name: str
    half: str
    wan: Callable[[], WanConfig]
    overlay: str
    nbytes: int
    rounds: int
    chunk_elements: int = 65_536

    def config(self, testbed: str, constants: Mapping[str, float] | None = None) -> RunConfig:
        """The run's configuration.

        Args:
          testbed: "simulated" or "emulated".
          constants: other values of the simulator's constants, by dotted key.
        """
        config = RunConfig(experiment=EXPERIMENT, rounds=self.rounds, wan=self.wan())
        config.testbed.name = testbed
        config.model = SyntheticConfig(bytes=self.nbytes)
        config.overlay.name = self.overlay
        config.overlay.chunk_elements = self.chunk_elements
        for key, value in (constants or {}).items():
            group, _, field = key.partition(".")
            setattr(getattr(config, group), field, value)
        return config

    def rates(self) -> list[float]:
        """Rates and access caps in force during the run, Mbit/s, ascending, each once."""
        wan = self._built()
        caps = (cap for center in wan.centers for cap in (center.egress, center.ingress) if cap)
        changes = itertools.takewhile(lambda change: change.at <= LONGEST_S, wan.changes())
        changed = (rate for change in changes for rate in change.rates.values())
        rates = itertools.chain(caps, (link.rate for link in wan.links), changed)
        return sorted({round(rate / MBIT, 6) for rate in rates})

    def delays(self) -> list[float]:
        """Round-trip times of the links, ms, ascending, each once."""
        return sorted({round(link.delay * 2e3, 6) for link in self._built().links})

    def shape(self) -> str:
        """Number of centers and of directed links, in words."""
        wan = self._built()
        return f"{len(wan.centers)} centers, {len(wan.links)} links"

    def _built(self) -> Wan:
        return build_wan(self.wan(), LanConfig(), seed=0)

    def traits(self) -> tuple[str, ...]:
        """What kind of a case it is: WAN, rates, size, traffic."""
        wan = self._built()
        size = "small" if self.nbytes <= SMALL_BYTES else "large"
        return (
            "dense" if len(wan.links) == len(wan.centers) * (len(wan.centers) - 1) else "sparse",
            "static" if self.wan().dynamics is None else "dynamic",
            size if not SMALL_BYTES < self.nbytes < LARGE_BYTES else "medium",
            "all-to-all" if self.overlay == ALL_TO_ALL else "many-to-one",
        )


def _wan(preset: str, **settings: Any) -> Callable[[], WanConfig]:
    settings = {"name": preset, "seed": 1, **settings}
    if preset == "full_mesh":
        settings.setdefault("draw", None)
    return lambda: load_preset(preset, **settings)


def _capped(centers: int, *, rate: float, rtt: float, cap: float) -> Callable[[], WanConfig]:
    """A full mesh in which every center's access is narrower than its links together."""
    names = [f"c{number}" for number in range(1, centers + 1)]
    return lambda: WanConfig(
        name="capped",
        centers=[{"name": name, "egress": cap, "ingress": cap} for name in names],
        links=[{"between": [a, b]} for a, b in itertools.combinations(names, 2)],
        rate=rate,
        rtt=rtt,
        seed=1,
    )


def _redraw(period_s: float, low: int, high: int) -> dict[str, Any]:
    return {"kind": "redraw", "period_s": period_s, "low": low, "high": high}


def _steps(*steps: tuple[float, float]) -> dict[str, Any]:
    """All links at once: (experiment time in s, Mbit/s)."""
    scripted = [{"at": at, "all": True, "rate": rate} for at, rate in steps]
    return {"kind": "steps", "steps": scripted}


CASES = (
    Case(
        "mesh4-large-star", FIT, _wan("full_mesh", centers=4, rate=40, rtt=30),
        MANY_TO_ONE, 10_000_000, rounds=8,
    ),
    Case(
        "mesh7-small-all", FIT, _wan("full_mesh", centers=7, rate=8, rtt=60),
        ALL_TO_ALL, 200_000, rounds=80, chunk_elements=7_143,
    ),
    Case(
        "mesh6-star-redrawn", FIT,
        _wan("full_mesh", centers=6, rtt=36, dynamics=_redraw(2.5, 9, 19)),
        MANY_TO_ONE, 1_000_000, rounds=18, chunk_elements=16_384,
    ),
    Case(
        "ring5-large-star-steps", FIT,
        _wan("random_sparse", centers=5, degree=2, draw=None, rate=48, rtt=16,
             dynamics=_steps((5.0, 35), (11.0, 60))),
        MANY_TO_ONE, 6_000_000, rounds=7,
    ),
    Case(
        "net9-all", FIT, _wan("netstorm9_draw", draw={"low": 9, "high": 19}, rtt=10),
        ALL_TO_ALL, 1_500_000, rounds=6, chunk_elements=8_192,
    ),
    Case(
        "capped5-star", FIT, _capped(5, rate=38, rtt=14, cap=54),
        MANY_TO_ONE, 2_500_000, rounds=10, chunk_elements=32_768,
    ),
    Case(
        "mesh9-small-star", HELD_OUT, _wan("full_mesh", centers=9, rate=22, rtt=50),
        MANY_TO_ONE, 300_000, rounds=80, chunk_elements=16_384,
    ),
    Case(
        "mesh5-large-all", HELD_OUT, _wan("full_mesh", centers=5, rate=20, rtt=20),
        ALL_TO_ALL, 12_000_000, rounds=7,
    ),
    Case(
        "mesh6-large-star-steps", HELD_OUT,
        _wan("full_mesh", centers=6, rate=32, rtt=80,
             dynamics=_steps((4.0, 24), (9.0, 44), (13.0, 28))),
        MANY_TO_ONE, 8_000_000, rounds=7,
    ),
    Case(
        "sparse8-star", HELD_OUT,
        _wan("random_sparse", centers=8, degree=3, draw={"low": 21, "high": 33}, rtt=44),
        MANY_TO_ONE, 2_000_000, rounds=8,
    ),
    Case(
        "net9-all-redrawn", HELD_OUT,
        _wan("netstorm9_dynamic", dynamics=_redraw(4.0, 21, 33), rtt=26),
        ALL_TO_ALL, 3_000_000, rounds=6, chunk_elements=20_000,
    ),
    Case(
        "capped6-all", HELD_OUT, _capped(6, rate=26, rtt=70, cap=50),
        ALL_TO_ALL, 5_000_000, rounds=10,
    ),
)  # fmt: skip


def chosen(names: list[str] | None) -> tuple[Case, ...]:
    """The cases of these names, in the table's order; None: all.

    Raises:
      ConfigError: there is no such case.
    """
    known = [case.name for case in CASES]
    for name in names or ():
        if name not in known:
            raise ConfigError("--only", name, nearest(name, known))
    return tuple(case for case in CASES if names is None or case.name in names)
