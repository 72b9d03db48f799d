"""How fast the codecs are on one core of this machine: ``python -m experiments.bench.codecs``.

A vector of normal numbers, one large layer and one small, is encoded and decoded by every codec of
GeoMX in chunks of the default size. Two comparisons follow. FP16 stands beside a plain copy of the
same memory. Bi-Sparse's encoding, which is accumulation, sampled threshold and payloads, stands
beside no more than the selection of as many elements, by sorting all and by partition. Rates are
those of the float32 vector, whatever the payload. All figures are medians of CPU time, which says
more than elapsed time where the machine is busy.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.bench import report
from geojax.center.spec import VectorSpec
from geojax.compression.bisparse import BisparseConfig
from geojax.compression.codec import Codec
from geojax.compression.registry import build_codec
from geojax.compression.sparsify import budget_of
from geojax.config import CompressionConfig, OverlayConfig

ELEMENTS = 25_000_000
SMALL = 500  # elements of the small layer, below every codec's bound
SORT_GOAL = 4.0  # times that Bi-Sparse encodes faster than a sort selects
NAMES = ("dense", "fp16", "bf16", "mpq", "twobit")


class Cost(NamedTuple):
    """CPU seconds to encode and to decode one vector, and bytes of its payloads."""

    encode: float
    decode: float
    nbytes: int


def _median(work: Callable[[], Any], repeats: int) -> float:
    """CPU seconds that ``work`` takes, once it is warm."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def _cost(codec: Codec, vector: np.ndarray, repeats: int) -> Cost:
    spec = VectorSpec.of([("kernel", (vector.size - SMALL,)), ("bias", (SMALL,))])
    first = codec.init(spec.layers, spec.chunks(OverlayConfig().chunk_elements))
    payloads, state = codec.encode(vector, first)  # the residual is there after it
    encode = _median(lambda: codec.encode(vector, state), repeats)
    decode = _median(lambda: [codec.decode(payload) for payload in payloads], repeats)
    return Cost(encode, decode, sum(payload.nbytes for payload in payloads))


def _codecs() -> dict[str, Codec]:
    from geojax.center.devices import configure
    from geojax.center.sparsify import jax_kernel

    configure(1)
    sparse = CompressionConfig(name="bisparse")
    variants = {
        "bisparse": build_codec(sparse),
        "  no momentum": build_codec(sparse, gradients=False),
        "  exact": build_codec(BisparseConfig(exact=True)),
        "  jitted kernel": build_codec(sparse, kernel=jax_kernel),
    }
    return {name: build_codec(CompressionConfig(name=name)) for name in NAMES} | variants


def _bench(elements: int, repeats: int) -> list[Table]:
    vector = np.random.default_rng(0).normal(size=elements).astype(np.float32)
    costs = {name: _cost(codec, vector, repeats) for name, codec in _codecs().items()}
    heads = ("codec", "encode", "", "decode", "", "bytes", "dense ÷ bytes")
    table = report.empty_table(f"Codecs, {elements:,} elements, one core", heads)
    for name, cost in costs.items():
        speeds = [
            text
            for seconds in (cost.encode, cost.decode)
            for text in (f"{seconds * 1e3:.1f} ms", f"{vector.nbytes / seconds / 1e9:.1f} GB/s")
        ]
        table.add_row(name, *speeds, f"{cost.nbytes:,}", f"{vector.nbytes / cost.nbytes:.1f}")

    budget = budget_of(elements, BisparseConfig().ratio)
    sparse = costs["bisparse"].encode
    copy = _median(vector.copy, repeats)
    sort = _median(lambda: np.argsort(np.abs(vector))[-budget:], 1)
    partition = _median(lambda: np.argpartition(np.abs(vector), -budget)[-budget:], repeats)
    cast = _median(lambda: vector.astype(np.float16), repeats)
    against = report.empty_table("Comparisons", ("what", "time", "beside it", "goal"))
    rows = (
        ("memory copy", copy, f"fp16 encode {costs['fp16'].encode / copy:.1f} x", ""),
        ("numpy's cast to binary16", cast, f"fp16 encode {costs['fp16'].encode / cast:.2f} x", ""),
        ("top-k by sort", sort, f"bisparse {sort / sparse:.1f} x faster", f"≥ {SORT_GOAL:g}"),
        ("top-k by partition", partition, f"bisparse {partition / sparse:.1f} x faster", ""),
    )
    for name, seconds, beside, goal in rows:
        against.add_row(name, f"{seconds * 1e3:.1f} ms", beside, goal)
    against.add_row("load of the machine, 1 min", f"{os.getloadavg()[0]:.2f}", "", "")
    return [table, against]


def main() -> None:
    """Measures and prints two tables."""
    parser = report.parser("codecs", __doc__)
    parser.add_argument("--elements", type=int, default=ELEMENTS, help="of the vector")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each; the median")
    arguments = parser.parse_args()
    if arguments.elements <= 2 * SMALL:
        parser.error(f"--elements: take more than {2 * SMALL}")
    for table in _bench(arguments.elements, arguments.repeats):
        Console(width=max(100, Console().width)).print(table)


if __name__ == "__main__":
    main()
