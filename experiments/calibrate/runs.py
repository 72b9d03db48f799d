"""The runs of the calibration: repeated on the emulated WAN, once simulated."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from omegaconf.errors import OmegaConfBaseException

from experiments.calibrate.cases import Case
from experiments.runs import records, schema, stored
from experiments.train import children
from geojax.config import RunConfig
from geojax.errors import GeojaxError
from geojax.hollow import SIZE_ONLY
from geojax.telemetry.summary import sync_times
from testbed.play import play

Say = Callable[[str], object]


@dataclass(frozen=True)
class Measurement:
    """One finished run.

    Attributes:
      rounds: sync time of every round, s.
      cpu_share: busy share of the whole machine's cores; None: not measured.
      goodput_factor: TCP payload ÷ link rate of single flows, as measured; None: not measured.
    """

    rounds: tuple[float, ...]
    cpu_share: float | None = None
    goodput_factor: float | None = None

    @property
    def mean(self) -> float:
        """Mean sync time over all rounds, the first included, s."""
        return statistics.fmean(self.rounds)


def read(run_dir: pathlib.Path) -> Measurement:
    """Reads a finished run from its directory."""
    events = [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]
    summary = records.read_json(run_dir / records.SUMMARY)
    goodput = summary.get("goodput_factor") if summary.get("testbed") == "emulated" else None
    return Measurement(tuple(sync_times(events).values()), summary.get("cpu_share"), goodput)


def simulated(case: Case, constants: Mapping[str, float] | None = None) -> Measurement:
    """The simulated run, in this process.

    Dense messages travel without content there, which changes no time.
    """
    config = case.config("simulated", constants)
    if config.compression.name == "dense":
        config.compression.name = SIZE_ONLY
    return Measurement(tuple(sync_times(play(config).events).values()))


class Runs:
    """The emulated runs' directories of one calibration: ``OUTPUT/emulated/CASE/NUMBER``.

    Args:
      output: the calibration's directory.
      constants: dotted keys that only the simulator reads; emulated runs that differ in nothing
        else are the same.
      say: is told about every run.
    """

    def __init__(self, output: pathlib.Path, constants: Sequence[str], say: Say = print):
        self._output, self._constants, self._say = output, frozenset(constants), say
        self._known: dict[tuple[Case, pathlib.Path], bool] = {}  # whether it is a run of the case

    @property
    def empty(self) -> bool:
        """Whether no run has been started in this directory."""
        return not any(self._output.glob(f"*/*/*/{records.CONFIG}"))

    def emulated(self, case: Case) -> list[Measurement]:
        """The finished repetitions of a case, in the order in which they were made."""
        return [read(path) for path in self._finished(case)]

    def missing(self, case: Case, repetitions: int) -> int:
        """How many repetitions are still to be made."""
        return max(0, repetitions - len(self._finished(case)))

    def run(self, case: Case) -> Measurement:
        """Makes one emulated run in a fresh process and a fresh directory.

        Raises:
          GeojaxError: the run failed.
        """
        config = case.config("emulated")
        run_dir = self._free(case)
        schema.save(config, run_dir / records.CONFIG)
        code = children.run_job(run_dir)
        status = records.read_json(run_dir / records.SUMMARY)
        if status.get("status") != records.FINISHED:
            reason = status.get("error") or f"its process ended with {code}"
            raise GeojaxError(f"{case.name}: {reason} ({run_dir})")
        measured = read(run_dir)
        busy = "" if measured.cpu_share is None else f", {measured.cpu_share:.0%} of the CPU busy"
        self._say(f"{case.name}, emulated: mean sync time {measured.mean:.4g} s{busy}")
        return measured

    def _free(self, case: Case) -> pathlib.Path:
        folder = self._folder(case)
        taken = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
        run_dir = folder / str(max(taken, default=0) + 1)
        run_dir.mkdir(parents=True)
        return run_dir

    def _finished(self, case: Case) -> list[pathlib.Path]:
        paths = [path for path in self._folder(case).glob("*") if path.name.isdigit()]
        return [
            path
            for path in sorted(paths, key=lambda path: int(path.name))
            if records.read_json(path / records.SUMMARY).get("status") == records.FINISHED
            and self._same(case, path / records.CONFIG)
        ]

    def _folder(self, case: Case) -> pathlib.Path:
        return self._output / "emulated" / case.name

    def _same(self, case: Case, path: pathlib.Path) -> bool:
        """Whether a stored configuration, which never changes, makes a case's emulated run."""
        if (case, path) not in self._known:
            try:
                known = self._settings(schema.load(path))
            except OmegaConfBaseException:
                known = None  # an older schema wrote it
            self._known[case, path] = known == self._settings(case.config("emulated"))
        return self._known[case, path]

    def _settings(self, config: RunConfig) -> dict[str, object]:
        flat = stored.flatten(stored.whole(config))
        ignored = self._constants
        return {k: v for k, v in flat.items() if k not in ignored and not stored.is_noise(k)}
