"""Measures ways of doing the same work in turn, so that a busy machine disturbs all alike."""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from experiments.bench.peers.work import PREFIX
from geojax.errors import ConfigError, GeojaxError

ROOT = pathlib.Path(__file__).resolve().parents[3]
PEERS = {"plain": "plain", "fedjax": "fedjax_rounds", "flower": "flower_rounds"}
PACKAGES = {"plain": "jax", "fedjax": "fedjax", "flower": "flwr"}  # what must be there to import
_MOST_DEVIATION = 0.2  # of a peer's first round from ours, as a share of the way the round went


@dataclass
class Contender:
    """One way of doing the work.

    Attributes:
      name: of it.
      run: ``rounds -> (seconds, client steps)``.
      words: what it is.
      first: result of its first round (P,), None: not compared.
      rates: client steps a second, of each repetition.
    """

    name: str
    run: Callable[[int], tuple[float, int]]
    words: str = ""
    first: np.ndarray | None = None
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median."""
        return statistics.median(self.rates)


def here(make_round: Callable[[], None], steps: int) -> Callable[[int], tuple[float, int]]:
    """A way of this process; ``steps``: of a round."""

    def run(rounds: int) -> tuple[float, int]:
        start = time.perf_counter()
        for _ in range(rounds):
            make_round()
        return time.perf_counter() - start, rounds * steps

    return run


class Peer:
    """A process that serves rounds; see :func:`experiments.bench.peers.work.serve`.

    Args:
      name: one of :data:`PEERS`.
      python: an interpreter that has its packages.
      archive: the work.
    """

    def __init__(self, name: str, python: str, archive: pathlib.Path):
        self._name = name
        module = f"experiments.bench.peers.{PEERS[name]}"
        environment = {"NPROC": "1"} | os.environ | {"PYTHONPATH": str(ROOT)}
        self._errors = (archive.parent / f"{name}.errors").open("w+")
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-m", module, str(archive)], cwd=ROOT, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        answer = self._answer()
        self.words = str(answer["words"])
        self.first = np.array(answer["first"], np.float32)

    def run(self, rounds: int) -> tuple[float, int]:
        """Makes some rounds."""
        stream = _stream(self._process.stdin)
        stream.write(f"{rounds}\n")
        stream.flush()
        answer = self._answer()
        return float(answer["seconds"]), int(answer["steps"])

    def close(self) -> None:
        """Lets the process end, and waits for it."""
        _stream(self._process.stdin).close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _stream(self._process.stdout).close()
        self._errors.close()

    def _answer(self) -> dict:
        for line in _stream(self._process.stdout):
            if line.startswith(PREFIX):
                return json.loads(line.removeprefix(PREFIX))
        self._process.wait()
        self._errors.seek(0)
        told = self._errors.read().strip().splitlines()[-12:]
        raise GeojaxError("\n".join([f"{self._name} has ended:", *told]))


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def pythons(names: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """The interpreter of each peer: this one, or that of ``--peer-python NAME=PATH``.

    Raises:
      ConfigError: a name is unknown, or an interpreter is missing or lacks the package.
    """
    found = dict.fromkeys(names, sys.executable)
    for text in given:
        name, _, path = text.partition("=")
        if name not in names or not path:
            fix = f"is NAME=PATH, NAME being one of --peers ({', '.join(names) or 'none'})"
            raise ConfigError("--peer-python", text, fix)
        found[name] = path
    for name, python in found.items():
        package = PACKAGES[name]
        look = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
        try:
            missing = subprocess.run([python, "-c", look], cwd=ROOT, check=False).returncode
        except OSError as problem:
            raise ConfigError("--peer-python", python, f"does not start: {problem}") from problem
        if missing:
            fix = (
                f"{python} has no package {package}; do: pip install 'geojax[peers]', or give "
                f"a Python that has it: --peer-python {name}=PATH"
            )
            raise ConfigError("--peers", name, fix)
    return found


def hold(contenders: Sequence[Contender], *, rounds: int, repetitions: int) -> None:
    """Measures all in turn, ``repetitions`` times, each after the one before in a shifted order."""
    for number in range(repetitions):
        shift = number % len(contenders)
        for each in [*contenders[shift:], *contenders[:shift]]:
            seconds, steps = each.run(rounds)
            each.rates.append(steps / seconds)


def ratio(one: Contender, other: Contender) -> float:
    """How many times as fast ``one`` is: the median over repetitions of the ratio in each."""
    return statistics.median(a / b for a, b in zip(one.rates, other.rates, strict=True))


def deviations(
    contenders: Sequence[Contender], start: np.ndarray, ours: np.ndarray
) -> Mapping[str, float]:
    """How far each first round ends from ours, ÷ how far ours went from the start.

    Shuffles differ, so it is not zero, but small where the same work was done.

    Raises:
      GeojaxError: one is so far off that it has done other work.
    """
    way = float(np.linalg.norm(ours - start))
    found = {}
    for each in contenders:
        if each.first is not None:
            found[each.name] = float(np.linalg.norm(each.first - ours)) / way
            if found[each.name] > _MOST_DEVIATION:
                raise GeojaxError(
                    f"{each.name}'s first round ends {found[each.name]:.2f} ways of a round from "
                    "ours: it has not done the same work"
                )
    return found
