"""How fast the codecs are on one core of this machine: ``python -m experiments.bench.codecs``.

A vector of normal numbers, one large layer and one small, is encoded and decoded by every codec in
chunks of the default size, and the chunks of two members are summed. Rates are those of the float32
vector (of both, for a sum), whatever the payload; beside each stands how many plain copies of the
same memory take as long, in the same run. *Fresh* is the memory that encoding takes anew, payloads,
state and whatever lies between, ÷ the vector. Then Bi-Sparse's encoding, which is accumulation,
sampled threshold and payloads, stands beside no more than the selection of as many elements, by
sorting all and by partition. All figures are medians of CPU time, which says more than elapsed time
where the machine is busy. Below the table stands what importing and compiling loops took, or
reading what an earlier process had compiled (``NUMBA_CACHE_DIR=$(mktemp -d)`` forgets that).
"""

from __future__ import annotations

import os
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.bench import report
from geojax.center.spec import VectorSpec
from geojax.compression import compiled
from geojax.compression.bisparse import BisparseConfig
from geojax.compression.codec import Codec, SplitPayload
from geojax.compression.registry import CODECS, build_codec
from geojax.compression.sparsify import budget_of
from geojax.config import CompressionConfig, OverlayConfig

ELEMENTS = 25_000_000
SMALL = 500  # elements of the small layer, below every codec's bound
SORT_GOAL = 4.0  # times that Bi-Sparse encodes faster than a sort selects
HOLLOW = {"size_only"}  # its payloads have no content
FIRST = ("dense", "fp16", "bf16", "int8", "int4", "twobit", "bisparse")


class Cost(NamedTuple):
    """CPU seconds to encode, to decode and to sum, bytes of the payloads and of fresh memory."""

    encode: float
    decode: float
    combine: float
    nbytes: int
    fresh: int


def _median(work: Callable[[], Any], repeats: int) -> float:
    """CPU seconds that ``work`` takes, once it is warm."""
    work()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def _fresh(work: Callable[[], Any]) -> int:
    """Most bytes that ``work`` holds at once beyond what was there."""
    tracemalloc.start()
    try:
        kept = work()
        peak = tracemalloc.get_traced_memory()[1]
        del kept
    finally:
        tracemalloc.stop()
    return peak


def _parts(payloads: Sequence[np.ndarray | SplitPayload]) -> list[list[np.ndarray]]:
    """What travels of each chunk."""
    return [
        [one.now, *[one.late][: one.late.size], *one.datagrams]
        if isinstance(one, SplitPayload)
        else [one]
        for one in payloads
    ]


def _cost(codec: Codec, vector: np.ndarray, repeats: int) -> Cost:
    spec = VectorSpec.of([("kernel", (vector.size - SMALL,)), ("bias", (SMALL,))])
    first = codec.init(spec.layers, spec.chunks(OverlayConfig().chunk_elements))
    payloads, state = codec.encode(vector, first)  # the residual is there after it
    chunks = _parts(payloads)
    parts = [part for chunk in chunks for part in chunk]
    return Cost(
        _median(lambda: codec.encode(vector, state), repeats),
        _median(lambda: [codec.decode(part) for part in parts], repeats),
        _median(lambda: [codec.combine(chunk[:1] * 2) for chunk in chunks], repeats),
        sum(part.nbytes for part in parts),
        _fresh(lambda: codec.encode(vector, state)),
    )


def _codecs(names: Sequence[str], loops: bool) -> tuple[dict[str, Codec], float]:
    """The codecs, and the CPU seconds that building them took."""
    from geojax.center.devices import configure
    from geojax.center.sparsify import jax_kernel

    configure(1)
    sparse = CompressionConfig(name="bisparse")
    start = time.process_time()
    chosen = {name: build_codec(CompressionConfig(name=name), compiled=loops) for name in names}
    took = time.process_time() - start
    if "bisparse" in chosen:
        chosen |= {
            "  no momentum": build_codec(sparse, gradients=False, compiled=loops),
            "  exact": build_codec(BisparseConfig(exact=True), compiled=loops),
            "  jitted kernel": build_codec(sparse, kernel=jax_kernel),
        }
    return chosen, took


def _names() -> list[str]:
    return [*FIRST, *sorted(set(CODECS) - {*FIRST} - HOLLOW)]


def _bench(names: Sequence[str], elements: int, repeats: int, loops: bool) -> list[Table]:
    vector = np.random.default_rng(0).normal(size=elements).astype(np.float32)
    copy = _median(vector.copy, repeats)
    chosen, took = _codecs(names, loops)
    costs = {name: _cost(codec, vector, repeats) for name, codec in chosen.items()}
    heads = (
        "codec",
        *("encode", "x copy", "decode", "x copy", "sum of 2", "fresh", "bytes", "dense ÷ bytes"),
    )
    by = "compiled loops" if loops else "numpy"
    table = report.empty_table(f"Codecs, {elements:,} elements, one core, {by}", heads)
    table.add_row("a plain copy", f"{vector.nbytes / copy / 1e9:.1f} GB/s", "1", *[""] * 6)
    for name, cost in costs.items():
        speeds = [
            text
            for seconds in (cost.encode, cost.decode)
            for text in (f"{vector.nbytes / seconds / 1e9:.1f} GB/s", f"{seconds / copy:.1f}")
        ]
        both = f"{2 * vector.nbytes / cost.combine / 1e9:.1f} GB/s"
        fresh, ratio = cost.fresh / vector.nbytes, vector.nbytes / cost.nbytes
        table.add_row(name, *speeds, both, f"{fresh:.2f}", f"{cost.nbytes:,}", f"{ratio:.1f}")
    table.caption = f"Building them, with loops compiled or read, took {took:.2f} s."
    tables = [table]
    if "bisparse" in costs:
        tables.append(_against_sorting(vector, costs["bisparse"].encode, repeats))
    return tables


def _against_sorting(vector: np.ndarray, sparse: float, repeats: int) -> Table:
    budget = budget_of(vector.size, BisparseConfig().ratio)
    sort = _median(lambda: np.argsort(np.abs(vector))[-budget:], 1)
    partition = _median(lambda: np.argpartition(np.abs(vector), -budget)[-budget:], repeats)
    against = report.empty_table("Comparisons", ("what", "time", "beside it", "goal"))
    rows = (
        ("top-k by sort", sort, f"bisparse {sort / sparse:.1f} x faster", f"≥ {SORT_GOAL:g}"),
        ("top-k by partition", partition, f"bisparse {partition / sparse:.1f} x faster", ""),
    )
    for name, seconds, beside, goal in rows:
        against.add_row(name, f"{seconds * 1e3:.1f} ms", beside, goal)
    against.add_row("load of the machine, 1 min", f"{os.getloadavg()[0]:.2f}", "", "")
    return against


def main() -> None:
    """Measures and prints the tables."""
    parser = report.parser("codecs", __doc__)
    parser.add_argument("--elements", type=int, default=ELEMENTS, help="of the vector")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each; the median")
    parser.add_argument("--codecs", nargs="+", default=_names(), choices=_names(), help="which")
    parser.add_argument("--loops", choices=("compiled", "numpy"), help="default: as runs have them")
    arguments = parser.parse_args()
    if arguments.elements <= 2 * SMALL:
        parser.error(f"--elements: take more than {2 * SMALL}")
    loops = arguments.loops == "compiled" or (arguments.loops is None and compiled.installed())
    for table in _bench(arguments.codecs, arguments.elements, arguments.repeats, loops):
        Console(width=max(120, Console().width)).print(table)


if __name__ == "__main__":
    main()
