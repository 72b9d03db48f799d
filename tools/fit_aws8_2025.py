"""Fits the preset ``aws8_2025`` to what was measured: ``python -m tools.fit_aws8_2025`` writes it.

Measured (WANify, 2025): medians of the rate of every pair while 2 to 8 AWS regions sent to each
other at once, and for three pairs also the rate when only they were active, which is up to twice
as fast. So a WAN of pair rates alone is either too slow for single senders or too fast for many; a
site's access must bind as well.

Model: each site has an egress and an ingress cap, each pair a rate; flows share them max-min
fairly. With all 56 flows at once, a saturated cap gives every flow that it binds the same rate, the
site's *level*, so flow (i, j) gets r = min(pair rate, egress level of i, ingress level of j), and
the cap is the sum of r over the site's flows.

Rule: levels and pair rates minimise, in logarithms,

    sum over pairs of (r - measured median)^2 + WEIGHT * (pair rate - alone rate)^2

The alone rate is the measured one where there is one, and the pair rate is then fixed to it.
Elsewhere it is estimated as ``p90 * k``: the 90th percentile comes from runs with few active
regions, and k is the geometric mean of measured alone rate over p90 of the three pairs. Given the
levels, the best pair rate is known in closed form; levels are found by coordinate descent on a
grid.

Round-trip times are those of a 2017 table (mean of both directions). Mumbai is not in it: its are
estimated by the straight line (least squares) through the other pairs' times over great-circle
distance.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

MEASURED = Path(__file__).parent / "measurements" / "aws8_2025.json"
PRESET = Path(__file__).parent.parent / "conf" / "wan" / "aws8_2025.yaml"
WEIGHT = 0.1  # of an unmeasured alone rate against a measured median
GRID = np.log(np.arange(20.0, 260.0, 1.0))  # levels tried, log Mbit/s
EARTH_RADIUS = 6371.0  # km


class Fit:
    """The fitted WAN.

    Attributes:
      names: of the sites.
      medians: measured while many sent, Mbit/s; NaN on the diagonal.
      measured_alone: pairs whose rate alone was measured, Mbit/s, by indices.
      pair_rates: fitted, Mbit/s.
      crowd_rates: what the model gives when all send to all, Mbit/s.
      egress, ingress: fitted caps, Mbit/s.
    """

    def __init__(self, measured: dict[str, Any]):
        self._measured = measured
        self.sites: list[dict[str, Any]] = measured["sites"]
        self.names: list[str] = [site["name"] for site in self.sites]
        self.medians = np.array(measured["rates"]["median"], float)
        p90 = np.array(measured["rates"]["p90"], float)
        self.measured_alone = {
            (self.names.index(pair["from"]), self.names.index(pair["to"])): pair["medians"]["2"]
            for pair in measured["rates"]["medians_of_a_pair_by_active_regions"]
        }
        self.k = math.exp(
            sum(math.log(rate / p90[pair]) for pair, rate in self.measured_alone.items())
            / len(self.measured_alone)
        )
        alone = np.fmax(p90 * self.k, self.medians)
        fixed = np.zeros_like(alone, bool)
        for pair, rate in self.measured_alone.items():
            alone[pair], fixed[pair] = rate, True
        self._median, self._alone, self._fixed = np.log(self.medians), np.log(alone), fixed
        crowd, pairs = self._rates(self._levels())
        self.pair_rates, self.crowd_rates = np.exp(pairs), np.exp(crowd)
        self.egress = np.nansum(self.crowd_rates, axis=1)
        self.ingress = np.nansum(self.crowd_rates, axis=0)

    def _rates(self, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of the crowd rates and of the best pair rates under given levels."""
        size = len(self.names)
        level = np.minimum(levels[:size, None], levels[None, size:])
        capped = np.minimum(self._alone, level)  # a pair as fast as alone, bound by its sites
        own = np.minimum((self._median + WEIGHT * self._alone) / (1 + WEIGHT), level)
        cost = (own - self._median) ** 2 + WEIGHT * (own - self._alone) ** 2
        keep = self._fixed | ((capped - self._median) ** 2 <= cost)
        return np.where(keep, capped, own), np.where(keep, self._alone, own)

    def _cost(self, levels: np.ndarray) -> float:
        crowd, pairs = self._rates(levels)
        error = (crowd - self._median) ** 2 + WEIGHT * (pairs - self._alone) ** 2
        return float(np.nansum(error))

    def _levels(self) -> np.ndarray:
        """Coordinate descent from each site's fastest flow."""
        levels = np.concatenate([np.nanmax(self._median, axis=1), np.nanmax(self._median, axis=0)])
        best, before = self._cost(levels), math.inf
        while best < before - 1e-9:
            before = best
            for index in range(len(levels)):
                tried = np.tile(levels, (len(GRID), 1))
                tried[:, index] = GRID
                costs = [self._cost(candidate) for candidate in tried]
                if min(costs) < best:
                    best = min(costs)
                    levels = tried[int(np.argmin(costs))]
        return levels

    @cached_property
    def line(self) -> tuple[float, float]:
        """Round-trip time over distance of the pairs in the table: ms, ms per km."""
        known = [pair for pair in combinations(range(len(self.names)), 2) if self._known(*pair)]
        distances = [self.distance(*pair) for pair in known]
        slope, start = np.polyfit(distances, [self.rtt(*pair)[0] for pair in known], 1)
        return float(start), float(slope)

    def distance(self, i: int, j: int) -> float:
        """Great-circle distance of two sites, km."""
        (east, north), (east2, north2) = (
            map(math.radians, self.sites[k]["position"]) for k in (i, j)
        )
        half = (
            math.sin((north2 - north) / 2) ** 2
            + math.cos(north) * math.cos(north2) * math.sin((east2 - east) / 2) ** 2
        )
        return 2 * EARTH_RADIUS * math.asin(math.sqrt(half))

    def rtt(self, i: int, j: int) -> tuple[float, bool]:
        """Round-trip time in ms, and whether it is an estimate."""
        found = self._known(i, j)
        if found:
            return sum(found) / len(found), False
        start, slope = self.line
        return start + slope * self.distance(i, j), True

    def _known(self, i: int, j: int) -> list[float]:
        """The table's times of a pair, one a direction that it has."""
        sites, rows = self._measured["rtts"]["sites"], self._measured["rtts"]["rows"]
        one, other = self.sites[i]["rtt_name"], self.sites[j]["rtt_name"]
        if one is None or other is None:
            return []
        cluster = sites.index(one), sites.index(other)
        return [rows[a][b] for a, b in (cluster, cluster[::-1]) if a < len(rows)]


