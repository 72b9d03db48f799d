"""The fleets of a run: which devices stand behind which worker, and what they cannot go with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from geojax.assemble.setup import Setup
from geojax.config import DevicesConfig, RunConfig
from geojax.data.dataset import has_labels
from geojax.data.dealing import deal_devices
from geojax.devices.execution import steps_together
from geojax.devices.fleet import Fleet
from geojax.devices.super_node import SuperNode
from geojax.devices.trainer import FleetTrainer, build_fleet_trainer, check_split
from geojax.errors import ConfigError, nearest
from geojax.hips.cluster import Cluster
from geojax.models.registry import SYNTHETIC
from geojax.selection.choice import Selection
from geojax.selection.registry import build_selection
from geojax.selection.target import target_of
from geojax.sync.algorithm import SyncAlgorithm
from geojax.sync.registry import build_sync


def has_devices(config: RunConfig) -> bool:
    """Whether workers are base stations of devices."""
    return config.devices.count != 0


def check_devices(config: RunConfig, cluster: Cluster, algorithm: SyncAlgorithm) -> None:
    """Finds what is wrong with the devices of a run, without its data.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    selection = build_selection(config.selection)
    if not has_devices(config):
        _check_none(config, algorithm, selection)
        return
    counts = _check_counts(config.devices, cluster)
    fix = "devices.count puts devices behind each center"
    if any(cluster.workers(center) for center in cluster.servers):
        raise ConfigError(
            "lan.workers", config.lan.workers,
            f"{fix}, which is their base station; use lan.workers=1, or devices.count=0",
        )  # fmt: skip
    if config.model.name == SYNTHETIC:
        raise ConfigError(
            "model.name", SYNTHETIC,
            f"{fix}, and this model trains on no data; use model=mlp, or devices.count=0",
        )  # fmt: skip
    if config.sync.p3:
        raise ConfigError(
            "sync.p3", True, f"{fix}, and a super node trains in one piece; use sync.p3=false"
        )
    if config.pace.grid_s is not None:
        raise ConfigError(
            "pace.grid_s", config.pace.grid_s,
            f"{fix}, whose transfers end between the grid's points; leave it out",
        )  # fmt: skip
    if algorithm.client is not None and config.devices.gradient != DevicesConfig().gradient:
        raise ConfigError(
            "devices.gradient", config.devices.gradient,
            f"clients of sync={config.sync.name} step each for itself; leave it out",
        )  # fmt: skip
    if algorithm.proximal and config.devices.gradient == "each":
        raise ConfigError(
            "devices.gradient", "each",
            f"sync={algorithm.name} has a proximal term, which is added to the gradient of a whole "
            "batch; use devices.gradient=union",
        )  # fmt: skip
    if algorithm.execution == "scan" and config.devices.gradient == "each":
        raise ConfigError(
            "sync.execution", "scan",
            "devices.gradient=each sums gradients on the host after every step; use "
            "sync.execution=loop, or devices.gradient=union",
        )  # fmt: skip
    for center, count in counts.items():
        check_choosable(selection, count, center)
        if algorithm.client is None:
            check_split(config, selection.wanted(count), config.testbed.devices)


def check_choosable(selection: Selection, count: int, center: str) -> None:
    """Refuses a selection of more devices than a center has."""
    if selection.wanted(count) > count:
        fix = (
            f"{center} has {count} devices; use from 1 to {count}, or more devices for it "
            "(devices.count)"
        )
        raise ConfigError("selection.devices", selection.wanted(count), fix)


def _check_none(config: RunConfig, algorithm: SyncAlgorithm, selection: Selection) -> None:
    """Refuses settings of devices where there are none."""
    fix = "there are no devices; set devices.count, e.g. to 20"
    if algorithm.needs_devices:
        other = f"or use sync=local_steps with sync.local_steps={algorithm.local_steps.steps(0)}"
        raise ConfigError("sync.name", config.sync.name, f"{fix}, {other}")
    if config.selection.name != "everyone":
        raise ConfigError("selection.name", selection.name, f"{fix}, or use everyone")
    if config.device_partition.name != "iid":
        raise ConfigError(
            "device_partition.name", config.device_partition.name, f"{fix}, or use iid"
        )
    for item in fields(DevicesConfig):
        value, default = getattr(config.devices, item.name), item.default
        if item.name != "count" and value != default:
            raise ConfigError(f"devices.{item.name}", value, f"{fix}, or leave it at {default}")


