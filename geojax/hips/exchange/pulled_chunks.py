"""What a member of a push-pull exchange has pulled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geojax.compression.codec import Codec
from geojax.hips.exchange.shard_server import Pulled


class PulledChunks:
    """What this member pulled last of each chunk; at first the run's initial elements.

    Args:
      values: the initial elements of each chunk; they must not change.
      answers: decodes what is pulled.

    Attributes:
      of_cut: it was pulled in a run that is continued.
    """

    def __init__(self, values: Sequence[np.ndarray], answers: Codec):
        self._answers = answers
        self.restart(values)

    def restart(self, values: Sequence[np.ndarray]) -> None:
        """Begins with these elements."""
        self._initial = dict(enumerate(values))
        self._pulled = {chunk: Pulled(None, 0, {}) for chunk in self._initial}
        self.of_cut = False
        self._moved: set[int] = set()  # chunks whose server died since they were pulled

    def __contains__(self, chunk: int) -> bool:
        return chunk in self._pulled

    def __getitem__(self, chunk: int) -> Pulled:
        return self._pulled[chunk]

    def forget(self) -> None:
        """Forgets everything: this member comes back."""
        self._pulled.clear()
        self._initial.clear()

    def begin(self, applied: Mapping[str, int]) -> None:
        """The run begins: the initial elements contain these rounds."""
        self._pulled = {c: p._replace(applied=applied) for c, p in self._pulled.items()}

    def state(self) -> list[dict[str, Any]]:
        """Versions and the rounds that they contain, for chunks that have these in common."""
        groups: dict[Any, list[int]] = {}
        for chunk, pulled in self._pulled.items():
            history = tuple(sorted(pulled.applied.items()))
            groups.setdefault((pulled.version, history), []).append(chunk)
        return [
            {"chunks": chunks, "version": version, "applied": dict(history)}
            for (version, history), chunks in groups.items()
        ]

    def load(self, kept: Sequence[Mapping[str, Any]]) -> None:
        """The inverse of :meth:`state`; the initial elements are then what was pulled."""
        self.of_cut = True
        for group in kept:
            pulled = Pulled(None, group["version"], group["applied"])
            self._pulled.update(dict.fromkeys(group["chunks"], pulled))

    def take(self, chunk: int, pulled: Pulled) -> None:
        """A server has answered."""
        self._pulled[chunk] = pulled
        self._initial.pop(chunk, None)
        self._moved.discard(chunk)

    def move(self, chunk: int) -> None:
        """Another server goes on with this chunk."""
        self._moved.add(chunk)

    def has_moved(self, chunk: int) -> bool:
        """Whether its server died since it was pulled."""
        return chunk in self._moved

    def base(self, chunk: int) -> int:
        """Version of the parameters that offers are computed at; −1: of a server that died."""
        return self._pulled[chunk].version if chunk in self and chunk not in self._moved else -1

    def elements(self, chunk: int) -> np.ndarray:
        """The elements of a chunk."""
        if chunk in self._initial:
            return self._initial[chunk]
        return self._answers.decode(self._pulled[chunk].payload)  # type: ignore[arg-type]
