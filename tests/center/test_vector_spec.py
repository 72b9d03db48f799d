"""The layout of the flat vector, and the way of a model's arrays through it."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import network_of

from geojax.center.spec import VectorSpec

SPEC = VectorSpec.of([("w", (2, 3)), ("b", (3,))], [("mean", (3,)), ("scale", ())])


def test_parameters_come_first_then_state():
    assert [(layer.name, layer.offset, layer.stop) for layer in SPEC.layers] == [
        ("w", 0, 6), ("b", 6, 9), ("mean", 9, 12), ("scale", 12, 13)
    ]  # fmt: skip
    assert [layer.kind for layer in SPEC.layers] == ["parameter"] * 2 + ["state"] * 2
    assert (SPEC.parameters, SPEC.size) == (9, 13)


@given(size=st.integers(1, 500), elements=st.integers(1, 600))
def test_chunks_cover_the_vector_once(size, elements):
    chunks = VectorSpec.of([("w", (size,))]).chunks(elements)
    assert [i for start, stop in chunks for i in range(start, stop)] == list(range(size))
    assert {stop - start for start, stop in chunks[:-1]} <= {elements}


@given(
    size=st.integers(1, 300),
    elements=st.integers(1, 100),
    boundaries=st.sets(st.integers(0, 300), max_size=5),
)
def test_chunks_never_cross_a_boundary(size, elements, boundaries):
    boundaries = {each for each in boundaries if each <= size}
    chunks = VectorSpec.of([("w", (size,))]).chunks(elements, boundaries)
    assert [i for start, stop in chunks for i in range(start, stop)] == list(range(size))
    for start, stop in chunks:
        assert not any(start < boundary < stop for boundary in boundaries)
        assert stop - start == elements or stop in boundaries | {size}


def test_wrong_chunks_are_refused():
    with pytest.raises(ValueError, match="at least one element"):
        SPEC.chunks(0)
    with pytest.raises(ValueError, match="within 0 and 13"):
        SPEC.chunks(4, boundaries=(14,))


def test_a_part_is_a_layout_of_its_own():
    for start, stop, names, parameters in [
        (0, 13, ["w", "b", "mean", "scale"], 9),
        (6, 9, ["b"], 3),
        (6, 12, ["b", "mean"], 3),
        (9, 13, ["mean", "scale"], 0),
    ]:
        part = SPEC.part(start, stop)
        assert [layer.name for layer in part.layers] == names
        assert (part.size, part.parameters) == (stop - start, parameters)
        vector = np.arange(13, dtype=np.float32)
        for name, values in part.split(vector[start:stop]).items():
            assert np.array_equal(values, SPEC.split(vector)[name])
    assert SPEC.part(0, 13) == SPEC


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        (0, 7, r"\[0, 7\) cuts the layer b at \[6, 9\)"),
        (1, 6, "cuts the layer w"),
        (7, 8, "cuts the layer b"),
        (6, 6, "no part of a vector of 13"),
        (6, 14, "no part"),
        (-1, 6, "no part"),
    ],
)
def test_a_part_has_whole_layers(start, stop, message):
    with pytest.raises(ValueError, match=message):
        SPEC.part(start, stop)


def test_split_and_join_are_inverse():
    vector = np.arange(13, dtype=np.float32)
    arrays = SPEC.split(vector)
    assert np.array_equal(arrays["w"], [[0, 1, 2], [3, 4, 5]])
    assert arrays["scale"].shape == ()
    assert np.array_equal(SPEC.join(arrays), vector)


@pytest.mark.parametrize(
    "wrong", [np.zeros(12, np.float32), np.zeros(13), np.zeros((13, 1), np.float32)]
)
def test_a_wrong_vector_is_refused(wrong):
    with pytest.raises(ValueError, match=r"offer: expected float32 of shape \(13,\), got"):
        SPEC.check(wrong, "offer")


def test_wrong_arrays_are_refused():
    arrays = SPEC.split(np.zeros(13, np.float32))
    with pytest.raises(ValueError, match="'mean'"):
        SPEC.join({name: array for name, array in arrays.items() if name != "mean"})
    with pytest.raises(ValueError, match=r"w: expected shape \(2, 3\), got \(3, 2\)"):
        SPEC.join({**arrays, "w": np.zeros((3, 2))})


def test_a_model_with_every_kind_of_leaf_goes_through_the_vector():
    network = network_of("cnn_batchnorm", (8, 8, 1), 10)
    parameters = [
        "Conv_0/kernel", "BatchNorm_0/scale", "BatchNorm_0/bias",
        "Conv_1/kernel", "BatchNorm_1/scale", "BatchNorm_1/bias",
        "Dense_0/kernel", "Dense_0/bias",
    ]  # fmt: skip
    state = [f"batch_stats/BatchNorm_{i}/{leaf}" for i in (0, 1) for leaf in ("mean", "var")]
    assert [layer.name for layer in network.spec.layers] == parameters + state

    vector, integers = network.initial(0)
    assert integers == {"counters/batches": 0}  # not in the vector
    arrays = network.spec.split(vector)
    assert (arrays["batch_stats/BatchNorm_1/var"] == 1).all()
    assert not arrays["batch_stats/BatchNorm_1/mean"].any()

    marked = np.arange(network.spec.size, dtype=np.float32)
    on_device = network.unflatten(jnp.asarray(marked))
    assert list(on_device[0]) == parameters
    assert list(on_device[1]) == state
    for name, values in network.spec.split(marked).items():
        assert np.array_equal({**on_device[0], **on_device[1]}[name], values)
    assert np.array_equal(network.flatten({**on_device[0], **on_device[1]}), marked)
