"""How the clients of a round are executed on this process's devices.

========  ========================================================================================
loop      one client after the other, one call of the compiled step for each batch
scan      one client after the other, all its steps in one call (a ``while`` on the device)
vmap      all clients of a device side by side, in one call
pmap      one client a device, in blocks of as many as there are devices
========  ========================================================================================

They differ in speed alone. ``auto`` is ``scan`` on CPU, which took 0.87 to 0.94 of ``loop``'s time,
and ``loop`` for models that XLA computes slowly inside a loop (``ModelInfo.scans``). With one
thread ``vmap`` took twice to three times as long for CNNs (docs/fedgs.md has the table), and it
wastes steps and memory on clients of unequal size; ``pmap`` over CPU devices took 4 to 12 times as
long. On an accelerator ``auto`` is ``vmap``, since single clients are far too small for it; that is
by reasoning, not by measurement, as there was none to measure on. ``python -m
experiments.bench.federated`` measures all of them.

All but ``pmap`` deal clients to the devices, those with most steps first (:func:`deal`). Calls
return before the device is done, so one Python thread keeps all devices at work: it calls the next
step on each in turn, and hands over in order what clients have ended in, while the devices go on.
A device has two clients in work at most; where all have, the thread waits for the one that ends
first.
``loop`` and ``scan`` compute a client to the same bits on every device, so that their number
changes nothing but time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from geojax.center.network import Arrays
from geojax.center.transfer import to_host
from geojax.federated.training.steps import Carry, ClientSteps, Data
from geojax.sync.client import Given

QUICKLY = {"xla_backend_optimization_level": 0}  # for programs that only copy

_NOTHING = np.zeros(0, np.float32)


class Job(NamedTuple):
    """One client's round.

    Attributes:
      kept: what it has kept, by name, each float32 (n,).
      draw: uint32 (4,): the worker's key, the client, the round.
      batches: int32 (τ, b), see :meth:`geojax.federated.clients.Clients.batches`.
    """

    kept: dict[str, np.ndarray]
    draw: np.ndarray
    batches: np.ndarray


class Ended(NamedTuple):
    """What a client's round has ended in, on the host."""

    trained: np.ndarray  # float32 (n,)
    state: np.ndarray  # float32 (s,)
    loss: float  # sum over its steps


Execute = Callable[[Given, Sequence[Data], Sequence[Job], int], Iterator[Ended]]
"""``(given, data, jobs, most) -> what each job ended in, in order``.

``given`` has everything but ``kept``; ``data``: the samples, on each device (``pmap``: on the first
one); ``most``: the largest number of steps that a job of the run
may have, which programs are compiled for where they need one.
"""


class Lane(NamedTuple):
    """A device, and what all its clients share, placed on it."""

    device: Any
    given: Given
    data: Data


class Wait(NamedTuple):
    """A client that its device has to end before it takes a further one."""

    number: int  # of its job
    loss: Any
    steps: int  # of all the device's clients up to it


class Pending(NamedTuple):
    """What :class:`Ended` will be, on a device that may still compute it."""

    trained: jax.Array
    state: jax.Array | np.ndarray
    loss: Any

    def ended(self) -> Ended:
        """Waits for it."""
        return Ended(to_host(self.trained), np.array(self.state), float(self.loss))


Client = Callable[[Lane, Job, int], Generator[None, None, Pending]]
"""One client's round on a device; yields after each call of a program."""


def execution_of(name: str, backend: str, *, scans: bool) -> str:
    """What ``auto`` stands for: the fastest, as measured on CPUs (docs/fedgs.md); else ``vmap``.

    Args:
      name: as configured.
      backend: platform of the devices, such as ``cpu``.
      scans: see :class:`geojax.models.registry.ModelInfo`.

    >>> [execution_of("auto", "cpu", scans=scans) for scans in (True, False)]
    ['scan', 'loop']
    >>> execution_of("auto", "gpu", scans=True), execution_of("loop", "cpu", scans=True)
    ('vmap', 'loop')
    """
    if name != "auto":
        return name
    if backend != "cpu":
        return "vmap"
    return "scan" if scans else "loop"


