"""Checkpoints: each node keeps its own state after every so many rounds.

A run continues from the last round that all of its nodes have kept. Files are ``.npz`` archives
without pickles, written whole or not at all.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from geojax.errors import FrameError, GeojaxError, Refused
from geojax.hips.cluster import START, ResumePoint, shard_name
from geojax.hips.exchange.cuts import Cut
from geojax.machine.machine import Machine
from geojax.wire.message import Payload

log = logging.getLogger("geojax.checkpoint")

Within = Callable[[Cut], Mapping[str, Any]]
"""Takes what a cut has of a local server's LAN, and tells its workers."""


class DamagedCheckpoint(GeojaxError):
    """A file of a checkpoint that cannot be gone on from."""


class Checkpoints:
    """One node's checkpoints.

    Args:
      folder: the run's folder of checkpoints.
      node: the node's name.
      every: rounds between two checkpoints; 0: none are written.
      counters: what the node has counted so far; kept with every checkpoint.

    Attributes:
      keeps_start: whether the state that the node begins with is to be kept, too.
    """

    keeps_start = False
    _most = 2  # another node may lack the last checkpoint, but has the one before

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

    def ask(
        self, cut: Cut, number: int | None, beside: Mapping[str, Any], within: Within | None = None
    ) -> None:
        """A cut has the state after round ``number``, which ends soon if it has not ended yet.

        Args:
          cut: the cut.
          number: the round; None: this node has none.
          beside: what the cut has of this node beside that.
          within: takes what it has of the node's LAN, when the state after the round is there;
            None: nothing.

        Raises:
          Refused: the run has no cuts.
        """
        del beside, within
        raise Refused(f"cut {cut.number}: no checkpoint of round {number} is kept here")

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
            stream.flush()
            os.fsync(stream.fileno())  # else the name may be on disk before what it names
        partial.rename(self._path(number))
        for old in sorted(self._folder.glob("round_*.npz"))[: -self._most]:
            old.unlink()

    def read(self, number: int) -> tuple[float, dict[str, Any]]:
        """Experiment time and state of :meth:`write`.

        Raises:
          DamagedCheckpoint: the file is cut, or holds something else.
        """
        path = self._path(number)
        try:
            with path.open("rb") as stream:
                time, state = unpack(stream)
        except (zipfile.BadZipFile, ValueError, TypeError, KeyError, EOFError) as error:
            raise DamagedCheckpoint(f"{path}: not a whole checkpoint: {error}") from error
        return time, state

    def rounds(self) -> set[int]:
        """Rounds after which there is a checkpoint."""
        return {int(path.stem.split("_")[1]) for path in self._folder.glob("round_*.npz")}

    def _path(self, number: int) -> Path:
        return self._folder / f"round_{number:08d}.npz"


def resume_point(folder: Path, nodes: Sequence[str]) -> ResumePoint:
    """The last round or cut of which every node has a whole checkpoint; :data:`START`: none."""
    kept = [Checkpoints(folder, node) for node in nodes]
    common = set.intersection(*(one.rounds() for one in kept)) if kept else set()
    for number in sorted(common, reverse=True):
        try:
            found = [one.read(number) for one in kept]
        except DamagedCheckpoint as error:
            log.warning("%s; the one before it counts", error)
            continue
        break
    else:
        return START
    times, states = zip(*found, strict=True)
    pairs = list(zip(nodes, states, strict=True))
    held = {node: state["round"] for node, state in pairs if "round" in state}
    versions = {
        shard_name(node, shard["chunks"][0], within=within): shard["version"]
        for node, state in pairs
        for within, part in ((False, state), (True, state.get("lan", {})))
        for shard in part.get("shards", ())
    }
    return ResumePoint(number, max(times), held, versions)


def forget_after(folder: Path, resume: ResumePoint) -> None:
    """Deletes the checkpoints of a broken run that are later than where it is continued."""
    for path in folder.glob("*/round_*.npz"):
        if int(path.stem.split("_")[1]) > resume.round:
            path.unlink()


def pack(stream: IO[bytes], state: Any) -> None:
    """Writes nested mappings and lists of arrays and JSON values as an ``.npz`` archive."""
    arrays: dict[str, np.ndarray] = {}
    plain = _split(state, "", arrays)
    arrays[""] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    np.savez(stream, **arrays)  # type: ignore[arg-type]


def unpack(stream: IO[bytes]) -> Any:
    """The inverse of :func:`pack`."""
    with np.load(stream, allow_pickle=False) as archive:
        return _join(json.loads(archive[""].tobytes()), archive)


_ENTRY = 2048  # bytes that an archive needs beside an array, at most


def packed_state(state: Any) -> np.ndarray:
    """A state as the payload of a message."""
    stream = io.BytesIO()
    pack(stream, state)
    return np.frombuffer(stream.getvalue(), np.uint8)


def most_bytes(like: Any) -> int:
    """What :func:`packed_state` makes at most of a state like this one.

    >>> state = {"vector": np.zeros(1000, np.float32), "outer": [{"count": 3}]}
    >>> packed_state(state).nbytes <= most_bytes(state) < 4000 + (80 << 10)
    True
    """
    arrays: dict[str, np.ndarray] = {}
    plain = json.dumps(_split(like, "", arrays))
    return sum(array.nbytes + _ENTRY for array in arrays.values()) + 2 * len(plain) + (64 << 10)


def state_like(like: Any, payload: Payload) -> Any:
    """The inverse of :func:`packed_state`, for what another node has sent.

    Args:
      like: a state with the same keys, and arrays of the same shapes and types.
      payload: the payload.

    Raises:
      FrameError: it is no such state, or one with floats that are not finite.
    """
    if payload is None:
        raise FrameError("no payload")
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:  # type: ignore[arg-type]
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise FrameError("expected a state that is not compressed")
        state = unpack(io.BytesIO(payload))  # type: ignore[arg-type]
    except FrameError:
        raise
    except Exception as error:  # whatever is wrong with bytes that came from elsewhere
        raise FrameError(f"expected a state, came {error!r:.200}") from error
    _check_like(like, state, "state")
    return state


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


def _check_like(like: Any, state: Any, where: str) -> None:
    """Raises ``FrameError`` as :func:`state_like` does."""
    if isinstance(like, Mapping):
        if not isinstance(state, dict) or state.keys() != like.keys():
            raise FrameError(f"{where}: expected {', '.join(like) or 'nothing'}")
        for key, item in like.items():
            _check_like(item, state[key], f"{where}.{key}")
    elif isinstance(like, list | tuple):
        if not isinstance(state, list) or len(state) != len(like):
            raise FrameError(f"{where}: expected a list of {len(like)}")
        for at, item in enumerate(like):
            _check_like(item, state[at], f"{where}.{at}")
    elif isinstance(like, np.ndarray | np.generic):
        form = (like.dtype, like.shape)
        if not isinstance(state, np.ndarray) or (state.dtype, state.shape) != form:
            raise FrameError(f"{where}: expected {like.dtype} of shape {like.shape}")
        if state.dtype.kind == "f" and not np.isfinite(state).all():
            raise FrameError(f"{where}: not all finite")
    elif type(state) is not type(like):
        raise FrameError(f"{where}: expected a {type(like).__name__}")
