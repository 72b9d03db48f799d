"""The experiments on FedGS and its rivals: every row is valid, and they differ in what they say."""

from __future__ import annotations

from omegaconf import OmegaConf

from experiments.bench import selection as bench
from experiments.runs.choices import CONF
from geojax.federated.registry import FEDERATED
from geojax.sync.registry import build_sync
from testbed.run import check


def swept(name):
    params = OmegaConf.load(CONF / "experiment" / f"{name}.yaml").hydra.sweeper.params
    return {key: str(values).split(",") for key, values in params.items()}


def test_the_table_has_every_federated_algorithm_and_fedgs(composed):
    rows = [
        composed("experiment=fedgs_table", f"variant/fedgs_table={row}")
        for row in swept("fedgs_table")["variant/fedgs_table"]
    ]
    assert {row.sync.name for row in rows} == {*FEDERATED, "fedgs"}
    assert [row.experiment for row in rows] == swept("fedgs_table")["variant/fedgs_table"]
    for row in rows:
        check(row)
        assert (row.selection.name == "gbp_cs") == (row.experiment == "fedgs")
        assert row.selection.devices == 5
        assert row.devices.count == 20
        assert row.rounds / build_sync(row.sync).exchanges == 60  # federated rounds, IDA's too


def test_the_table_goes_over_mnists_writers(composed):
    words = ("experiment=fedgs_table", "variant/fedgs_dealing=mnist_writers", "data=mnist")
    for row in ("fedgs", "fedgs_random", "fedavg"):
        config = composed(*words, f"variant/fedgs_table={row}", "data.writers=some_file")
        assert (config.data.name, config.data.writers) == ("mnist", "some_file")
        assert (config.partition.name, config.device_partition.name) == ("by_writer", "by_writer")
        assert (config.experiment, config.devices.count) == (row, None)
        assert (config.selection.devices, config.rounds) == (5, 60)
        check(config)


def test_the_exact_swap_has_the_restarts_that_the_bench_measures(composed):
    preset = composed("experiment=fedgs_ablation", "selection=exact_swap").selection
    row = bench.ROWS["exact swap, 2 restarts"]
    assert (preset.name, preset.swap, preset.restarts) == tuple(row.values())


def test_the_ablation_takes_the_same_number_of_steps_in_every_row(composed):
    params = swept("fedgs_ablation")
    for steps in params["variant/fedgs_steps"]:
        row = composed("experiment=fedgs_ablation", f"variant/fedgs_steps={steps}")
        assert row.rounds * row.sync.local_steps == 500
        check(row)
    for skew in params["variant/fedgs_skew"]:
        row = composed("experiment=fedgs_ablation", f"variant/fedgs_skew={skew}")
        assert row.experiment == skew
        check(row)
    chosen = [
        composed("experiment=fedgs_ablation", f"selection={selection}").selection
        for selection in params["selection"]
    ]
    assert {selection.devices for selection in chosen} == {5}
    assert len({repr(selection) for selection in chosen}) == len(chosen)


def test_the_selections_are_compared_on_every_skew(composed):
    for key, choices in swept("fedgs_selection").items():
        for choice in choices:
            row = composed("experiment=fedgs_selection", f"{key}={choice}")
            check(row)
            assert (row.selection.devices, row.devices.count) == (10, 36)