def build_execution(name: str, steps: ClientSteps, devices: Sequence[Any]) -> Execute:
    """One of the executions by name, which is not ``auto``; see :func:`execution_of`."""
    if name == "pmap":
        return _pmap(steps, devices)
    if name == "vmap":
        return _vmap(steps, devices)
    return _one_by_one({"loop": _loop, "scan": _scan}[name](steps), devices)


def deal(steps: Sequence[int], count: int) -> list[list[int]]:
    """Jobs of so many steps for each of ``count`` devices, so that these end at about one time.

    The longest goes first, and each to the device that has the fewest steps so far (Graham, 1969:
    within a third of the shortest time there is).

    >>> deal([5, 1, 9, 4], 2)
    [[2, 1], [0, 3]]
    """
    dealt: list[list[int]] = [[] for _ in range(count)]
    sums = [0] * count
    for number in sorted(range(len(steps)), key=lambda each: -steps[each]):
        least = sums.index(min(sums))
        dealt[least].append(number)
        sums[least] += steps[number]
    return dealt


def _lanes(devices: Sequence[Any], given: Given, data: Sequence[Data]) -> list[Lane]:
    # Placed by name: a step's own results are, and programs are compiled for either anew.
    return [
        Lane(device, jax.device_put(given, device), samples)
        for device, samples in zip(devices, data, strict=True)
    ]


def _one_by_one(client: Client, devices: Sequence[Any]) -> Execute:
    """Clients after each other on every device, in turn with those of other devices."""

    def execute(
        given: Given, data: Sequence[Data], jobs: Sequence[Job], most: int
    ) -> Iterator[Ended]:
        lanes = _lanes(devices, given, data)
        pending: dict[int, Pending] = {}

        def working(lane: Lane, numbers: Sequence[int]) -> Iterator[Wait | None]:
            before, steps = None, 0
            for number in numbers:
                with _named(jobs[number]):
                    pending[number] = yield from client(lane, jobs[number], most)
                steps += len(jobs[number].batches)
                called = Wait(number, pending[number].loss, steps)
                if before is not None:
                    yield before  # two clients' arrays in work, and no more
                before = called

        def ended(number: int) -> Ended:
            with _named(jobs[number]):
                return pending.pop(number).ended()

        dealt = deal([len(job.batches) for job in jobs], len(lanes))
        active: dict[Iterator[Wait | None], Wait | None] = {
            working(*each): None for each in zip(lanes, dealt, strict=True)
        }
        following = 0
        while active:
            free = [each for each, wait in active.items() if wait is None or wait.loss.is_ready()]
            if not free:  # the device that ends first, as :func:`deal` counts
                first = min((wait for wait in active.values() if wait), key=lambda each: each.steps)
                with _named(jobs[first.number]):
                    jax.block_until_ready(first.loss)
            for each in free:
                try:
                    active[each] = next(each)
                except StopIteration:
                    del active[each]
            while following in pending and pending[following].loss.is_ready():
                yield ended(following)
                following += 1
        for number in range(following, len(jobs)):
            yield ended(number)

    return execute


@contextlib.contextmanager
def _named(job: Job) -> Iterator[None]:
    """Says in whose round an error has occurred."""
    try:
        yield
    except Exception as error:
        error.add_note(f"client {job.draw[2]}, round {job.draw[3]}")
        raise


def _loop(steps: ClientSteps) -> Client:
    begin = jax.jit(steps.begin, compiler_options=QUICKLY)
    step = jax.jit(steps.step, donate_argnums=0)
    state = jax.jit(steps.model.flat_state) if steps.model.state else _no_state

    def client(lane: Lane, job: Job, most: int) -> Generator[None, None, Pending]:
        del most
        # Each placing costs as much as half a small step; a used draw is cheap as it is.
        kept = jax.device_put(job.kept, lane.device) if job.kept else job.kept
        own = lane.given._replace(kept=kept)
        carry: Carry = begin(own)
        for positions in job.batches:
            carry = step(carry, own, job.draw, lane.data, positions)
            yield
        return Pending(carry.trained, state(carry.state), carry.loss)

    return client


def _no_state(state: Arrays) -> np.ndarray:
    del state
    return _NOTHING


