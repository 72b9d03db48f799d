"""Bad configurations are refused before any process starts: the key, the value and the fix."""

import numpy as np
import pytest
from simulated_runs import small_config

from geojax.assemble.agreement import wan_codec
from geojax.center.spec import VectorSpec
from geojax.config import RunConfig, WanConfig
from geojax.errors import ConfigError
from geojax.overlay.base import OVERLAYS, Overlay
from geojax.overlay.policy.policy import Policy, Tree
from testbed.run import check

CODECS = ("bisparse", "mpq")
NAN = float("nan")


def refused(**settings):
    """The error of a configuration of three centers with these settings."""
    with pytest.raises(ConfigError) as caught:
        check(small_config(**settings))
    return caught.value


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        *(("ratio", value, "more than 0, at most 1") for value in (0.0, -0.1, 1.01, NAN)),
        ("bound", -1, "at least 0"),
        *(("momentum", value, "at least 0, less than 1") for value in (1.0, -0.1, NAN)),
    ],
)
def test_numbers_of_sparse_codecs(codec, key, value, says):
    error = refused(compression__name=codec, **{f"compression__{key}": value})
    assert error.key == f"compression.{key}"
    assert says in error.fix


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        *(("k", value, "more than 0, at most 1") for value in (0.0, -0.5, 1.5, NAN)),
        *(("k_min", value, "at most k") for value in (0.0, NAN)),
        ("k_min", 0.9, "compression.k = 0.8"),
        *(("alpha", value, "at least 0, less than 1") for value in (-0.1, 1.0, NAN)),
        *(("block_bytes", value, "multiple of 4") for value in (0, 66, 1 << 20)),
    ],
)
def test_numbers_of_dgt(key, value, says):
    error = refused(compression__name="dgt", **{f"compression__{key}": value})
    assert error.key == f"compression.{key}"
    assert says in error.fix


@pytest.mark.parametrize("value", [0.0, -1.0, NAN, float("inf")])
def test_the_threshold_of_twobit(value):
    error = refused(compression__name="twobit", compression__threshold=value)
    assert error.key == "compression.threshold"
    assert error.fix.startswith("give a finite number: more than 0")


@pytest.mark.parametrize(
    ("settings", "key", "says"),
    [
        ({"sync__name": "mixed_sync", "sync__staleness": -1}, "sync.staleness", "at least 0"),
        ({"sync__name": "mixed_sync", "sync__lam": 0.1}, "sync.lam", "sync.compensation"),
        (
            {"sync__name": "mixed_sync", "sync__compensation": "constant", "sync__lam": -1.0},
            "sync.lam", "at least 0",
        ),
        ({"sync__lan_rounds": 2}, "sync.lan_rounds", "read by sync=hfa or hierfavg"),
        ({"sync__name": "hfa", "sync__lan_rounds": 0}, "sync.lan_rounds", "at least 1"),
        ({"overlay__servers": 2}, "overlay.servers", "does not read it; it reads: root"),
        (
            {"overlay__name": "multigps", "overlay__servers": 4},
            "overlay.servers", "there are 3 centers",
        ),
        ({"overlay__chunk_elements": 0}, "overlay.chunk_elements", "at least 1"),
        ({"max_time_s": -5.0}, "max_time_s", "more than 0"),
        ({"seed": 2**32}, "seed", "less than 4294967296"),
        ({"rounds": True}, "rounds", "a whole number"),
        (
            {"rounds": 1 << 20, "sync__name": "hfa", "sync__lan_rounds": 1 << 12},
            "rounds", "with up to 4096 exchanges within a center in each",
        ),
        ({"wan__external": {"rate": 9}}, "wan.external", "wan.server_center=external"),
        ({"overlay__probe_after": -1}, "overlay.probe_after", "0: never"),
        ({"overlay__probe_after": 1.5}, "overlay.probe_after", "a whole number"),
        ({"overlay__probe_share": 1.0}, "overlay.probe_share", "less than 1"),
        ({"overlay__probe_share": NAN}, "overlay.probe_share", "at least 0"),
        (
            {"overlay__awareness": "measured", "sync__name": "mixed_sync"},
            "overlay.awareness", "use oracle, or a synchronous algorithm",
        ),
    ],
)  # fmt: skip
def test_numbers_and_keys_that_need_others(settings, key, says):
    error = refused(**settings)
    assert error.key == key
    assert says in error.fix


