"""Memory of large payloads: used again, but never while anybody can see it; bounded; freed."""

from __future__ import annotations

import ctypes
import gc
import mmap
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcp_helpers import message, names, node, run, started

from geojax.wire import receive_memory as module
from geojax.wire.message import Kind, Message
from geojax.wire.receive_memory import KEPT_BLOCKS, ReceiveMemory

LEAST, BLOCK = 1000, 4096
LARGE = st.integers(LEAST + 1, BLOCK)


@pytest.fixture(autouse=True, scope="module")
def blocks() -> Iterator[weakref.WeakSet[mmap.mmap]]:
    """Small blocks; all that are mapped, and not freed yet."""
    mapped: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
    map_block = module._map_block

    def noted() -> mmap.mmap:
        block = map_block()
        mapped.add(block)
        return block

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEAST_BYTES", LEAST)
        patch.setattr(module, "BLOCK_BYTES", BLOCK)
        patch.setattr(module, "_map_block", noted)
        yield mapped


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_that_nobody_sees_is_used_again() -> None:
    memory = ReceiveMemory()
    first = memory.take(LEAST + 1)
    at = address(first)
    assert first.dtype == np.uint8
    assert first.shape == (LEAST + 1,)
    assert first.flags.writeable
    assert first.flags.c_contiguous
    del first
    again = memory.take(BLOCK)
    assert address(again) == at
    assert again.shape == (BLOCK,)
    assert address(memory.take(BLOCK)) != at


def in_cycle(array: np.ndarray) -> Any:
    loop: list[Any] = [array]
    loop.append(loop)
    return loop


class Aliased:
    """A library that shares the memory of an array by its interface, as ctypes would."""

    def __init__(self, array: np.ndarray):
        self.content = (ctypes.c_uint8 * array.nbytes).from_buffer(array)


VIEWS: dict[str, tuple[Callable[[np.ndarray], Any], Callable[[Any], Any]]] = {
    "itself": (lambda array: array, lambda view: view),
    "slice": (lambda array: array[3:], lambda view: view),
    "slice of a slice": (lambda array: array[3:][5:], lambda view: view),
    "numbers": (lambda array: array[: LEAST // 4 * 4].view(np.float32)[1:], lambda v: v),
    "matrix": (lambda array: array[:LEAST].reshape(10, -1).T, lambda view: view),
    "memoryview": (lambda array: array.data[7:], lambda view: view),
    "buffer": (lambda array: np.frombuffer(array.data, np.uint8, offset=9), lambda view: view),
    "ctypes": (Aliased, lambda view: view.content),
    "in a cycle": (in_cycle, lambda view: view[0]),
    "iterator": (lambda array: array.flat, lambda view: view.base),
}


def seen(kind: str, view: Any) -> bytes:
    return bytes(np.ascontiguousarray(VIEWS[kind][1](view)).view(np.uint8))


@given(
    st.lists(
        st.tuples(st.just("take"), LARGE, st.sampled_from(sorted(VIEWS)))
        | st.tuples(st.just("drop"), st.integers(0, 9), st.just(""))
        | st.tuples(st.just("collect"), st.just(0), st.just("")),
        max_size=40,
    )
)
def test_memory_that_anybody_sees_is_never_used_again(steps: list[tuple[str, int, str]]) -> None:
    memory = ReceiveMemory()
    alive: list[tuple[str, Any, int]] = []
    for count, (what, number, kind) in enumerate(steps):
        if what == "take":
            array = memory.take(number)
            array[:] = count
            alive.append((kind, VIEWS[kind][0](array), count))
            del array
        elif what == "drop" and alive:
            alive.pop(number % len(alive))
        elif what == "collect":
            gc.collect(0)
        for of, view, value in alive:
            assert set(seen(of, view)) == {value}


def test_what_jax_shares_is_never_used_again() -> None:
    jax = pytest.importorskip("jax")
    memory = ReceiveMemory()
    array = memory.take(BLOCK)
    array[:] = 1
    at = address(array)
    placed = jax.device_put(array.view(np.float32)[16:])
    expected = np.array(placed)
    shared = at <= placed.unsafe_buffer_pointer() < at + BLOCK
    assert shared, "nothing is tested here where JAX copies"
    del array
    memory.take(BLOCK)[:] = 2
    assert np.array_equal(np.asarray(placed), expected)
    del placed
    gc.collect()
    taken = [memory.take(BLOCK), memory.take(BLOCK)]
    assert at in map(address, taken)


@pytest.mark.parametrize("nbytes", [0, 1, LEAST, BLOCK + 1])
def test_other_sizes_are_the_allocators(nbytes: int, blocks: weakref.WeakSet[mmap.mmap]) -> None:
    before = len(blocks)
    assert ReceiveMemory().take(nbytes).flags.owndata
    assert len(blocks) == before


def test_no_more_than_a_few_blocks_are_kept(blocks: weakref.WeakSet[mmap.mmap]) -> None:
    before = len(blocks)
    memory = ReceiveMemory()
    held = [memory.take(BLOCK) for _ in range(KEPT_BLOCKS + 3)]
    assert len(blocks) - before == KEPT_BLOCKS + 3
    del held
    assert len(blocks) - before == KEPT_BLOCKS


def test_closing_frees_what_is_kept_and_the_rest_when_it_ends(
    blocks: weakref.WeakSet[mmap.mmap],
) -> None:
    before = len(blocks)
    memory = ReceiveMemory()
    held, other = memory.take(BLOCK), memory.take(BLOCK)
    held[:] = 7
    del other
    memory.close()
    assert len(blocks) - before == 1
    assert set(held) == {7}
    del held
    assert len(blocks) == before


def test_what_is_not_used_for_a_while_is_freed(
    monkeypatch: pytest.MonkeyPatch, blocks: weakref.WeakSet[mmap.mmap]
) -> None:
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    before = len(blocks)
    memory = ReceiveMemory()
    memory.take(BLOCK)
    now[0] += module.IDLE_S
    memory.take(1)
    assert len(blocks) - before == 1
    now[0] += 0.1
    memory.take(1)
    assert len(blocks) == before


def test_threads_never_share_a_block() -> None:
    memory, wrong = ReceiveMemory(), []
    start = threading.Barrier(4)

    def use(number: int) -> None:
        start.wait(10)
        for count in range(500):
            array = memory.take(BLOCK)[count % 7 :]
            array[:] = number
            if not (array == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert len(memory._free) <= KEPT_BLOCKS


@pytest.mark.parametrize("connections", [1, 2])
def test_messages_are_received_into_memory_of_those_before(
    connections: int, blocks: weakref.WeakSet[mmap.mmap]
) -> None:
    """Each message is read and dropped before the next one is sent."""

    async def scenario() -> None:
        a, b = (
            node(name, names("a", "b"), connections=lambda _a, _b: connections) for name in "ab"
        )
        before = len(blocks)
        async with started(a, b):
            held = None
            for value in range(6):
                a.send("b", Message(Kind.OFFER, payload=np.full(BLOCK, value, np.uint8)))
                payload = (await message(b, "a")).payload
                assert isinstance(payload, np.ndarray)
                assert set(payload) == {value}
                if value == 2:
                    held = payload[1:]
                del payload
            assert len(blocks) - before <= 3, "one is held, one is free, one may not be yet"
            assert held is not None
            assert set(held) == {2}
            del held
            await b.close()
            assert len(blocks) == before

    run(scenario())
