"""What an exchange is to roles and to the membership, and which messages it gets to see."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from geojax.hips.exchange.buckets import Chunks
from geojax.hips.exchange.contribution import Contribution
from geojax.hips.exchange.debts import Debts, Owed
from geojax.overlay.policy.policy import Policy
from geojax.telemetry.recorder import Recorder
from geojax.wire.message import Kind, Message

log = logging.getLogger("geojax.hips")

LATEST_ROUND = 2**31 - 1  # no message is of a later one
_EARLY_LEAST = 4096  # early messages of one peer that are kept, however few chunks there are


class Sender(Protocol):
    """What an exchange sends by: a transport, or what stands in front of it."""

    def send(self, peer: str, message: Message, priority: int = 0) -> None:
        """Queues a message; of those that wait, one of a smaller ``priority`` leaves first."""
        ...

    def send_datagram(self, peer: str, message: Message, priority: int = 0) -> None:
        """Queues a message that may get lost."""
        ...

    def withdraw(self, unwanted: Callable[[Message], bool]) -> int:
        """Drops what waits and has not begun to leave; returns how many messages."""
        ...


class RoundWatcher(Protocol):
    """Is told how far an exchange is."""

    def held(self, number: int) -> None:
        """The member holds round ``number`` since now."""
        ...


class Exchange(Protocol):
    """One member's part in the exchanges of one group.

    :class:`geojax.hips.exchange.tree.TreeExchange` merges the members' offers: the result of a
    round is their sum. :class:`geojax.hips.exchange.push_pull.PushPullExchange` has global servers
    apply each offer: the result is the new parameters.

    Attributes:
      me: this member's name.
      group: index of the group (see :class:`geojax.wire.message.Message`).
      sizes: elements of each chunk.
      layers: elements of each layer.
      gate: which messages count now; holds the epoch.
      replicas: all members hold the same parameters after a round, because all apply the same
        results. Then parameters are compared, and anybody's state serves a member that comes back.
        Else a member that comes back pulls parameters as the results of its last round.
      held: the last round that this member holds whole.
      watcher: is told when a round is held; the one who offers sets it.
    """

    me: str
    group: int
    sizes: tuple[int, ...]
    layers: tuple[int, ...]
    gate: Gate
    replicas: bool
    watcher: RoundWatcher | None

    @property
    def held(self) -> int:
        """See above."""
        ...

    @property
    def keeps(self) -> bool:
        """Whether the results of round ``held`` are still here, to be sent to others."""
        ...

    @property
    def policy(self) -> Policy | None:
        """The policy of the latest rounds; None: there is none yet."""
        ...

    def learn(self, sizes: Sequence[int], layers: Sequence[int]) -> None:
        """Takes note of how vectors are cut."""
        ...

    def offer(self, number: int, chunk: int, contribution: Contribution) -> None:
        """Contributes one chunk to a round. Its payload must not change until the round ends.

        Later offers of the same chunk are ignored.
        """
        ...

    def results(self, number: int, chunks: Chunks) -> asyncio.Future[list[Contribution]]:
        """The results of some chunks of a round, once they are here.

        The round is held when all its results are here and somebody has asked for each of them.
        """
        ...

    async def whole(self, number: int) -> list[Contribution]:
        """Waits for the results of all chunks of a round."""
        ...

    def missing(self, number: int) -> str:
        """Says what a round still waits for, and from whom."""
        ...

    def retire(self) -> None:
        """This member makes no more offers: nobody waits for it."""
        ...

    def send_state(self, peer: str, number: int, payload: np.ndarray) -> None:
        """Sends the whole state after round ``number`` to a member that comes back."""
        ...

    def handle(self, peer: str, message: Message) -> None:
        """Takes a message of this group that ``peer`` made."""
        ...

    def skip_to(self, held: int) -> None:
        """Takes part from round ``held + 1`` on; for a member that comes back."""
        ...

    def stand_for(self, number: int, later: int) -> None:
        """The results of round ``number`` are those of ``later`` too; those between are skipped."""
        ...

    def grant(self, until: int) -> None:
        """The policies of all rounds before ``until`` are known here."""
        ...

    def change(self, first: int, policy: Policy) -> None:
        """Rounds from ``first`` on go by another policy over the same members."""
        ...

    def freeze(self, epoch: int) -> None:
        """Stops taking part until :meth:`resume`; messages of older epochs are dropped."""
        ...

    def resume(
        self,
        epoch: int,
        policy: Policy,
        *,
        held: int = -1,
        lacking: Sequence[str] = (),
        source: str | None = None,
    ) -> None:
        """Takes part in ``epoch``.

        Args:
          epoch: the membership epoch.
          policy: its trees over its members, for all rounds after ``held``.
          held: the highest round that any member holds whole; later ones run again.
          lacking: members that this one sends the results of round ``held``: those it has kept
            or, if it lacks them too, those it is sent.
          source: the member that was told to send them to this one, if any.
        """
        ...


@runtime_checkable
class TakesOver(Protocol):
    """An exchange whose rounds may go by another policy while they are under way."""

    def hold_back(self) -> tuple[int, list[int]]:
        """See :meth:`geojax.hips.exchange.tree.TreeExchange.hold_back`."""
        ...

    def has_offered(self, number: int) -> bool:
        """Whether this member has offered anything to a round."""
        ...

    def take_over(self, first: int, policy: Policy, again: Collection[int]) -> None:
        """See :meth:`geojax.hips.exchange.tree.TreeExchange.take_over`."""
        ...


class _Early(NamedTuple):
    peer: str
    message: Message
    since: float


class Gate:
    """Which messages of a group count now: keeps early ones, drops old ones, refuses invalid ones.

    Messages of older epochs are dropped; their content is sent again. A message is *early* if it is
    of an epoch or a policy that this member has not been told of yet, or if the membership is
    changing; it waits. A member that does not follow a change within ``timeouts.dead`` is declared
    dead, so a message that is early for twice that time (:meth:`expire`) never becomes valid. The
    number of messages that wait is bounded for each peer.

    A message that can never become valid is *refused*: recorded and logged with the name of its
    sender. The membership is told (``on_refused``) and complains to the scheduler: the round runs
    again in a new epoch, and a peer that is refused again in that one is declared dead.

    What was dropped is owed (:class:`geojax.hips.exchange.debts.Debts`). If a peer sends nothing
    for a fifth of ``timeouts.round``, or longer where the slowest link needs longer, although it
    can send what it owes, the membership accuses it (``on_owed``). If it may be waiting for others
    itself, the membership complains without an accusation: all that is missing is sent again in a
    new epoch. Where that happens in a third epoch in a row, it is accused, too.

    Args:
      me: this member's name.
      recorder: takes the events.
      chunks: how many the vector has.

    Attributes:
      epoch: the membership epoch; −1: none yet.
      frozen: the membership is changing: no message counts until the epoch begins.
      on_refused: called with a peer and why a message of it was refused; set by the membership.
      on_owed: called with a peer, what it owes, and whether that accuses it; set by the membership.
      owed: ``(peer, message)``: whether what a peer may owe is wanted; set by the exchange.
    """

    def __init__(self, me: str, recorder: Recorder, chunks: int):
        self.me, self.epoch, self.frozen = me, -1, True
        self.on_refused: Callable[[str, str], None] = lambda *_: None
        self.on_owed: Callable[[str, str, bool], None] = lambda *_: None
        self.owed: Callable[[str, Message], Owed] = lambda *_: Owed.NOT
        self._recorder, self._most = recorder, max(_EARLY_LEAST, 4 * chunks)
        self._debts = Debts(self._most)
        self._reminded: dict[str, list[int]] = {}  # peer: epochs in a row in which it owed
        self._early: list[_Early] = []
        self._waiting: Counter[str] = Counter()  # early messages of each peer

    def freeze(self, epoch: int) -> None:
        """The membership changes to ``epoch``."""
        self._debts.begin()
        self.epoch, self.frozen = epoch, True

    def begin(self, epoch: int) -> None:
        """The epoch begins; the caller then takes what was :meth:`early`."""
        self.epoch, self.frozen = epoch, False

    def admits(self, peer: str, message: Message, *, though_old: bool = False) -> bool:
        """Whether a message counts now; one that is old or early is dealt with here.

        Args:
          peer: who made it.
          message: the message.
          though_old: it counts even if its epoch is over.
        """
        if not 0 <= message.epoch <= LATEST_ROUND or not -1 <= message.round <= LATEST_ROUND:
            self.refuse(peer, message, f"no such epoch or round: {message.epoch}")
        elif message.epoch < self.epoch and not though_old:
            self._recorder.event("dropped", peer=peer, epoch=message.epoch, now=self.epoch)
            log.warning("%s: dropped a chunk of epoch %d from %s", self.me, message.epoch, peer)
            self.owes(peer, message)
        elif message.epoch > self.epoch or self.frozen:
            self.wait(peer, message)
        else:
            if self._debts.noted:
                self._debts.hear(peer, asyncio.get_running_loop().time())
            return True
        return False

    def owes(self, peer: str, message: Message) -> None:
        """Notes that a peer has to send something like this in the present epoch."""
        now = asyncio.get_running_loop().time()
        self._debts.note(peer, replace(message, payload=None), now)

    def wait(self, peer: str, message: Message) -> None:
        """Keeps an early message; late parts, which may get lost, as long as there is room."""
        if self._waiting[peer] >= self._most and message.kind is Kind.LATE:
            return
        if self._waiting[peer] >= self._most:
            self.refuse(peer, message, f"{self._most} early messages of it wait already")
            return
        self._waiting[peer] += 1
        self._early.append(_Early(peer, message, asyncio.get_running_loop().time()))

    def early(self) -> Iterator[tuple[str, Message]]:
        """Takes out the early messages, in order of arrival, to be handled once more."""
        early, self._early = self._early, []
        self._waiting.clear()
        for peer, message, _ in early:
            yield peer, message

    def expire(self, seconds: float, silent: float) -> None:
        """Complains about messages that do not become valid, or do not come; at every heartbeat.

        Args:
          seconds: for so long a message may be early, s.
          silent: for so long a peer may send nothing that owes something, s.
        """
        now = asyncio.get_running_loop().time()
        if not self.frozen:
            self._remind(now - silent, silent)
        before = now - seconds
        due = [
            one for one in self._early
            if one.since < before and not (self.frozen and one.message.epoch == self.epoch)
        ]  # fmt: skip
        for one in due:
            self._early.remove(one)
            self._waiting[one.peer] -= 1
            known = one.message.epoch <= self.epoch
            what = f"policy {one.message.policy}" if known else f"epoch {one.message.epoch}"
            self.refuse(one.peer, one.message, f"{what} has not come in {seconds:g} s")

    def _remind(self, since: float, silent: float) -> None:
        """Complains about those that owe something and have sent nothing ``since``."""
        told: set[str] = set()
        for peer, message in self._debts.due(since):
            owed = Owed.NOT if peer in told else self.owed(peer, message)
            if owed is Owed.NOT:
                continue
            told.add(peer)
            how = f"what came was of epoch {message.epoch}, and nothing more in {silent:g} s"
            if message.epoch == self.epoch:
                how = f"nothing has come in {silent:g} s"
            before = self._reminded.get(peer, [])
            row = self._reminded[peer] = [
                *(before if before and before[-1] == self.epoch - 1 else ()), self.epoch,
            ]  # fmt: skip
            what = f"{message.kind.name} of chunk {message.chunk} of round {message.round}"
            accuses = owed is Owed.NOW or len(row) > 2
            self._recorder.event(
                "owed", peer=peer, round=message.round, kind=message.kind.name, accuses=accuses
            )
            log.warning("%s: lacks %s from %s: %s", self.me, what, peer, how)
            self.on_owed(peer, f"lacks {what}: {how}", accuses)
        for peer in told:
            self._debts.forgive(peer)

    def refuse(self, peer: str, message: Message, why: str) -> None:
        """Records a message that can never become valid, and tells the membership."""
        self._recorder.event(
            "refused", peer=peer, round=message.round, policy=message.policy,
            kind=message.kind.name, chunk=message.chunk, why=why,
        )  # fmt: skip
        log.warning(
            "%s: refused %s of chunk %d of round %d from %s: %s",
            self.me, message.kind.name, message.chunk, message.round, peer, why,
        )  # fmt: skip
        self.on_refused(peer, why)