def _whole(steps: ClientSteps) -> Callable[..., tuple[jax.Array, jax.Array, jax.Array]]:
    """All steps of a client as one function."""

    def whole(
        given: Given, kept: Any, draw: jax.Array, data: Data, batches: jax.Array, count: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        own = given._replace(kept=kept)

        def body(number: jax.Array, carry: Carry) -> Carry:
            return steps.step(carry, own, draw, data, batches[number])

        carry = jax.lax.fori_loop(0, count, body, steps.begin(own))
        return carry.trained, steps.model.flat_state(carry.state), carry.loss

    return whole


def _scan(steps: ClientSteps) -> Client:
    whole = jax.jit(_whole(steps))

    def client(lane: Lane, job: Job, most: int) -> Generator[None, None, Pending]:
        batches, count = _padded(job.batches, most)
        kept = jax.device_put(job.kept, lane.device)
        ended = whole(lane.given, kept, job.draw, lane.data, batches, count)
        yield
        return Pending(*ended)

    return client


def _vmap(steps: ClientSteps, devices: Sequence[Any]) -> Execute:
    whole = jax.jit(jax.vmap(_whole(steps), in_axes=(None, 0, 0, None, 0, 0)))

    def execute(
        given: Given, data: Sequence[Data], jobs: Sequence[Job], most: int
    ) -> Iterator[Ended]:
        lanes = _lanes(devices, given, data)
        length = -(-len(jobs) // len(lanes))  # of a block: the same for all, who share a program
        longest = sorted(range(len(jobs)), key=lambda each: -len(jobs[each].batches))
        blocks = [sorted(longest[at : at + length]) for at in range(0, len(jobs), length or 1)]
        calls = []
        for lane, block in zip(lanes, blocks, strict=False):
            kept, draws, batches, counts = _stacked([jobs[each] for each in block], length, most)
            kept = jax.device_put(kept, lane.device)
            calls.append(whole(lane.given, kept, draws, lane.data, batches, counts))
        ended = {
            number: each
            for block, call in zip(blocks, calls, strict=True)
            for number, each in zip(block, _unstacked(call, len(block)), strict=True)
        }
        yield from (ended[number] for number in range(len(jobs)))

    return execute


def _pmap(steps: ClientSteps, devices: Sequence[Any]) -> Execute:
    whole = jax.pmap(_whole(steps), in_axes=(None, 0, 0, 0, 0, 0), devices=devices)
    copy = jax.pmap(jnp.copy, devices=devices)
    count = len(devices)
    copies: dict[int, tuple[Data, Data]] = {}  # by identity; the original is held, so ids stay

    def on_all(data: Data) -> Data:
        if id(data) not in copies:
            spread = [copy(np.broadcast_to(each, (count, *each.shape))) for each in data]
            copies[id(data)] = data, Data(*spread)
        return copies[id(data)][1]

    def execute(
        given: Given, data: Sequence[Data], jobs: Sequence[Job], most: int
    ) -> Iterator[Ended]:
        for first in range(0, len(jobs), count):
            block = list(jobs[first : first + count])
            kept, draws, batches, counts = _stacked(block, count, most)
            ended = whole(given, kept, draws, on_all(data[0]), batches, counts)
            yield from _unstacked(ended, len(block))

    return execute


def _padded(batches: np.ndarray, most: int) -> tuple[np.ndarray, np.int32]:
    """Rows of zeros after the batches, which are never trained, and the number of batches."""
    padded = np.zeros((most, batches.shape[1]), np.int32)
    padded[: len(batches)] = batches
    return padded, np.int32(len(batches))


def _stacked(jobs: Sequence[Job], length: int, most: int) -> tuple[Any, ...]:
    """Kept, draws, batches and counts of ``length`` jobs; those that are missing have no steps."""
    idle = [jobs[0]._replace(batches=jobs[0].batches[:0])] * (length - len(jobs))
    jobs = [*jobs, *idle]
    kept = {name: np.stack([job.kept[name] for job in jobs]) for name in jobs[0].kept}
    batches, counts = zip(*(_padded(job.batches, most) for job in jobs), strict=True)
    return kept, np.stack([job.draw for job in jobs]), np.stack(batches), np.array(counts)


def _unstacked(ended: Any, count: int) -> Iterator[Ended]:
    trained, state, loss = (np.array(jnp.asarray(each)) for each in ended)
    for number in range(count):
        yield Ended(trained[number], state[number], float(loss[number]))
