"""The control messages: one record for each type, from which packing and checking follow.

A message is a CONTROL body with its ``type`` and its fields; what may be larger than a body holds
(policies, path tables) is its payload. Nothing that comes is used before :func:`read` has checked
it: who may send it, which fields it has, and the form and bounds of each.

=============  =====================  ============================================================
type           direction              says
=============  =====================  ============================================================
join           member → scheduler     :class:`Join`: ready to start, or back after a death
start          scheduler → members    :class:`Start`: the run begins
start          scheduler → returned   :class:`Return`: the run goes on with a member that was dead
request        member → host           :class:`Request`: a question to a service
answer         host → member           :class:`Answer`: of the service
heartbeat      member → scheduler     :class:`Heartbeat`
beat           scheduler → member     :class:`Beat`: the answer to it, with the grant so far
probe          scheduler → member     :class:`Probe`: time the link to a peer
policy         scheduler → members    :class:`NewPolicy`: later rounds go by another policy
hold           scheduler → members    :class:`Hold`: a plan is to take over; what do you lack?
holding        member → scheduler     :class:`Holding`: the answer
takeover       scheduler → members    :class:`TakeOver`: rounds under way go by another policy
lost           member → scheduler     :class:`LostPeer`: a connection ended
prepare        scheduler → members    :class:`Prepare`: stop, the membership changes
report         member → scheduler     :class:`Report`: stopped; what the member holds
resume         scheduler → members    :class:`Resume`: go on
routes         scheduler → members    :class:`Routes`: auxiliary paths
keep           server → its workers   :class:`Keep`: a checkpoint has the state after a round
done           member → scheduler     :class:`Done`: the last granted round is over
end            scheduler → members    :class:`End`: everybody is done
expelled       scheduler → member     :class:`Expel`: the run goes on without you
=============  =====================  ============================================================
"""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, NamedTuple

import msgpack
import numpy as np

from geojax.errors import Refused
from geojax.hips.control.fields import (
    BYTES,
    CHUNKS,
    DIGEST,
    FLAG,
    MANY,
    ROUND,
    SIZES,
    VALUES,
    Form,
    as_it_is,
    by_group,
    has,
    many,
    maybe,
    number,
    row,
    text,
    whole,
)
from geojax.overlay.policy.checking import check_policy
from geojax.overlay.policy.policy import Policy
from geojax.wire.message import FRAGMENT_BYTES, Kind, Message, Payload

FROM_SCHEDULER = ("scheduler",)
FROM_TRAINERS = ("server", "worker")
FROM_MEMBERS = (*FROM_TRAINERS, "global")
FROM_HOSTS = ("scheduler", "server")  # of services

EPOCH, NAME, COUNT = whole(), text(200), whole(0, MANY)
NAMES = many(NAME)


def packed_policies(policies: Mapping[int, Policy]) -> np.ndarray:
    """The policies of some groups as bytes.

    >>> from geojax.overlay.policy.policy import Tree
    >>> policies = {0: Policy(3, ("a", "b"), (Tree("a", {"b": "a"}),))}
    >>> unpacked_policies(packed_policies(policies)) == policies
    True
    """
    values = {str(group): policy.to_dict() for group, policy in policies.items()}
    return np.frombuffer(msgpack.packb(values), np.uint8)  # type: ignore[arg-type]


def unpacked_policies(values: Payload) -> dict[int, Policy]:
    """The inverse of :func:`packed_policies`; no payload: no policies.

    Raises:
      ValueError: these bytes are no policies.
    """
    if values is None:
        return {}
    try:
        return dict(_read_policies(bytes(memoryview(values))))  # type: ignore[arg-type]
    except Exception as error:  # whatever is wrong with bytes that came from elsewhere
        raise ValueError(f"expected policies, came {error!r:.200}") from error


@functools.lru_cache(maxsize=2)  # simulated members share a process, and are told the same
def _read_policies(packed: bytes) -> dict[int, Policy]:
    content = msgpack.unpackb(packed)
    return {int(group): check_policy(Policy.from_dict(p)) for group, p in content.items()}


POLICIES = Form("policies by group", unpacked_policies, {}, packed_policies)


class ControlMessage:
    """What all control messages have in common.

    Attributes:
      name: its ``type`` in the body.
      senders: roles of the nodes that may send it.
    """

    name: ClassVar[str]
    senders: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, *, name: str, senders: tuple[str, ...]):
        cls.name, cls.senders = name, senders
        KINDS.setdefault(name, []).append(cls)