@pytest.mark.parametrize(
    ("settings", "near"),
    [
        ({"compression__name": "bisparce"}, "bisparse"),
        ({"overlay__awareness": "mesured"}, "measured"),
        ({"compression__name": "fp16", "compression__overflow": "saturated"}, "saturate"),
        ({"compression__name": "dgt", "compression__channel": "udpp"}, "udp"),
        ({"compression__name": "dgt", "compression__tail": "4bits"}, "4bit"),
        (
            {"compression__name": "dgt", "compression__channel": "udp", "compression__lost": "lst"},
            "last",
        ),
        ({"compression__lan": "fp61"}, "fp16"),
        ({"sync__name": "mixed"}, "mixed_sync"),
        ({"sync__name": "mixed_sync", "sync__compensation": "adaptiv"}, "adaptive"),
        ({"overlay__name": "stars"}, "star"),
        ({"overlay__root": "c33"}, "c3"),
        ({"overlay__name": "multigps", "overlay__servers": ["c1", "cc2"]}, "c2"),
        (
            {"overlay__name": "multigps", "overlay__servers": 2, "overlay__placement": "byte"},
            "bytes",
        ),
        ({"selection__name": "everybody"}, "everyone"),
        ({"model__name": "synthetics"}, "synthetic"),
        ({"model__name": "mlp", "partition__name": "dirichlett"}, "dirichlet"),
        ({"model__name": "mlp", "data__name": "digit"}, "digits"),
        ({"optimizer__name": "sdg"}, "sgd"),
        ({"outer_optimizer__name": "adan"}, "adam"),
        ({"testbed__name": "simulate"}, "simulated"),
        ({"nonfinite": "stopp"}, "stop"),
        ({"events": "rounds"}, "round"),
        ({"pace__centers": {"c11": 2.0}}, "c1"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_refused_with_the_nearest_valid_one(settings, near):
    error = refused(**settings)
    assert f"did you mean {near!r}?" in error.fix


@pytest.mark.parametrize(
    ("key", "reads", "readers"),
    [
        ("compression.ratio", "name, lan", "compression=bisparse or mpq or topk2bit"),
        ("sync.staleness", "name, p3", "sync=mixed_sync"),
        ("overlay.placement", "root, name, chunk_elements", "overlay=multigps"),
        ("wan.degree", "name, generator", "wan.generator=random_geometric or random_sparse"),
    ],
)
def test_a_key_that_the_member_does_not_read_is_refused_with_those_that_it_reads(
    key, reads, readers
):
    error = refused(**{key.replace(".", "__"): 1})
    assert (error.key, error.value) == (key, 1)
    assert f"does not read it; it reads: {reads}" in error.fix
    assert error.fix.endswith(f"read by {readers}")


def test_settings_of_a_group_have_no_other_keys():
    with pytest.raises(AttributeError, match="OverlayConfig has no key 'roots'; it has: name"):
        RunConfig().overlay.roots = 3


def test_late_blocks_do_not_go_with_a_server_exchange():
    error = refused(compression__name="dgt", sync__name="mixed_sync")
    assert error.key == "compression.name"
    assert "sync=mixed_sync" in error.fix
    check(small_config(compression__name="dgt"))
    check(small_config(sync__name="mixed_sync"))


@pytest.mark.parametrize(("policy", "most"), [("uniform", 2), ("vanilla", 3)])
def test_tifl_chooses_no_more_centers_than_a_tier_has(policy, most):
    settings = {"sync__name": "tifl", "sync__policy": policy}
    error = refused(**settings, sync__clients=most + 1)
    assert (error.key, error.value) == ("sync.clients", most + 1)
    assert f"3 centers{' in 2 tiers' if most == 2 else ''}, so at most {most}" in error.fix
    check(small_config(**settings, sync__clients=most))


@pytest.mark.parametrize(
    "overlay", ["netstorm", "mlnet", "tsengine", "packing", "ring", "butterfly"]
)
def test_global_servers_go_with_overlays_that_are_stars_on_every_wan(overlay):
    """On three centers some of the others are one by chance: a run under their name is none."""
    error = refused(sync__name="ssp", overlay__name=overlay)
    assert (error.key, error.value) == ("overlay.name", overlay)
    for served in ({"name": "star"}, {"name": "sharded_star"}, {"name": "multigps", "servers": 2}):
        settings = {f"overlay__{key}": value for key, value in served.items()}
        check(small_config(sync__name="ssp", **settings))


def test_a_grace_ends_before_centers_give_up_waiting():
    settings = {"sync__name": "quorum", "sync__quorum": 2, "timeouts__round": 60.0}
    error = refused(**settings, sync__grace_s=60.0)
    assert (error.key, error.value) == ("sync.grace_s", 60.0)
    assert "timeouts.round = 60" in error.fix
    check(small_config(**settings, sync__grace_s=59.0))


def test_the_configuration_that_everything_defaults_to_is_valid():
    config = RunConfig()
    config.wan = WanConfig(generator="uniform", centers=2, rate=10.0, rtt=10.0)
    check(config)


STAR = Tree("c1", {"c2": "c1", "c3": "c1"})
PLANS = [  # members and trees of a plan for c1, c2, c3, and what is said of it
    (("c1", "c2", "c3"), (), "has other members, or no tree;"),
    (("c1", "c2"), (STAR,), "has other members, or no tree;"),
    (("c1", "c2", "c3"), (Tree("c1", {"c2": "c3", "c3": "c2"}),), "does not connect c2, c3;"),
    (("c1", "c2", "c3"), (Tree("c1", {"c2": "c1"}),), "a tree to c1 that does not connect c3;"),
    (("c1", "c2", "c3"), (STAR, Tree("c2", {"c1": "c2", "c3": "c2", "c2": "c1"}),), "tree to c2"),
    (("c1", "c2", "c3"), (Tree("c1", STAR.parent, down={"c2": "c1", "c3": "c9"}),), "connect c3;"),
    (("c1", "c2", "c3"), (Tree("c1", {**STAR.parent, "c9": "c1"}),), "not connect centers"),
]  # fmt: skip


@pytest.mark.parametrize(("members", "trees", "says"), PLANS)
def test_a_plan_of_an_own_overlay_along_which_no_round_could_end(monkeypatch, members, trees, says):
    overlay = Overlay("own", lambda view, those, sizes, version: Policy(version, members, trees))
    monkeypatch.setitem(OVERLAYS._members, "own", lambda *_: overlay)
    error = refused(overlay__name="own")
    assert error.key == "overlay.name"
    assert error.fix.startswith("its plan for c1, c2, c3 has ")
    assert says in error.fix


@pytest.mark.parametrize(
    ("usual", "odd", "names", "fix"),
    [
        pytest.param(
            {"overlay__name": "packing"}, {"overlay__auxiliary": "fastest"},
            "overlay.auxiliary = fastest", "use none", id="auxiliary routes beside packing",
        ),
        pytest.param(
            {"sync__name": "dc_aha"}, {"optimizer__name": "adamw"},
            "optimizer = adamw", "use optimizer=sgd", id="deltas that count as gradients",
        ),
    ],
)  # fmt: skip
def test_what_runs_and_does_not_help_is_warned_of(usual, odd, names, fix, caplog):
    check(small_config(**usual))
    assert not caplog.records
    check(small_config(**usual, **odd))
    assert names in caplog.text
    assert fix in caplog.text


@pytest.mark.parametrize("codec", ["bisparse", "mpq"])
def test_the_run_s_seed_reaches_what_a_codec_draws(codec):
    """Thresholds are drawn from samples; other seeds sample other elements."""
    spec = VectorSpec.of([("w", (400_000,))])
    vector = np.random.default_rng(0).normal(size=spec.size).astype(np.float32)

    def sent(seed):
        made = wan_codec(small_config(seed=seed, compression__name=codec), spec.size)
        payloads, _ = made.encode(vector, made.init(spec.layers, spec.chunks(spec.size)))
        return payloads[0].tobytes()

    assert sent(1) == sent(1)
    assert sent(1) != sent(2)
