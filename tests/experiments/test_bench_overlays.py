"""The benchmark of overlays runs them all and lays out their sync times."""

import argparse

import pytest

from experiments.bench import overlays


def options(**changes):
    given = {
        "seeds": [0], "wan": "three_centers", "bytes": 400_000, "chunk_elements": 10_000,
        "delay_scale": 0.0, "delay": None, "centers": None, "goodput": 1.0, "jobs": 1,
        "rows": overlays.ROWS, "each": False, "routes": "fastest", "rounds": 1,
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


def test_a_star_takes_as_long_as_its_root_s_links():
    """``uniform``: each of the others sends all of it over its own link, and gets all of it."""
    one = overlays.configuration(options(wan="uniform"), overlays.OverlayConfig("star"), 0)
    one.wan.centers, one.wan.rate = 3, 8.0
    time = overlays.sync_time(one)
    chunk = 0.4 / 10  # s: 10,000 elements at 8 Mbit/s; the last one goes up, then down
    assert time == pytest.approx(0.4 + chunk, rel=0.02)


def times_of(laid):
    names, times = (list(column.cells) for column in laid.columns[:2])
    return dict(zip(names, map(float, times), strict=True))


def test_every_seed_may_be_told():
    laid = overlays.table(options(seeds=[0, 1], rows=["ring, tsp"], each=True))
    name, told = laid.columns[0].cells
    assert name == "ring, tsp"
    assert len(str(told).split(": ")[1].split()) == 2


def test_rows_are_chosen_and_processes_share_the_seeds():
    chosen = {"seeds": [0, 1], "wan": "netstorm9_draw", "rows": ["packing", "ring, tsp"]}
    alone, together = (overlays.table(options(**chosen, jobs=jobs)) for jobs in (1, 2))
    assert list(times_of(alone)) == ["packing", "ring, tsp"]
    assert times_of(alone) == times_of(together)
    assert [column.header for column in alone.columns] == ["overlay", "sync time, s", "x bound"]


@pytest.mark.parametrize("wan", ["three_centers", "netstorm9_static", "full_mesh"])
def test_a_delay_is_that_of_every_hop(wan):
    config = overlays.configuration(options(wan=wan, delay=5.0), overlays.OverlayConfig(), 0)
    view = overlays.build_wan(config.wan, config.lan, 0).view()
    assert set(view.delay.values()) == {0.005}


def test_generated_wans_have_as_many_centers_as_asked_for():
    mesh = overlays.wan_config(options(wan="full_mesh", centers=9))
    assert len(overlays.build_wan(mesh, overlays.RunConfig().lan, 0).center_names) == 9
    with pytest.raises(overlays.ConfigError, match=r"--centers = 9: three_centers has its own"):
        overlays.wan_config(options(centers=9))


def test_seeds_are_a_number_or_a_list():
    assert overlays._options(["--seeds", "4"]).seeds == [0, 1, 2, 3]
    assert overlays._options(["--seeds", "3,5"]).seeds == [3, 5]
    assert overlays._options([]).rows == list(overlays.ROWS)
    with pytest.raises(overlays.ConfigError, match=r"--rows = 'packin': did you mean 'packing'"):
        overlays._options(["--rows", "packin"])


def test_later_rounds_find_their_connections_warm():
    """With delays the first round pays for TCP's slow start, and no later one does."""
    told = {"rows": ["packing"], "delay": 20.0, "delay_scale": 1.0}
    first, second = (
        times_of(overlays.table(options(**told, rounds=rounds)))["packing"] for rounds in (1, 2)
    )
    assert second < 0.9 * first