def load() -> Fit:
    """Fits the committed measurements."""
    return Fit(json.loads(MEASURED.read_text()))


def render(fit: Fit) -> str:
    """The preset as a YAML file."""
    start, slope = fit.line
    error = np.abs(fit.crowd_rates / fit.medians - 1)
    header = """\
# Eight AWS regions, pair rates and access caps fitted to measurements among 2 to 8 of them at once.
# Written by `python -m tools.fit_aws8_2025`, which states and does the fit; do not edit by hand.
defaults: [base_wan, _self_]

name: aws8_2025
"""
    provenance = f"""\
provenance:
  source: >-
    rates: WANify (arXiv 2508.12961), github.com/mc2lab/WANify datasets/dynamic*_20.json at be25bd3
    (MIT); rtt: acomputerscientistlearnsaws.blogspot.com/2017/04/aws-regions.html (secondary)
  date: rates 2025, rtt April 2017
  unit: rate, egress and ingress Mbit/s, rtt ms
  direction: from sends, to receives; rtt is the mean of both directions where both are known
  method: >-
    medians of the received rate over 600 runs of 20 s of simultaneous iperf among 2 to 8 regions,
    t2.medium, fitted; with all 56 flows at once, max-min fair sharing gives those medians within
    {np.nanmax(error):.1%} (median error {np.nanmedian(error):.1%})
  estimated:
    fit: >-
      pair rates and caps by tools/fit_aws8_2025.py from the medians; alone, three pairs were
      measured (mumbai-singapore 230, tokyo-singapore 174, ireland-california 93), for the others
      the fit leans towards p90 x {fit.k:.3f}
    distance: >-
      {start:.1f} ms + {slope * 1e3:.2f} ms per 1000 km of great circle, the line through the other
      pairs (least squares); Mumbai is not in the table of rtts
  limits: >-
    medians mix runs with 2 to 8 active regions; with all 8 active, the three pairs above had
    medians of 95, 80 and 52. Fixed caps bind late: with 4 to 6 active regions the model gives
    mumbai-singapore up to 1.8 times the measured rate
"""
    centers = "".join(
        f"  - {{name: {site['name']}, egress: {egress:.1f}, ingress: {ingress:.1f}, "
        f"position: {site['position']},\n"
        f"     estimated: {{egress: fit, ingress: fit}}}} # {site['region']}\n"
        for site, egress, ingress in zip(fit.sites, fit.egress, fit.ingress, strict=True)
    )
    size = range(len(fit.names))
    links = "".join(_link(fit, i, j) for i in size for j in size if i != j)
    return f"{header}centers:\n{centers}links:\n{links}{provenance}"


def _link(fit: Fit, i: int, j: int) -> str:
    rtt, guessed = fit.rtt(i, j)
    rules = [] if (i, j) in fit.measured_alone else ["rate: fit"]
    rules += ["rtt: distance"] if guessed else []
    marks = f", estimated: {{{', '.join(rules)}}}" if rules else ""
    return (
        f"  - {{from: {fit.names[i]}, to: {fit.names[j]}, rate: {fit.pair_rates[i, j]:.1f}, "
        f"rtt: {rtt:.1f}{marks}}}\n"
    )


def main(argv: Sequence[str]) -> int:
    """Writes the preset, or the file that is named."""
    parser = argparse.ArgumentParser(prog="python -m tools.fit_aws8_2025", description=main.__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=PRESET)
    path = parser.parse_args(argv).file
    path.write_text(render(load()))
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
