"""The share of sending during which a node computes."""

import pytest

from experiments.bench.overlap import overlap_share
from geojax.telemetry.recorder import Span, chrome_trace


def send(start, end, peer="c1"):
    return Span("send", start, end, {"peer": peer})


def compute(start, end):
    return Span("compute", start, end, {})


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([], 0),
        ([compute(0, 1)], 0),
        ([send(1, 3)], 0),
        ([compute(0, 1), send(1, 3)], 0),
        ([compute(0, 2), send(1, 3)], 0.5),
        ([compute(0, 1), compute(1, 2), send(0.5, 1.5)], 1),
        ([compute(0, 2), send(1, 3), send(1, 4, "c3")], 1 / 3),  # to two at once counts once
        ([compute(0, 1), Span("wait", 1, 3, {}), send(1, 3)], 0),
    ],
)
def test_share(spans, share):
    trace = chrome_trace({"c1": [compute(0, 9), send(0, 9, "c2")], "c2": spans})
    assert overlap_share(trace, "c2") == pytest.approx(share)


def test_a_node_that_is_not_there():
    with pytest.raises(ValueError, match="no node c9"):
        overlap_share(chrome_trace({"c1": []}), "c9")
