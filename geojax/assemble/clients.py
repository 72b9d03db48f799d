"""The clients of a worker under a federated algorithm: its devices, or the worker itself."""

from __future__ import annotations

import functools

import numpy as np

from geojax.assemble.fleets import build_fleet, device_counts, has_devices, target_shares
from geojax.assemble.setup import Setup
from geojax.center.trainer import Trainer
from geojax.devices.fleet import Fleet
from geojax.devices.links import InternalLinks
from geojax.federated import build as federated
from geojax.federated.clients import Choose, Usual
from geojax.selection.choice import Choice, choose, draws_for
from geojax.selection.registry import build_selection
from geojax.selection.target import as_batches
from geojax.sync.client import ClientRule


def client_trainer(setup: Setup, name: str, rule: ClientRule) -> Trainer:
    """The trainer of worker ``name``.

    Raises:
      ConfigError: a setting is wrong.
      DataError: a device has too few samples.
    """
    config = setup.config
    index = setup.cluster.trainers.index(name)
    if not has_devices(config):
        return federated.build_trainer(
            config, rule, data=setup.client_data, parts=[setup.part(name)], worker_index=index,
            usual=usual_of(setup),
        )  # fmt: skip
    fleet = build_fleet(setup, name)
    return federated.build_trainer(
        config, rule, data=setup.client_data, parts=fleet.parts, worker_index=index,
        choose=chooser(setup, name, fleet),
        links=InternalLinks(config.devices.rate, config.devices.rtt), usual=usual_of(setup),
    )  # fmt: skip


def usual_of(setup: Setup) -> Usual:
    """What workers have on average."""
    workers, samples = setup.cluster.trainers, setup.train_samples()
    if not has_devices(setup.config):
        return Usual(1.0, samples / len(workers))
    counts, selection = device_counts(setup).values(), build_selection(setup.config.selection)
    chosen = sum(map(selection.wanted, counts)) / len(workers)
    return Usual(chosen, samples / sum(counts))


def chooser(setup: Setup, name: str, fleet: Fleet) -> Choose:
    """Which devices of a base station take part in a round: the run's selection.

    One that goes by class counts sees those of all data of a device, as a batch of n samples: in a
    round a device goes through all of it.
    """
    config = setup.config
    selection = build_selection(config.selection)
    target = target_shares(setup, selection)
    index, size = setup.cluster.trainers.index(name), selection.wanted(fleet.count)
    counts = np.zeros((fleet.count, 0), np.float32)
    if selection.needs_counts:
        counts = as_batches(fleet.class_counts(), config.batch_size)

    @functools.lru_cache(maxsize=2)
    def chosen(number: int) -> np.ndarray:
        draws = draws_for(selection, config.seed, index, number, 0)
        choice = Choice(counts, target, size, config.batch_size, draws)
        return choose(selection, choice, name)

    return chosen