KINDS: dict[str, list[type[ControlMessage]]] = {}
"""All messages by type. Of several with one type, a body is read as the first one whose first
field it has.
"""


@dataclass(frozen=True)
class Join(ControlMessage, name="join", senders=FROM_MEMBERS):
    """A member is compiled and ready.

    Attributes:
      elements: of its vector; 0: it has none (a global server).
      sizes: elements of each chunk.
      layers: elements of each layer.
      digest: of its initial vector; None: it has none.
    """

    elements: int = has(COUNT)
    sizes: tuple[int, ...] = has(SIZES)
    layers: tuple[int, ...] = has(SIZES)
    digest: str | None = has(maybe(DIGEST), None)


@dataclass(frozen=True)
class Return(ControlMessage, name="start", senders=FROM_SCHEDULER):
    """The run goes on with a member that was dead.

    Attributes:
      held: by group, the last round that is done.
      lacking: by group, the members that this one sends the results of that round.
      epoch: the membership epoch that begins.
      until: the first round that is not granted.
      final: whether the grant will grow no more.
      at: loop time at which the member starts.
      time: experiment time then, s.
      sizes: elements of each chunk, for a global server; None: the member knows them.
      layers: elements of each layer, likewise.
      policies: of the member's groups.
      state_from: who sends the member its state after that round; None: nobody.
      steps: local steps that the member is known to have taken; None: nothing is known.
    """

    held: Mapping[int, int] = has(by_group(ROUND))
    lacking: Mapping[int, tuple[str, ...]] = has(by_group(NAMES))
    epoch: int = has(EPOCH)
    until: int = has(whole())
    final: bool = has(FLAG)
    at: float = has(number())
    time: float = has(number())
    policies: Mapping[int, Policy] = has(POLICIES, payload=True)
    sizes: tuple[int, ...] | None = has(maybe(SIZES), None, omit=True)
    layers: tuple[int, ...] | None = has(maybe(SIZES), None, omit=True)
    state_from: str | None = has(maybe(NAME), None, omit=True)
    steps: int | None = has(maybe(whole()), None, omit=True)


@dataclass(frozen=True)
class Start(ControlMessage, name="start", senders=FROM_SCHEDULER):
    """The run begins; fields as of :class:`Return`.

    Attributes:
      initial_from: who sends the initial vector, if this member's is not the one that counts.
      initial_to: the members that this one sends it to.
    """

    epoch: int = has(EPOCH)
    until: int = has(whole())
    final: bool = has(FLAG)
    at: float = has(number())
    time: float = has(number())
    policies: Mapping[int, Policy] = has(POLICIES, payload=True)
    initial_from: str | None = has(maybe(NAME), None)
    initial_to: tuple[str, ...] = has(NAMES, ())
    sizes: tuple[int, ...] | None = has(maybe(SIZES), None, omit=True)
    layers: tuple[int, ...] | None = has(maybe(SIZES), None, omit=True)


@dataclass(frozen=True)
class Heartbeat(ControlMessage, name="heartbeat", senders=FROM_MEMBERS):
    """A member lives.

    Attributes:
      held: the last whole round that it holds.
      digests: of its parameters after some rounds: (round, digest).
      links: what it measured: (peer, bytes, s), see :meth:`LinkMeter.links`; None: not measured.
      sent: bytes of chunks that it has sent; None: not measured.
      steps: local steps that its trainer has taken; None: they follow from the rounds.
    """

    held: int = has(ROUND)
    digests: tuple[tuple[int, str], ...] | None = has(
        maybe(many(row(whole(), DIGEST))), None, omit=True
    )
    links: tuple[tuple[str, int, float], ...] | None = has(
        maybe(many(row(NAME, COUNT, number(0.0)))), None, omit=True
    )
    sent: int | None = has(maybe(COUNT), None, omit=True)
    steps: int | None = has(maybe(whole()), None, omit=True)


@dataclass(frozen=True)
class Beat(ControlMessage, name="beat", senders=FROM_SCHEDULER):
    """The answer to a heartbeat.

    Attributes:
      until: the first round that is not granted.
      final: whether the grant will grow no more.
      progress: sum of the rounds that members hold, where centers go at their own paces; else None.
    """

    until: int = has(whole())
    final: bool = has(FLAG)
    progress: int | None = has(maybe(whole(-MANY, MANY)), None, omit=True)


