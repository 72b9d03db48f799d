"""What the calibration runs: a WAN, an overlay, a message, and any further settings of a run.

The cases that the simulator's constants are fitted on are in :mod:`experiments.calibrate.fitted`,
those that judge it in :mod:`experiments.calibrate.held_out`. All rates of a case together stay
within what two cores can emulate, and a run within some 20 s of experiment time.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from geojax.axes import change
from geojax.config import RunConfig, WanConfig
from geojax.models.registry import SyntheticConfig
from testbed.wan.build import Wan, build_wan, load_preset
from testbed.wan.dynamics import MBIT

EXPERIMENT = "calibrate"
FITTED, HELD_OUT = "fitted", "held-out"
LONGEST_S = 25.0  # experiment time of a run
SMALL_BYTES, LARGE_BYTES = 500_000, 5_000_000  # a small message is not larger, a large not smaller


@dataclass(frozen=True)
class Case:
    """One configuration that runs on both testbeds.

    Attributes:
      name: of its row and its folder.
      part: ``FITTED`` or ``HELD_OUT``.
      wan: makes the WAN.
      overlay: its name.
      nbytes: of the float32 vector that centers exchange.
      rounds: of a run.
      chunk_elements: float32 numbers in a chunk.
      settings: further keys of the configuration and their values, as they are typed.
    """

    name: str
    part: str
    wan: Callable[[], WanConfig]
    overlay: str
    nbytes: int
    rounds: int
    chunk_elements: int = 65_536
    settings: tuple[tuple[str, Any], ...] = ()

    def config(self, testbed: str, constants: Mapping[str, float] | None = None) -> RunConfig:
        """The run's configuration.

        Args:
          testbed: "simulated" or "emulated".
          constants: other values of the simulator's constants, by dotted key.
        """
        config = RunConfig(experiment=EXPERIMENT, rounds=self.rounds, wan=self.wan())
        config.testbed.name = testbed
        config.model = SyntheticConfig(bytes=self.nbytes)
        own = {"overlay": self.overlay, "overlay.chunk_elements": self.chunk_elements}
        return change(config, {**own, **dict(self.settings), **(constants or {})})

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

    def described(self) -> dict[str, str]:
        """All that an emulated run of it depends on, in words, by column of the table of cases."""
        loss = self.wan().loss
        settings = [*self.settings, *([("wan.loss", loss)] if loss else [])]
        return {
            "wan": self.shape(),
            "rates": _span(self.rates()),
            "rtt": _span(self.delays()),
            "bytes": f"{self.nbytes / 1e6:g}",
            "chunk": f"{self.chunk_elements:,}",
            "rounds": str(self.rounds),
            "overlay": self.overlay,
            "settings": ", ".join(f"{key}={value}" for key, value in settings),
        }

    def _built(self) -> Wan:
        config = self.config("simulated")
        return build_wan(config.wan, config.lan, seed=0)

    def traits(self) -> tuple[str, str, str]:
        """What kind of a case it is: WAN, rates, size."""
        wan = self._built()
        size = "small" if self.nbytes <= SMALL_BYTES else "large"
        return (
            "dense" if len(wan.links) == len(wan.centers) * (len(wan.centers) - 1) else "sparse",
            "static" if self.wan().dynamics is None else "dynamic",
            size if not SMALL_BYTES < self.nbytes < LARGE_BYTES else "medium",
        )


def _span(values: list[float]) -> str:
    """The range of some ascending numbers, or the only one."""
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g}–{values[-1]:g}"


def preset(name: str, **settings: Any) -> Callable[[], WanConfig]:
    """A preset's WAN with other values of its keys."""
    settings = {"name": name, "seed": 1, **settings}
    if name == "full_mesh":
        settings.setdefault("draw", None)
    read = functools.cache(lambda: load_preset(name, **settings))  # its file once in a process
    return lambda: copy.deepcopy(read())


def capped(centers: int, *, rate: float, rtt: float, cap: float) -> Callable[[], WanConfig]:
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


def redraw(period_s: float, low: int, high: int) -> dict[str, Any]:
    """All rates drawn anew every ``period_s``, from ``low`` to ``high`` Mbit/s."""
    return {"kind": "redraw", "period_s": period_s, "low": low, "high": high}


def steps(*steps: tuple[float, float]) -> dict[str, Any]:
    """All links at once: (experiment time in s, Mbit/s)."""
    scripted = [{"at": at, "all": True, "rate": rate} for at, rate in steps]
    return {"kind": "steps", "steps": scripted}
