"""The payload of runs and entries: its forms, its limits, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geojax.center.spec import VectorSpec
from geojax.compression.layout import layout_of
from geojax.compression.payload import MOST_ELEMENTS
from geojax.compression.sparse import Run, SparseChunk, dense, pack, unite, unpack
from geojax.errors import FrameError

HEADER, RUN = 16, 12


def entries(elements, positions, runs=()):
    positions = np.array(positions, np.int64)
    values = np.arange(1, positions.size + 1, dtype=np.float32)
    return SparseChunk(elements, list(runs), positions, values)


def ones(start, size, width=4):
    return Run(start, np.ones(size, np.float32), width)


@given(
    st.sampled_from([300, 5_000, 70_000, 300_000]).flatmap(
        lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1), max_size=40))
    )
)
def test_positions_come_back_in_the_shortest_form(drawn):
    elements, chosen = drawn
    positions = sorted(chosen)
    parts = entries(elements, positions)
    payload = pack(parts)
    found = unpack(payload, "test")
    assert found.positions.tolist() == positions
    assert dense(found).tobytes() == dense(parts).tobytes()
    fixed = 2 if not positions or positions[-1] < 65_536 else 4
    distances = np.diff(positions, prepend=-1) - 1
    shortest = min(len(positions) * fixed, sum(1 + gap // 255 for gap in distances.tolist()))
    assert payload.nbytes == HEADER + 4 * len(positions) + shortest


@pytest.mark.parametrize(
    ("gap", "form"), [(0, 0), (254, 0), (255, 0), (510, 1), (30_000, 1), (70_000, 2)]
)
def test_forms_of_positions(gap, form):
    positions = [gap, 2 * gap + 1]
    payload = pack(entries(200_000, positions))
    assert payload[12] == form
    assert unpack(payload, "test").positions.tolist() == positions


def test_entries_as_long_as_the_whole_turn_dense():
    few = pack(entries(10, [0, 2, 4, 6, 8][:4]))
    assert few.nbytes == HEADER + 4 * 4 + 4
    many = pack(entries(10, range(8)))
    assert many.nbytes == HEADER + RUN + 40
    assert unpack(many, "test").positions.size == 0
    # What is in half precision already stays so.
    mixed = pack(entries(10, range(2, 9), [ones(0, 2, width=2)]))
    assert mixed.nbytes == HEADER + 2 * RUN + 2 * 2 + 8 * 4


def test_a_union_takes_the_wider_run_and_drops_no_entry():
    members = [
        entries(20, [9, 12], [ones(0, 4, width=2)]),
        entries(20, [12, 15], [ones(0, 4, width=2), ones(9, 2)]),
    ]
    total = unite(members, "test")
    assert [(run.start, run.stop, run.width) for run in total.runs] == [(0, 4, 2), (9, 11, 4)]
    assert total.positions.tolist() == [12, 15]
    assert dense(total).tolist() == (dense(members[0]) + dense(members[1])).tolist()


def test_a_sum_of_zero_stays_an_entry():
    one = entries(9, [4])
    total = unite([one, one._replace(values=-one.values)], "test")
    assert (total.positions.tolist(), total.values.tolist()) == ([4], [0.0])


GOOD = pack(entries(400, [9, 300, 350], [ones(0, 3), ones(5, 2, width=2)]))
TABLE = HEADER
TAIL = GOOD.size - 4  # distances: 2 + 255 more, and so on


def test_the_sample_is_good():
    assert unpack(GOOD, "test").elements == 400
    assert GOOD[TAIL:].tolist() == [9, 255, 35, 49]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({3: 255}, f"at most {MOST_ELEMENTS} elements"),
        ({0: 2, 1: 0}, "3 entries in 2 elements"),
        ({4: 255}, "expected 3060 more bytes"),
        ({8: 4}, "more bytes|distances"),
        ({12: 7}, "index form of 0 to 2, came 7"),
        ({12: 1}, "more bytes"),
        ({TABLE + 4: 0}, "a run of 0 elements"),
        ({TABLE + 8: 3}, "3 bytes each"),
        ({TABLE + RUN: 2}, "a run of 2 elements at 2"),
        ({TABLE + RUN + 3: 255}, "a run of 2 elements at"),
        ({TAIL: 0}, "outside of the runs"),
        ({TAIL + 3: 254}, "ascend within 400 elements"),
        ({TAIL + 3: 255}, "3 distances, came 2"),
    ],
)
def test_malformed_payloads_are_refused(damage, reason):
    payload = GOOD.copy()
    for at, value in damage.items():
        payload[at] = value
    with pytest.raises(FrameError, match=f"test payload: .*({reason})"):
        unpack(payload, "test")


def test_every_truncation_is_refused():
    for size in range(GOOD.size):
        with pytest.raises(FrameError):
            unpack(GOOD[:size], "test")
    with pytest.raises(FrameError):
        unpack(np.append(GOOD, np.uint8(3)), "test")


def test_positions_of_fixed_width_are_checked_too():
    for positions, form in [([70_000, 150_000], 2), ([2_000, 60_000], 1)]:
        payload = pack(entries(200_000, positions))
        assert payload[12] == form
        with pytest.raises(FrameError, match="1 bytes too many"):
            unpack(np.append(payload, np.uint8(0)), "test")
        width = 4 if form == 2 else 2
        first, second = payload[-2 * width : -width].copy(), payload[-width:].copy()
        swapped = np.concatenate([payload[: -2 * width], second, first])
        with pytest.raises(FrameError, match="ascend"):
            unpack(swapped, "test")
    payload[-1] = 255  # beyond the chunk once it is read as more
    payload[0:3] = [0, 0xF0, 0]
    with pytest.raises(FrameError, match="ascend within"):
        unpack(payload, "test")


def test_layers_and_chunks_must_tile_the_vector():
    layers = VectorSpec.of([("w", (4,)), ("b", (2,))]).layers
    assert layout_of(layers, [(0, 3), (3, 6)]).size == 6
    for bad_layers, ranges, reason in [
        (layers[:1], [(0, 6)], "layers: they end at element 4, the vector at 6"),
        (layers[1:], [(0, 6)], r"layers: one lies at \[4, 6\), expected it to begin at 0"),
        (layers, [(0, 3), (4, 6)], r"chunks: one lies at \[4, 6\), expected it to begin at 3"),
    ]:
        with pytest.raises(ValueError, match=reason):
            layout_of(bad_layers, ranges)
