"""The WANs that come with the project, and how descriptions are found."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from geojax.config import LanConfig, WanConfig
from geojax.errors import ConfigError
from testbed.wan import presets as wan_presets
from testbed.wan.build import build_wan, load_preset, preset_names
from testbed.wan.generators import GENERATORS
from testbed.wan.presets import PRESETS, parse_arguments

# NetStorm's released scripts: 13 pairs, and the 100/500 table by source center
NETSTORM_PAIRS = ["12", "13", "23", "25", "34", "45", "46", "57", "67", "68", "69", "78", "89"]
NETSTORM_STATIC = {
    "1": {"2": 500, "3": 100},
    "2": {"3": 500, "1": 500, "5": 500},
    "3": {"1": 100, "2": 500, "4": 100},
    "4": {"3": 100, "5": 500, "6": 100},
    "5": {"2": 500, "7": 500, "4": 500},
    "6": {"4": 100, "7": 500, "8": 100, "9": 100},
    "7": {"5": 500, "6": 500, "8": 500},
    "8": {"6": 100, "7": 500, "9": 500},
    "9": {"6": 100, "8": 500},
}


def build(name, seed=0, **overrides):
    return build_wan(load_preset(name, **overrides), LanConfig(), seed)


def test_the_presets_are_all_there():
    assert set(preset_names()) >= {
        "three_centers",
        "uniform",
        "single_center",
        "netstorm9_static",
        "netstorm9_draw",
        "netstorm9_dynamic",
        "aws8_2025",
        "aws10_2022",
        "halos4_2025",
        "gc4_2024",
        "random_geometric",
        "random_sparse",
        "full_mesh",
    }


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_builds_and_says_where_it_comes_from(name):
    wan = build(name)
    assert wan.name == name
    assert {"source", "unit", "method"} <= set(wan.provenance)
    if name not in ("single_center", "three_centers", "uniform") and load_preset(name).links:
        assert {"date", "direction"} <= set(wan.provenance)


@pytest.mark.parametrize("name", preset_names())
def test_every_estimate_of_a_preset_names_a_rule_that_is_spelled_out(name):
    wan = build(name)
    rules = {rule for entry in (*wan.centers, *wan.links) for rule in entry.estimated.values()}
    assert rules <= set((wan.provenance.get("estimated")) or {})


@pytest.mark.parametrize("name", preset_names())
def test_hydra_composes_every_preset_to_what_load_preset_reads(name):
    for base in ("wan", *GENERATORS):
        node = WanConfig if base == "wan" else GENERATORS.schema(base)
        ConfigStore.instance().store(name=f"base_{base}", node=node)
    with initialize_config_dir(str(PRESETS), version_base="1.3"):
        composed = OmegaConf.to_object(compose(name))
    assert composed == load_preset(name)


def test_three_centers():
    view = build("three_centers").view()
    assert view.centers == ("c1", "c2", "c3")
    expected = {("c1", "c2"): (100, 20), ("c1", "c3"): (60, 40), ("c2", "c3"): (40, 60)}
    for (one, other), (rate, rtt) in expected.items():
        for edge in ((one, other), (other, one)):
            assert view.rate[edge] == rate * 1e6
            assert view.delay[edge] == pytest.approx(rtt / 2000)
    assert len(view.rate) == 6


def test_netstorm_static_is_the_published_table():
    view = build("netstorm9_static").view()
    assert view.rate == {
        (f"c{source}", f"c{target}"): rate * 1e6
        for source, targets in NETSTORM_STATIC.items()
        for target, rate in targets.items()
    }


@pytest.mark.parametrize("name", ["netstorm9_static", "netstorm9_draw", "netstorm9_dynamic"])
def test_netstorm_has_thirteen_pairs(name):
    edges = set(build(name).edges)
    assert edges == {(f"c{a}", f"c{b}") for p in NETSTORM_PAIRS for a, b in (p, p[::-1])}


def test_netstorm_draws_lie_between_20_and_155():
    rates = [link.rate for seed in range(20) for link in build("netstorm9_draw", seed).links]
    assert min(rates) >= 20e6
    assert max(rates) <= 155e6
    assert sum(rates) / len(rates) == pytest.approx(87.5e6, rel=0.06)


def test_aws10_is_directed():
    wan = build("aws10_2022")
    rate, delay = wan.view().rate, wan.view().delay
    assert len(rate) == 90
    assert (rate["ohio", "ireland"], rate["ireland", "ohio"]) == (447e6, 1140e6)
    assert (rate["virginia", "frankfurt"], rate["frankfurt", "virginia"]) == (521e6, 1020e6)
    assert delay["tokyo", "sydney"] == pytest.approx(0.057)
    assert delay["sydney", "tokyo"] == pytest.approx(0.050)
    sent = {name: sum(r for (a, _), r in rate.items() if a == name) for name in wan.center_names}
    assert (sent["oregon"], sent["ireland"]) == (6610e6, 6478e6)


def test_halos_has_the_published_rates_and_a_fast_lan():
    wan = build("halos4_2025")
    rates = {(a, b): r / 1e6 for (a, b), r in wan.view().rate.items() if a < b}
    assert list(rates.values()) == [537, 935, 202, 386, 117, 127]
    assert {center.lan_rate for center in wan.centers} == {100e9}


def test_gc4_streams_are_bound_by_one_window():
    wan = build("gc4_2024")
    windows = [link.rate * 2 * link.delay for link in wan.links]
    assert windows == pytest.approx([80e6 * 0.270] * 12, rel=0.002)
    assert wan.view().rate["us", "eu"] == 210e6


def test_overrides():
    config = load_preset("uniform", centers=5, rate=50, server_center="c3")
    assert (config.centers, config.rate, config.rtt, config.server_center) == (5, 50, 40, "c3")
    merged = load_preset("netstorm9_dynamic", dynamics={"period_s": 60})
    assert merged.dynamics == {"kind": "redraw", "period_s": 60, "low": 20, "high": 155}
    assert load_preset("netstorm9_dynamic", dynamics=None).dynamics is None
    script = [{"kind": "outage", "center": "c1", "at": 5, "duration": 5}]
    assert load_preset("netstorm9_dynamic", dynamics=script).dynamics == script
    shorter = [{"between": ["c1", "c2"], "rate": 5, "rtt": 1}]
    assert load_preset("three_centers", links=shorter).links == shorter


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("centers: [a, b]\nlinks:\n  - {between: [a, b], rate: 5, rtt: 2}\n")
    wan = build(str(path))
    assert (wan.name, wan.edges) == ("mine", (("a", "b"), ("b", "a")))
    assert build(path, bandwidth_scale=2).links[0].rate == 10e6


def test_a_file_may_build_on_a_preset_and_on_a_file_beside_it(tmp_path):
    (tmp_path / "slow.yaml").write_text(
        "defaults: [three_centers, _self_]\nname: slow\nbandwidth_scale: 0.1\n"
    )
    (tmp_path / "slower.yaml").write_text("defaults: [_self_, slow]\nbandwidth_scale: 0.5\n")
    assert load_preset(tmp_path / "slow.yaml").bandwidth_scale == 0.1
    assert load_preset(tmp_path / "slow.yaml").centers == ["c1", "c2", "c3"]
    assert load_preset(tmp_path / "slower.yaml").bandwidth_scale == 0.1  # the later entry wins


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("centers: [a\n", "wan", "no valid YAML"),
        ("- a\n- b\n", "wan", "mapping of WAN keys"),
        ("centres: [a]\n", "wan.centres", "did you mean 'centers'"),
        ("defaults: [broken]\n", "wan.defaults", "builds on itself"),
        ("defaults: [base_wam]\n", "wan", "no such WAN"),
        ("defaults: 3\n", "wan.defaults", "list of WAN names"),
        ("centers: ${missing}\n", "wan", "no valid YAML"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, key, words):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as raised:
        load_preset(path)
    assert raised.value.key == key


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("netstorm9_dynamics", "did you mean 'netstorm9_dynamic'"),
        ("nowhere.yaml", "no such file"),
        ("../wan/uniform", "no such WAN"),
    ],
)
def test_an_unknown_wan_is_refused(name, words):
    with pytest.raises(ConfigError, match=words):
        load_preset(name)


def test_an_unknown_override_is_refused():
    with pytest.raises(ConfigError, match="did you mean 'rate'") as raised:
        load_preset("uniform", rates=3)
    assert raised.value.key == "wan.rates"


def test_an_installation_without_presets_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(wan_presets, "PRESETS", tmp_path / "conf" / "wan")
    with pytest.raises(ConfigError, match="source checkout"):
        load_preset("uniform")


def test_arguments_of_a_command_line():
    wan, lan, seed = parse_arguments(
        ["wan=uniform", "wan.centers=4", "wan.draw={low: 1, high: 2}", "lan.rate=500", "seed=3"]
    )
    assert (wan.centers, wan.draw, lan.rate, seed) == (4, {"low": 1, "high": 2}, 500, 3)
    assert build_wan(wan, lan, seed).center_names == ("c1", "c2", "c3", "c4")
    assert (
        parse_arguments(["wan=netstorm9_dynamic", "wan.dynamics.period_s=9"])[0].dynamics[
            "period_s"
        ]
        == 9
    )


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ([], "wan"),
        (["wan="], "wan"),
        (["three_centers"], "three_centers"),
        (["wan=uniform", "lan.works=2"], "lan.works"),
        (["wan=uniform", "lam.rate=2"], "lam.rate"),
        (["wan=uniform", "wan.rates=2"], "wan.rates"),
        (["wan=uniform", "wan.draw={low"], "wan.draw={low"),
    ],
)
def test_wrong_arguments_are_refused(arguments, key):
    with pytest.raises(ConfigError) as raised:
        parse_arguments(arguments)
    assert raised.value.key == key