@dataclass(frozen=True)
class Request(ControlMessage, name="request", senders=FROM_TRAINERS):
    """A question to a service, see :mod:`geojax.sync.service`.

    Attributes:
      service: its name.
      number: grows from one of the sender's requests to this host to the next.
      question: what is asked.
      wanted: whether there is to be an answer.
    """

    service: str = has(NAME)
    number: int = has(COUNT)
    question: Mapping[str, Any] = has(VALUES)
    wanted: bool = has(FLAG)


@dataclass(frozen=True)
class Answer(ControlMessage, name="answer", senders=FROM_HOSTS):
    """The answer to request ``number``."""

    number: int = has(COUNT)
    answer: Mapping[str, Any] = has(VALUES)


@dataclass(frozen=True)
class Probe(ControlMessage, name="probe", senders=FROM_SCHEDULER):
    """Send ``count`` messages of so many ``bytes`` to a peer, to time the link."""

    peer: str = has(NAME)
    bytes: int = has(whole(1, FRAGMENT_BYTES))
    count: int = has(whole(1, 1000))


@dataclass(frozen=True)
class NewPolicy(ControlMessage, name="policy", senders=FROM_SCHEDULER):
    """In this epoch, rounds from ``first`` on go by other policies."""

    epoch: int = has(EPOCH)
    first: int = has(whole())
    policies: Mapping[int, Policy] = has(POLICIES, payload=True)


@dataclass(frozen=True)
class Hold(ControlMessage, name="hold", senders=FROM_SCHEDULER):
    """Hold back the results of rounds of which none was given out; see :class:`TakeOver`.

    Attributes:
      epoch: the membership epoch.
      version: of the policy that is to take over.
    """

    epoch: int = has(EPOCH)
    version: int = has(whole())


@dataclass(frozen=True)
class Holding(ControlMessage, name="holding", senders=("server",)):
    """What a center lacks.

    Attributes:
      epoch: as told.
      version: as told.
      begun: the last round of which results have been given out.
      lacks: the chunks of the next round whose results are not here.
      offered: whether it has offered anything to that round.
    """

    epoch: int = has(EPOCH)
    version: int = has(whole())
    begun: int = has(ROUND)
    lacks: tuple[int, ...] = has(CHUNKS)
    offered: bool = has(FLAG)


@dataclass(frozen=True)
class TakeOver(ControlMessage, name="takeover", senders=FROM_SCHEDULER):
    """In this epoch, rounds from ``first`` on go by other policies, even if they are under way.

    Attributes:
      epoch: the membership epoch.
      first: no center has given out results of this round.
      again: its chunks that run again; every center has the results of the others.
      policies: of the member's groups that change.
    """

    epoch: int = has(EPOCH)
    first: int = has(whole())
    again: tuple[int, ...] = has(CHUNKS)
    policies: Mapping[int, Policy] = has(POLICIES, payload=True)


@dataclass(frozen=True)
class LostPeer(ControlMessage, name="lost", senders=FROM_MEMBERS):
    """The connection to a peer ended, it sent what cannot become valid, or does not send.

    Attributes:
      peer: which one.
      reason: for people.
      refused: this accuses the peer.
      silent: the peer does not send what it owes.
    """

    peer: str = has(NAME)
    reason: str = has(text())
    refused: bool | None = has(maybe(FLAG), None, omit=True)
    silent: bool | None = has(maybe(FLAG), None, omit=True)


@dataclass(frozen=True)
class Prepare(ControlMessage, name="prepare", senders=FROM_SCHEDULER):
    """Stop and report: the membership changes to this epoch; ``dead``: who has died."""

    epoch: int = has(EPOCH)
    dead: tuple[str, ...] = has(NAMES)


@dataclass(frozen=True)
class Report(ControlMessage, name="report", senders=FROM_MEMBERS):
    """What a member holds when it has stopped.

    Attributes:
      epoch: for which it has stopped.
      held: by group, its last whole round.
      keeps: by group, whether the results of that round are still there, to be sent to others.
      has_state: whether it has parameters.
    """

    epoch: int = has(EPOCH)
    held: Mapping[int, int] = has(by_group(ROUND))
    keeps: Mapping[int, bool] = has(by_group(FLAG))
    has_state: bool = has(FLAG)


