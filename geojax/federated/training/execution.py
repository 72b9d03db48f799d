"""How the clients of a round are executed on this process's devices.

========  ========================================================================================
loop      one client after the other, one call of the compiled step for each batch
scan      one client after the other, all its steps in one call (a ``while`` on the device)
vmap      all clients of the round side by side, in one call
pmap      one client a device, in blocks of as many as there are devices
========  ========================================================================================

They differ in speed alone. ``auto`` is ``loop`` on CPU: with one thread ``vmap`` took several times
as long for CNNs, and ``scan`` 0.75 to 1.25 times on a busy machine (docs/fedgs.md has the table);
``vmap`` also wastes steps and memory on clients of unequal size; ``pmap`` over CPU devices took 4
to 12 times as long. On an accelerator ``auto`` is ``vmap``, since single clients are far too
small for it; that is by reasoning, not by measurement, as there was none to measure on. ``python -m
experiments.bench.federated`` measures all of them.

Clients on Python threads gain nothing: their steps all wait for XLA's one thread, and with more of
them runs do not repeat bit for bit (docs/fedgs.md has what was tried).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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


Execute = Callable[[Given, Data, Sequence[Job], int], Iterator[Ended]]
"""``(given, data, jobs, most) -> what each job ended in, in order``.

``given`` has everything but ``kept``; ``most``: the largest number of steps that a job of the run
may have, which programs are compiled for where they need one.
"""


def execution_of(name: str, backend: str) -> str:
    """What ``auto`` stands for.

    >>> execution_of("auto", "cpu"), execution_of("auto", "gpu"), execution_of("scan", "cpu")
    ('loop', 'vmap', 'scan')
    """
    if name != "auto":
        return name
    return "loop" if backend == "cpu" else "vmap"


def build_execution(name: str, steps: ClientSteps, devices: Sequence[Any]) -> Execute:
    """One of the executions by name; ``auto`` by the backend of the devices.

    All but ``pmap`` use the first device.
    """
    name = execution_of(name, devices[0].platform)
    if name == "pmap":
        return _pmap(steps, devices)
    return {"loop": _loop, "scan": _scan, "vmap": _vmap}[name](steps, devices[0])


def _loop(steps: ClientSteps, device: Any) -> Execute:
    begin = jax.jit(steps.begin, compiler_options=QUICKLY)
    step = jax.jit(steps.step, donate_argnums=0)
    state = jax.jit(steps.model.flat_state) if steps.model.state else _no_state

    def execute(given: Given, data: Data, jobs: Sequence[Job], most: int) -> Iterator[Ended]:
        del most
        # Placed by name: a step's own results are, and programs are compiled for either anew.
        given = jax.device_put(given, device)
        for job in jobs:
            # Each placing costs as much as half a small step; a used draw is cheap as it is.
            kept = jax.device_put(job.kept, device) if job.kept else job.kept
            own = given._replace(kept=kept)
            carry: Carry = begin(own)
            for positions in job.batches:
                carry = step(carry, own, job.draw, data, positions)
            yield Ended(to_host(carry.trained), np.array(state(carry.state)), float(carry.loss))

    return execute


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


def _scan(steps: ClientSteps, device: Any) -> Execute:
    whole = jax.jit(_whole(steps))

    def execute(given: Given, data: Data, jobs: Sequence[Job], most: int) -> Iterator[Ended]:
        given = jax.device_put(given, device)
        for job in jobs:
            ended = whole(given, job.kept, job.draw, data, *_padded(job.batches, most))
            yield Ended(to_host(ended[0]), to_host(ended[1]), float(ended[2]))

    return execute


def _vmap(steps: ClientSteps, device: Any) -> Execute:
    whole = jax.jit(jax.vmap(_whole(steps), in_axes=(None, 0, 0, None, 0, 0)))

    def execute(given: Given, data: Data, jobs: Sequence[Job], most: int) -> Iterator[Ended]:
        if jobs:
            placed = jax.device_put(given, device)
            yield from _unstacked(whole(placed, *_stacked(jobs, data, most)), len(jobs))

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

    def execute(given: Given, data: Data, jobs: Sequence[Job], most: int) -> Iterator[Ended]:
        for first in range(0, len(jobs), count):
            block = list(jobs[first : first + count])
            idle = [block[0]._replace(batches=block[0].batches[:0])] * (count - len(block))
            ended = whole(given, *_stacked([*block, *idle], on_all(data), most))
            yield from _unstacked(ended, len(block))

    return execute


def _padded(batches: np.ndarray, most: int) -> tuple[np.ndarray, np.int32]:
    """Rows of zeros after the batches, which are never trained, and the number of batches."""
    padded = np.zeros((most, batches.shape[1]), np.int32)
    padded[: len(batches)] = batches
    return padded, np.int32(len(batches))


def _stacked(jobs: Sequence[Job], data: Data, most: int) -> tuple[Any, ...]:
    kept = {name: np.stack([job.kept[name] for job in jobs]) for name in jobs[0].kept}
    batches, counts = zip(*(_padded(job.batches, most) for job in jobs), strict=True)
    return kept, np.stack([job.draw for job in jobs]), data, np.stack(batches), np.array(counts)


def _unstacked(ended: Any, count: int) -> Iterator[Ended]:
    trained, state, loss = (np.array(jnp.asarray(each)) for each in ended)
    for number in range(count):
        yield Ended(trained[number], state[number], float(loss[number]))
