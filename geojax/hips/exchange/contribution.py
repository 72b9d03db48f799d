"""What travels in an exchange: payloads, and the weights of the contributions in them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from geojax.compression.codec import Codec, SplitPayload
from geojax.errors import Diverged, FrameError
from geojax.hollow import SIZE_ONLY, SizeOnly, is_hollow
from geojax.machine.machine import Machine
from geojax.wire.message import Kind, Message, Payload


class Contribution(NamedTuple):
    """A payload with the weight and the number of the contributions that are summed in it.

    Attributes:
      payload: what a merge waits for.
      weight: sum of the weights of the contributions.
      contributors: their number.
      late: see :class:`geojax.compression.codec.SplitPayload`; only on the first hop of an offer.
      datagrams: the same.
      loss: mean training loss of the contributions, by weight; None: unknown.
      steps: local steps that they stand for: each contributor's since its contribution before.
    """

    payload: Payload
    weight: float
    contributors: int
    late: Payload = None
    datagrams: tuple[Payload, ...] = ()
    loss: float | None = None
    steps: int = 0

    @property
    def abstains(self) -> bool:
        """Whether nobody contributes to it: see :data:`ABSTAINED`."""
        return self.contributors == 0


class Share(NamedTuple):
    """What one worker, or one center that counts as a whole, adds to the weight of a sum.

    Attributes:
      least: the smallest weight.
      most: the largest.
      contributors: how many there are in it at most.
    """

    least: float
    most: float
    contributors: int = 1


StepsOf = Callable[[int], tuple[int, float]]
"""``round -> (fewest, most)``: local steps that one contributor may take for a contribution."""


def any_steps(number: int) -> tuple[int, float]:
    """A :data:`StepsOf` that knows nothing."""
    del number
    return 0, math.inf


def no_steps(number: int) -> tuple[int, float]:
    """The :data:`StepsOf` of what nobody has trained for: parameters."""
    del number
    return 0, 0


@dataclass(frozen=True)
class Allowance:
    """What an offer or a result may say of its weight, as it follows from the run's plan.

    Attributes:
      shares: that may be in it.
      skips: each of them may count nothing, with weight 0 (``nonfinite=skip``).
      steps: how many of them one contributor may have taken.
    """

    shares: tuple[Share, ...]
    skips: bool = False
    steps: StepsOf = any_steps
    _bounds: dict[int, tuple[float, float]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )  # of a sum of so many contributors, where that was asked for

    def refuses(self, message: Message) -> str:
        """Why a message cannot be a sum of these; "": it can.

        >>> both = together([Allowance((Share(0.5, 0.5),)), Allowance((Share(1.5, 1.5),))])
        >>> both.refuses(Message(Kind.OFFER, weight=2.0, contributors=2))
        ''
        >>> both.refuses(Message(Kind.OFFER, weight=1000.0, contributors=2))
        'expected a weight from 2 to 2 of 2 contributors, came 1000.0'
        """
        weight, contributors = message.weight, message.contributors
        if not weight and self.skips:
            return f"weight 0, but {message.steps} steps" if message.steps else ""
        bounds = self._bounds.get(contributors)
        if bounds is None:
            among = sum(share.contributors for share in self.shares)
            if contributors > among:
                return f"expected at most {among} contributors, came {contributors}"
            bounds = self._bounds[contributors] = self._of(contributors)
        least, most = bounds
        if not least * (1 - _ROUNDING) <= weight <= most * (1 + _ROUNDING):
            return (
                f"expected a weight from {least:g} to {most:g} of {contributors} contributors, "
                f"came {weight}"
            )
        return self._refuses_steps(message)

    def _refuses_steps(self, message: Message) -> str:
        each = self.steps(message.round)
        least = each[0] * (min(message.contributors, 1) if self.skips else message.contributors)
        most = each[1] * message.contributors
        if least <= message.steps <= most:
            return ""
        return (
            f"expected {least} to {most:g} steps of {message.contributors} contributors, "
            f"came {message.steps}"
        )

    def _of(self, contributors: int) -> tuple[float, float]:
        """The least and the largest weight of a sum of so many contributors."""
        fewest = left = 0
        for most in sorted((share.contributors for share in self.shares), reverse=True):
            fewest, left = fewest + (left < contributors), left + most
        fewest = min(fewest, 1) if self.skips else fewest
        least = sum(sorted(share.least for share in self.shares)[:fewest])
        largest = sorted((share.most for share in self.shares), reverse=True)
        return least, sum(largest[:contributors])


_ROUNDING = 1e-6  # of a sum of weights, relative


def together(allowances: Iterable[Allowance]) -> Allowance:
    """What a sum of offers of some of these may say."""
    all_of = tuple(allowances)
    shares = tuple(share for each in all_of for share in each.shares)
    steps = tuple(dict.fromkeys(each.steps for each in all_of)) or (any_steps,)
    return Allowance(shares, any(each.skips for each in all_of), widest(steps))


class Allowances(dict[str, Allowance]):
    """What one offer of each member may carry; who is not in it has none.

    Simulated members share one, so that what all of them may carry is worked out once.
    """

    def __init__(self, each: Mapping[str, Allowance]):
        super().__init__(each)
        self._of_all: tuple[tuple[str, ...], Allowance] = (), together(())

    def of_all(self, members: tuple[str, ...]) -> Allowance:
        """What a sum of offers of all members of a policy may carry."""
        if self._of_all[0] != members:
            self._of_all = members, self.of_some(members)
        return self._of_all[1]

    def of_some(self, names: Iterable[str]) -> Allowance:
        """What a sum of offers of some nodes may carry."""
        return together(self[name] for name in names if name in self)


def widest(steps: Sequence[StepsOf]) -> StepsOf:
    """What any one of several kinds of contributors may take."""
    if len(steps) == 1:
        return steps[0]

    @functools.lru_cache(maxsize=4)  # every chunk of a round asks
    def span(number: int) -> tuple[int, float]:
        spans = [of(number) for of in steps]
        return min(fewest for fewest, _ in spans), max(most for _, most in spans)

    return span


PARAMETERS = Allowance((Share(1.0, 1.0),), steps=no_steps)
"""Of a result that is no sum, but parameters."""

ABSTAINED = Contribution(np.zeros(0, np.uint8), 0.0, 0)
"""What a member offers to a round that it does not contribute to.

