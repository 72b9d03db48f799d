"""The emulated figures of the cases, and the file that keeps them: ``docs/calibration.json``.

So the page can be made again, after a change of the simulator, without new emulated runs, and a
calibration can run some cases and take the others' figures from an earlier day.
"""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from experiments.calibrate.cases import Case
from experiments.calibrate.runs import Measurement
from geojax.errors import ConfigError

FIGURES = pathlib.Path(__file__).resolve().parents[2] / "docs" / "calibration.json"


@dataclass(frozen=True)
class Emulated:
    """What the emulated runs of a case gave.

    Attributes:
      mean: sync time over all rounds and repetitions, s.
      spread: sample standard deviation of the repetitions' means, s; None with fewer than two.
      first: sync time of the first round, mean over the repetitions, s.
      repetitions: how many.
      cpu_share: the largest busy share of the machine's cores; None: not measured.
      goodput: TCP payload ÷ link rate of single flows before the runs; None: not measured.
      date: of the runs.
      origin: machine and versions, or where the figures were taken from.
    """

    mean: float
    spread: float | None
    first: float
    repetitions: int
    cpu_share: float | None
    goodput: float | None
    date: str
    origin: str


def emulated(runs: Sequence[Measurement], date: str, origin: str) -> Emulated | None:
    """The figures of finished repetitions; None if there are none."""
    if not runs:
        return None
    means = [run.mean for run in runs]
    shares = [run.cpu_share for run in runs if run.cpu_share is not None]
    goodputs = [run.goodput_factor for run in runs if run.goodput_factor is not None]
    return Emulated(
        statistics.fmean(means),
        statistics.stdev(means) if len(means) > 1 else None,
        statistics.fmean(run.rounds[0] for run in runs),
        len(runs),
        max(shares, default=None),
        statistics.fmean(goodputs) if goodputs else None,
        date,
        origin,
    )


def load(path: pathlib.Path, cases: Sequence[Case]) -> dict[Case, Emulated]:
    """The kept figures of those cases that the file has.

    Raises:
      ConfigError: the file's figures are of another case under the same name.
    """
    kept = json.loads(path.read_text()) if path.exists() else {}
    found = {}
    for case in cases:
        if case.name in kept:
            entry = kept[case.name]
            if entry["case"] != case.described():
                fix = f"{path} has figures of another configuration; emulate this case again"
                raise ConfigError("--recorded", case.name, fix)
            found[case] = Emulated(**entry["emulated"])
    return found


def save(path: pathlib.Path, figures: Mapping[Case, Emulated]) -> None:
    """Writes figures, in the order of the cases."""
    entries = {
        case.name: {"case": case.described(), "emulated": asdict(each)}
        for case, each in figures.items()
    }
    path.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
