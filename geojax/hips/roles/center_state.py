"""What a center has after a round: kept in checkpoints, and given to centers that come back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from geojax.hips.context import NodeContext
from geojax.hips.control.state_inbox import StateInbox
from geojax.hips.exchange.base import Exchange
from geojax.hips.roles.center_offers import CenterOffers, Update
from geojax.hips.storage.checkpoint import Checkpoints, most_bytes, packed_state, state_like

T = TypeVar("T")


class CenterState:
    """Parameters, outer state, and the states of the codec and of the trainer.

    A checkpoint has all of it. A peer's state has what all centers have alike: parameters and outer
    state.

    Args:
      context: the node of the center's local server.
      vector: parameters and model state.
      offers: the codec's state is there.
      update: the outer state is there.
      worker: the one in this process, for its state; None: there is none.
      wan: sends states to peers.
      checkpoints: where states are kept.
      held: the last round that ``vector`` contains.

    Attributes:
      vector: parameters and model state after round ``held``; all centers have the same.
      held: as above.
    """

    def __init__(
        self,
        context: NodeContext,
        vector: np.ndarray,
        *,
        offers: CenterOffers,
        update: Update,
        worker: Any | None,
        wan: Exchange,
        checkpoints: Checkpoints,
        held: int = -1,
    ):
        self._context, self._offers, self._update = context, offers, update
        self._worker, self._wan, self._checkpoints = worker, wan, checkpoints
        self.vector, self.held = vector, held
        self._wanted: tuple[Sequence[str], int] | None = None
        self._trained: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._kept: dict[int, asyncio.Future[None]] = {}

    def advance(self, number: int, vector: np.ndarray) -> None:
        """Round ``number`` ended with ``vector``; whoever waits for its state is sent it."""
        self.vector, self.held = vector, number
        self._serve()

    # ---- peers

    def promise(self, centers: Sequence[str], number: int) -> None:
        """Will send the state after round ``number`` to centers that come back."""
        self._wanted = (centers, number)
        self._serve()

    def _serve(self) -> None:
        if self._wanted is None or self.held < self._wanted[1]:
            return
        centers, _ = self._wanted
        self._wanted = None
        payload = packed_state(self._like)
        for center in centers:
            self._wan.send_state(center, self.held, payload)

    @property
    def most_bytes(self) -> int:
        """Of a state that a peer may send."""
        return most_bytes(self._like)

    @property
    def _like(self) -> dict[str, Any]:
        return {"vector": self.vector, "outer": self._update.state()}

    async def take_over(self, inbox: StateInbox) -> None:
        """Becomes that of a peer, which was told to send it.

        Raises:
          WaitTimeout: it has not come in time.
        """
        what = "parameters and outer state"
        self.held, state = await inbox.receive(partial(state_like, self._like), what)
        self.vector = state["vector"]
        self._update.load(state["outer"])

    async def take_initial(self, inbox: StateInbox) -> None:
        """Begins from the initial vector of a peer; raises as :meth:`take_over`."""
        like = {"vector": self.vector}
        _, state = await inbox.receive(partial(state_like, like), "initial parameters")
        self.vector = state["vector"]

    # ---- checkpoints

    def due(self, number: int) -> bool:
        """Whether a checkpoint is to be kept after round ``number``."""
        return self._checkpoints.due(number)

    @property
    def keeps_start(self) -> bool:
        """Whether the state that the center begins with is to be kept, too."""
        return self._checkpoints.keeps_start

    async def keep(self) -> None:
        """Keeps a checkpoint, together with the worker in this process, if there is one."""
        number = self.held
        state = {
            "vector": self.vector,
            "outer": self._update.state(),
            "codec": self._offers.state(),
        }
        if self._worker is not None:
            state["trainer"] = await _slot(self._trained, number)
            del self._trained[number]
        context = self._context
        await self._checkpoints.keep(number, context.clock(), state, context.machine)
        if self._worker is not None:
            _slot(self._kept, number).set_result(None)

    async def keep_trained(self, number: int) -> None:
        """Gives the trainer's state after round ``number`` to :meth:`keep`, and waits until then.

        The worker stands still meanwhile, so that what it counts is of this round.
        """
        assert self._worker is not None
        _slot(self._trained, number).set_result(self._worker.state_dict())
        await _slot(self._kept, number)
        del self._kept[number]

    async def flush(self) -> None:
        """Waits until what was kept is on disk."""
        await self._checkpoints.flush()

    def load(self, kept: dict[str, Any]) -> None:
        """Takes the state of a checkpoint."""
        self.vector = kept["vector"]
        self._update.load(kept["outer"])
        self._offers.load(kept["codec"])
        if self._worker is not None:
            self._worker.load_state(kept["trainer"])


def _slot(slots: dict[int, asyncio.Future[T]], number: int) -> asyncio.Future[T]:
    """The future of a round, made by who comes first."""
    if number not in slots:
        slots[number] = asyncio.get_running_loop().create_future()
    return slots[number]
