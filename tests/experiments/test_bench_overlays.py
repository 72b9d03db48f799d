"""The benchmark of overlays runs them all and lays out their sync times."""

import argparse

import pytest

from experiments.bench import overlays


def options(**changes):
    given = {
        "seeds": [0], "wan": "three_centers", "bytes": 400_000, "chunk_elements": 10_000,
        "delay_scale": 0.0, "goodput": 1.0, "rows": None, "each": False,
    }  # fmt: skip
    return argparse.Namespace(**{**given, **changes})


def test_every_overlay_is_measured():
    laid = overlays.table(options(seeds=[0, 1]))
    names, times, to_bound, ratios = (list(column.cells) for column in laid.columns)
    assert set(names) >= {"star, best root", "mlnet, worst root", "ring, tsp", overlays.REFERENCE}
    assert ratios[names.index(overlays.REFERENCE)] == "1.00"
    assert min(map(float, to_bound)) >= 1.0, "nothing beats the optimum"
    for rooted in overlays.ROOTED:
        best, median, worst = (
            float(times[names.index(f"{rooted}, {rank} root")])
            for rank in ("best", "median", "worst")
        )
        assert 0 < best <= median <= worst


def test_rows_may_be_chosen_and_every_seed_told():
    chosen = ["netstorm, auxiliary", "star"]
    laid = overlays.table(options(seeds=[0, 1], rows=chosen, each=True))
    names = [name for name in laid.columns[0].cells if "by seed" not in name]
    stars = [f"star, {rank} root" for rank in ("best", "median", "worst")]
    assert names == [*stars, overlays.REFERENCE, "netstorm, auxiliary"]
    by_seed = [name for name in laid.columns[0].cells if "by seed" in name]
    assert len(by_seed) == len(names)
    assert all(len(told.split(": ")[1].split()) == 2 for told in by_seed)


def test_a_star_takes_as_long_as_its_root_s_links():
    """``uniform``: each of the others sends all of it over its own link, and gets all of it."""
    one = overlays.configuration(options(wan="uniform"), overlays.OverlayConfig("star"), 0)
    one.wan.centers, one.wan.rate = 3, 8.0
    time = overlays.sync_time(one)
    chunk = 0.4 / 10  # s: 10,000 elements at 8 Mbit/s; the last one goes up, then down
    assert time == pytest.approx(0.4 + chunk, rel=0.02)
