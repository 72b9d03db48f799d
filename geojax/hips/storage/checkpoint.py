"""Checkpoints: each node keeps its own state after every so many rounds.

A run continues from the last round that all of its nodes have kept. Files are ``.npz`` archives
without pickles, written whole or not at all.
"""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from geojax.hips.cluster import START, ResumePoint
from geojax.machine.machine import Machine

_KEEP = 2  # another node may lack the last checkpoint, but has the one before


class Checkpoints:
    """One node's checkpoints.

    Args:
      folder: the run's folder of checkpoints.
      node: the node's name.
      every: rounds between two checkpoints; 0: none are written.
      counters: what the node has counted so far; kept with every checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        node: str,
        every: int = 0,
        *,
        counters: Callable[[], Mapping[str, Any]] = dict,
    ):
        self._folder = folder / node.replace("/", "_")
        self._every, self._counters = every, counters
        self._writing: asyncio.Future[None] | None = None

    def due(self, number: int) -> bool:
        """Whether a checkpoint is to be written after round ``number``."""
        return self._every > 0 and (number + 1) % self._every == 0

    async def keep(
        self, number: int, time: float, state: Mapping[str, Any], machine: Machine
    ) -> None:
        """Writes a checkpoint aside, while training goes on."""
        await self.flush()
        whole = {**state, "counters": self._counters()}
        self._writing = asyncio.ensure_future(
            machine.aside(lambda: self.write(number, time, whole))
        )

    async def flush(self) -> None:
        """Waits until what was kept is on disk."""
        if self._writing is not None:
            await self._writing

    def write(self, number: int, time: float, state: Mapping[str, Any]) -> None:
        """Keeps ``state``: nested mappings of arrays and JSON values."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / "partial"
        with partial.open("wb") as stream:
            pack(stream, [time, state])
        partial.rename(self._path(number))
        for old in sorted(self._folder.glob("round_*.npz"))[:-_KEEP]:
            old.unlink()

    def read(self, number: int) -> tuple[float, dict[str, Any]]:
        """Experiment time and state of :meth:`write`."""
        with self._path(number).open("rb") as stream:
            time, state = unpack(stream)
        return time, state

    def rounds(self) -> set[int]:
        """Rounds after which there is a checkpoint."""
        return {int(path.stem.split("_")[1]) for path in self._folder.glob("round_*.npz")}

    def _path(self, number: int) -> Path:
        return self._folder / f"round_{number:08d}.npz"


def resume_point(folder: Path, nodes: Sequence[str]) -> ResumePoint:
    """The last round after which every node has a checkpoint; :data:`START` if there is none."""
    kept = [Checkpoints(folder, node) for node in nodes]
    common = set.intersection(*(one.rounds() for one in kept)) if kept else set()
    if not common:
        return START
    number = max(common)
    return ResumePoint(number, max(one.read(number)[0] for one in kept))


def pack(stream: IO[bytes], state: Any) -> None:
    """Writes nested mappings and lists of arrays and JSON values as an ``.npz`` archive."""
    arrays: dict[str, np.ndarray] = {}
    plain = _split(state, "", arrays)
    arrays[""] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    np.savez(stream, **arrays)  # type: ignore[arg-type]


def unpack(stream: IO[bytes]) -> Any:
    """The inverse of :func:`pack`."""
    with np.load(stream) as archive:
        return _join(json.loads(archive[""].tobytes()), archive)


def packed_state(state: Any) -> np.ndarray:
    """A state as the payload of a message."""
    stream = io.BytesIO()
    pack(stream, state)
    return np.frombuffer(stream.getvalue(), np.uint8)


def unpacked_state(payload: Any) -> Any:
    """The inverse of :func:`packed_state`."""
    return unpack(io.BytesIO(payload))


def _split(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """The JSON part of a state; arrays are taken out and stand under their path."""
    if isinstance(value, Mapping):
        return {key: _split(item, f"{path}/{key}", arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_split(item, f"{path}/{at}", arrays) for at, item in enumerate(value)]
    if isinstance(value, np.ndarray | np.generic):
        arrays[path] = np.asarray(value)
        return {"": path}
    return value


def _join(plain: Any, archive: Mapping[str, np.ndarray]) -> Any:
    if isinstance(plain, dict):
        if set(plain) == {""}:
            return archive[plain[""]]
        return {key: _join(item, archive) for key, item in plain.items()}
    if isinstance(plain, list):
        return [_join(item, archive) for item in plain]
    return plain