It says that the member is there, and has the results of the rounds before: a few bytes a chunk,
which carry no values. So a round that few contribute to is kept, fetched and run again by the same
rules as any other. Where nobody contributes, it is also the result.
"""


def contribution_of(
    payload: Any, weight: float, *, contributors: int = 1, loss: float | None = None, steps: int = 0
) -> Contribution:
    """What is offered of a chunk: an encoded payload, whole or in parts.

    >>> import numpy as np
    >>> split = SplitPayload(np.ones(2, np.uint8), np.ones(0, np.uint8))
    >>> contribution_of(split, 2.0, loss=0.5, steps=3)[1:]
    (2.0, 1, None, (), 0.5, 3)
    """
    if type(payload) is not SplitPayload:
        return Contribution(payload, weight, contributors, loss=loss, steps=steps)
    late = payload.late if payload.late.size else None
    return Contribution(payload.now, weight, contributors, late, payload.datagrams, loss, steps)


def mean_loss(contributions: Sequence[Contribution]) -> float | None:
    """The mean of the losses that are known, by weight."""
    told = [(c.loss, c.weight) for c in contributions if c.loss is not None]
    weight = sum(weight for _, weight in told)
    return sum(loss * weight for loss, weight in told) / weight if weight else None


def summed(payload: Payload, given: Sequence[Contribution]) -> Contribution:
    """The sum of contributions whose payloads are summed already."""
    weight, contributors = sum([c.weight for c in given]), sum([c.contributors for c in given])
    steps = sum([c.steps for c in given])
    return Contribution(payload, weight, contributors, loss=mean_loss(given), steps=steps)


def received(message: Message, codec: Codec, size: int) -> Contribution:
    """What a message from the network brings of a chunk.

    A payload that is accepted can be decoded and summed with others of its chunk, so it makes no
    later step fail. A refused payload has no effect, as if it had never arrived. An honest member
    offers no values that are not finite, and makes no such sum (:func:`check_finite`): it stops
    and says why. So to refuse them hides nothing.

    Args:
      message: the message.
      codec: reads its payload.
      size: elements of the chunk.

    Raises:
      FrameError: it is refused; says why.
    """
    body, loss = message.body, None
    if body and body.get("abstains") is True:
        brings = message.weight or message.steps or message.payload is not None
        if brings or message.kind is Kind.LATE:
            raise FrameError("abstains, but brings values, a weight or steps")
        return ABSTAINED
    why = _header(message) or (_body(body) if body else "") or _payload(message, codec, size)
    if why:
        raise FrameError(why)
    if body:
        loss = body.get("loss")
    return Contribution(
        message.payload, message.weight, message.contributors, None, (), loss, message.steps
    )


def check_finite(
    payload: Payload,
    codec: Codec,
    offers: Callable[[], Mapping[str, Contribution]],
    what: Callable[[], str],
) -> None:
    """Stops where finite offers have a sum that is not: it would look like a lie to its receivers.

    Args:
      payload: the sum.
      codec: reads it.
      offers: tells what is summed, by contributor.
      what: tells what it is the sum of.

    Raises:
      Diverged: it is not finite; names whose values are the largest.
    """
    if type(payload) is SizeOnly:
        return
    values = codec.decode(payload)  # type: ignore[arg-type]
    if is_hollow(values) or np.isfinite(values).all():
        return
    largest = {
        name: float(np.abs(codec.decode(one.payload)).max())  # type: ignore[arg-type]
        for name, one in offers().items()
        if not one.abstains
    }
    name = max(largest, key=lambda each: largest[each])
    raise Diverged(
        f"{what()}: finite offers, but their sum is not; the largest value is {largest[name]:.3g}, "
        f"of {name}; lower lr, or set optimizer.clip_norm"
    )


class ChunkSum(NamedTuple):
    """What is to be summed of a chunk.

    Attributes:
      offers: all that were expected, by contributor, in member order.
      payloads: of those that do not abstain, in that order; then late ones.
    """

    offers: Mapping[str, Contribution]
    payloads: Sequence[Payload]


class ChunkSums:
    """Sums payloads in member order, never in order of arrival, and charges a machine for it.

    Args:
      codec: says what payloads are, and sums them.
      machine: charges the sums.
      counts: told, at the root of a round's first chunk, how many local steps came from the member
        itself, and from each child with all below it; again if the round runs again.

    Attributes:
      codec: as above.
    """

    def __init__(
        self,
        codec: Codec,
        machine: Machine,
        counts: Callable[[int, Mapping[str, int]], None] | None = None,
    ):
        self.codec, self._machine, self._counts = codec, machine, counts

    def begin(
        self,
        offers: Mapping[str, Contribution],
        late: Sequence[Any],
        then: Callable[[ChunkSum], None],
    ) -> None:
        """Calls ``then`` when as much work is done as the sum of offers and late payloads takes."""
        payloads: list[Any] = [each.payload for each in offers.values() if each.contributors]
        payloads += late
        work = sum([payload.nbytes for payload in payloads[1:]])
        self._machine.after("sum", work, lambda: then(ChunkSum(offers, payloads)))

    def total(self, of: ChunkSum, what: Callable[[], str]) -> Contribution:
        """The sum; ``what`` tells what it is the sum of.

        Raises:
          Diverged: it is not finite.
        """
        given = [each for each in of.offers.values() if each.contributors]
        if len(of.payloads) < 2:
            return given[0] if given else ABSTAINED
        total = summed(self.codec.combine(of.payloads), given)  # type: ignore[arg-type]
        check_finite(total.payload, self.codec, lambda: of.offers, what)
        return total

    def tell_steps(self, number: int, of: ChunkSum) -> None:
        """Tells how many local steps of a round came from whom."""
        if self._counts is not None:
            self._counts(number, {n: c.steps for n, c in of.offers.items() if c.contributors})


def is_count(value: Any, least: int = 0) -> bool:
    """Whether what came from the network is an integer of at least ``least`` and below 2³¹.

    >>> [is_count(value) for value in (3, -1, 2.0, True, "3", None, 1 << 40)]
    [True, False, False, False, False, False, False]
    """
    return type(value) is int and least <= value < 2**31


def _header(message: Message) -> str:
    weight, contributors = message.weight, message.contributors
    if message.kind is Kind.LATE:
        counts = weight or contributors or message.steps
        return "a late part that counts as an offer" if counts else ""
    if not 0 <= weight < math.inf:  # nor is it NaN
        return f"expected a finite weight, came {weight}"
    if not is_count(contributors, 1):
        return f"expected a number of contributors, came {contributors}"
    if not is_count(message.steps):
        return f"expected a number of steps, came {message.steps}"
    return ""


def _body(body: Mapping[str, Any]) -> str:
    loss, part = body.get("loss"), body.get("part", 0)
    if loss is not None and not (type(loss) in (int, float) and math.isfinite(loss)):
        return f"expected a finite loss, came {loss!r:.40}"
    return "" if is_count(part) else f"expected the index of a late part, came {part!r:.40}"


def _payload(message: Message, codec: Codec, size: int) -> str:
    payload: Any = message.payload
    if payload is None:
        return "no payload"
    if message.codec != codec.wire:
        return f"expected a payload of codec {codec.wire}, came one of {message.codec}"
    try:
        elements = codec.elements(payload)
    except FrameError as error:
        return str(error)
    if elements != size:
        return f"expected {size} elements, came {elements}"
    if codec.name == SIZE_ONLY:
        return ""
    values = codec.decode(payload)
    if is_hollow(values):
        return ""
    if not np.isfinite(values).all():
        return "its values are not all finite"
    if message.kind is not Kind.LATE and not message.weight and values.any():
        return "weight 0, but values that count"  # of nothing: see nonfinite=skip
    return ""