@dataclass(frozen=True)
class Resume(ControlMessage, name="resume", senders=FROM_SCHEDULER):
    """Go on in this epoch.

    Attributes:
      epoch: the membership epoch.
      held: by group, the last round that anybody holds.
      lacking: by group, the members that this one sends the results of that round.
      state_to: centers that come back, to which the member sends its state.
      policies: of the member's groups.
      source: by group, who sends the member the results of that round, where it lacks them.
    """

    epoch: int = has(EPOCH)
    held: Mapping[int, int] = has(by_group(ROUND))
    lacking: Mapping[int, tuple[str, ...]] = has(by_group(NAMES))
    state_to: tuple[str, ...] = has(NAMES)
    policies: Mapping[int, Policy] = has(POLICIES, payload=True)
    source: Mapping[int, str] | None = has(maybe(by_group(NAME)), None, omit=True)


@dataclass(frozen=True)
class Routes(ControlMessage, name="routes", senders=FROM_SCHEDULER):
    """Auxiliary paths, see :func:`geojax.hips.routing.source_routes.packed_table`."""

    table: np.ndarray = has(BYTES, payload=True)  # noqa: RUF009


@dataclass(frozen=True)
class Keep(ControlMessage, name="keep", senders=("server",)):
    """A checkpoint has the worker's state after a round, see :mod:`geojax.hips.exchange.cuts`.

    Attributes:
      cut: its number.
      time: experiment time of the cut, s.
      round: of the WAN.
    """

    cut: int = has(whole())
    time: float = has(number())
    round: int = has(ROUND)


@dataclass(frozen=True)
class Done(ControlMessage, name="done", senders=FROM_TRAINERS):
    """The member holds the last granted round."""

    held: int = has(ROUND)


@dataclass(frozen=True)
class End(ControlMessage, name="end", senders=FROM_SCHEDULER):
    """Everybody is done."""


@dataclass(frozen=True)
class Expel(ControlMessage, name="expelled", senders=FROM_SCHEDULER):
    """The run goes on without this member, or is over.

    Attributes:
      reason: why, for people.
      may_return: whether it may begin anew and ask to come back.
    """

    reason: str = has(text(10_000))
    may_return: bool = has(FLAG)


def pack(said: ControlMessage, epoch: int) -> Message:
    """A control message as it travels; ``epoch``: the sender's."""
    body: dict[str, Any] = {"type": said.name}
    content = None
    for each in _items(type(said)):
        value = getattr(said, each.name)
        if each.payload:
            content = each.form.write(value)
        elif value is not None:
            body[each.name] = value if each.plain else each.form.write(value)
        elif not each.omit:
            body[each.name] = None
    return Message(Kind.CONTROL, epoch=epoch, body=body, payload=content)


def read(message: Message, role: str) -> ControlMessage:
    """The inverse of :func:`pack`; ``role``: the sender's.

    Raises:
      Refused: this is no control message, or not one that such a node may send.
    """
    body = message.body or {}
    name = body.get("type")
    if message.kind is not Kind.CONTROL or type(name) is not str or name not in KINDS:
        raise Refused(f"a control message of unknown type {reprlib.repr(name)}")
    kinds = KINDS[name]
    kind = kinds[-1]
    if len(kinds) > 1:
        kind = next((kind for kind in kinds if _first(kind) in body), kind)
    if role not in kind.senders:
        raise Refused(f"{name}: comes from {' or '.join(kind.senders)}, not from a {role}")
    values = {}
    for each in _items(kind):
        if each.payload or each.name in body:
            try:
                value = message.payload if each.payload else body[each.name]
                values[each.name] = each.form.read(value)
            except ValueError as error:
                raise Refused(f"{name}.{each.name}: {error}") from error
        elif each.required:
            raise Refused(f"{name}.{each.name}: missing")
    return kind(**values)


class _Item(NamedTuple):
    """A field of a message, as it is packed and read."""

    name: str
    form: Form
    omit: bool
    payload: bool
    plain: bool  # it is written as it is
    required: bool


@functools.cache
def _items(kind: type[ControlMessage]) -> tuple[_Item, ...]:
    return tuple(
        _Item(
            each.name, each.metadata["form"], each.metadata["omit"], each.metadata["payload"],
            each.metadata["form"].write is as_it_is, each.default is MISSING,
        )
        for each in fields(kind)  # type: ignore[arg-type]
    )  # fmt: skip


def _first(kind: type[ControlMessage]) -> str:
    return next((each.name for each in _items(kind)), "type")