def _check_counts(devices: DevicesConfig, cluster: Cluster) -> dict[str, int]:
    """Devices of every center; empty where the data will say it."""
    given, fix = devices.count, "give a whole number of at least 1 (0: no devices at all)"
    if given is None:
        return {}
    by_center = given if isinstance(given, Mapping) else dict.fromkeys(cluster.servers, given)
    for center, count in by_center.items():
        key = f"devices.count.{center}" if isinstance(given, Mapping) else "devices.count"
        if center not in cluster.servers:
            raise ConfigError("devices.count", center, nearest(str(center), cluster.servers))
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigError(key, count, fix)
    for center in cluster.servers:
        if center not in by_center:
            raise ConfigError("devices.count", dict(by_center), f"says nothing of {center}; {fix}")
    return dict(by_center)


def device_counts(setup: Setup) -> dict[str, int]:
    """Devices behind every worker."""
    given, trainers = setup.config.devices.count, setup.cluster.trainers
    if given is not None:
        return {t: given[t] if isinstance(given, Mapping) else given for t in trainers}
    groups = setup.dataset().train_groups
    parts = setup.parts()
    return {t: 1 if groups is None else len(np.unique(groups[parts[t]])) for t in trainers}


def build_fleet(setup: Setup, name: str) -> Fleet:
    """The devices behind worker ``name``; their samples are positions in the training set.

    Raises:
      ConfigError: ``device_partition`` does not go with the data.
      DataError: too few samples for so many devices.
    """
    config, data = setup.config, setup.dataset()
    trainers, counts = setup.cluster.trainers, device_counts(setup)
    index = trainers.index(name)
    parts = deal_devices(
        config.device_partition, setup.part(name), data.train_y, data.train_groups,
        None if config.devices.count is None else counts[name], config.seed, worker=index,
        batch_size=config.batch_size, name=name,
    )  # fmt: skip
    return Fleet(
        data.train_y, parts, batch_size=config.batch_size, classes=data.classes, seed=config.seed,
        first=sum(counts[earlier] for earlier in trainers[:index]),
    )  # fmt: skip


def check_fleets(setup: Setup) -> None:
    """Finds what is wrong with the devices of a run once its data is there.

    Raises:
      ConfigError: names the key, the value and the fix.
      DataError: a device has too few samples.
    """
    selection = build_selection(setup.config.selection)
    clients = build_sync(setup.config.sync).client
    for name in setup.cluster.trainers:
        fleet = build_fleet(setup, name)
        check_choosable(selection, fleet.count, name)
        if clients is None:
            check_split(setup.config, selection.wanted(fleet.count), setup.config.testbed.devices)
    target_shares(setup, selection)


def fleet_trainer(setup: Setup, name: str, algorithm: SyncAlgorithm) -> FleetTrainer:
    """The trainer of worker ``name``, which is a base station."""
    config, data = setup.config, setup.dataset()
    selection = build_selection(config.selection)
    node = SuperNode(
        build_fleet(setup, name), selection, target_shares(setup, selection), seed=config.seed,
        worker_index=setup.cluster.trainers.index(name),
        round_steps=algorithm.local_steps.steps(0) * algorithm.lan_rounds, name=name,
    )  # fmt: skip
    return build_fleet_trainer(
        config, node, features=data.train_x, labels=data.train_y, reports=selection.needs_counts,
        weight=step_weight(setup, name, algorithm, selection), proximal=algorithm.proximal,
        together=lambda backend: steps_together(config, algorithm, backend),
    )  # fmt: skip


def step_weight(setup: Setup, name: str, algorithm: SyncAlgorithm, selection: Selection) -> float:
    """What an offer counts where workers count by the samples of their steps; 1 on average."""
    if algorithm.weights != "steps":
        return 1.0
    sizes = {each: selection.wanted(count) for each, count in device_counts(setup).items()}
    return sizes[name] * len(sizes) / sum(sizes.values())


def target_shares(setup: Setup, selection: Selection) -> np.ndarray:
    """Class shares of all training data, float64 (F,); empty where targets are no labels."""
    data = setup.dataset()
    if selection.needs_counts:
        faithful = getattr(setup.config.selection, "faithful", False)
        return target_of(data.train_y, data.classes, data.test_y, faithful=faithful)
    if not has_labels(data.train_y):
        return np.zeros(0)
    return np.bincount(data.train_y, minlength=data.classes) / len(data.train_y)
