"""Which centers contribute to a round: as the algorithm says, or as ``center_selection`` does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache

import numpy as np

from geojax.assemble.fleets import has_devices
from geojax.assemble.setup import Setup
from geojax.compression.codec import Codec
from geojax.config import RunConfig
from geojax.errors import ConfigError
from geojax.models.registry import SYNTHETIC
from geojax.selection.choice import CENTER_SELECTIONS, Choice, Selection, choose, draws_for
from geojax.selection.target import as_batches, target_of
from geojax.sync.algorithm import SyncAlgorithm

EVERYONE = "everyone"
_SAMPLES = 1000  # that each center's class shares are stated in

Contributors = Callable[[int], Collection[str]]


def contributors_of(setup: Setup, algorithm: SyncAlgorithm) -> Contributors | None:
    """``round -> centers`` that contribute to it; None: all, always.

    Every process computes it for itself, from the seed and the round alone.
    """
    if setup.config.center_selection.name == EVERYONE:
        return algorithm.contributors
    return setup.shared("contributors", lambda: _selected(setup))


def _selected(setup: Setup) -> Contributors:
    config, centers = setup.config, setup.cluster.servers
    selection = build_center_selection(config)
    counts = np.zeros((len(centers), 1), np.float32)
    target = np.ones(1)
    if selection.needs_counts:
        counts, target = _classes(setup, selection)

    @lru_cache(maxsize=64)
    def contributors(number: int) -> tuple[str, ...]:
        # A base station's devices have its worker's index as their group: centers have the next.
        draws = draws_for(selection, config.seed, len(setup.cluster.trainers), number, 0)
        wanted = selection.wanted(len(centers))
        chosen = choose(selection, Choice(counts, target, wanted, _SAMPLES, draws), "the run")
        return tuple(centers[at] for at in chosen)

    return contributors


def _classes(setup: Setup, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
    """Class counts of each center's data, made comparable, and the class shares of all data."""
    data, cluster = setup.dataset(), setup.cluster
    target = target_of(data.train_y, data.classes, data.test_y, faithful=selection.faithful)
    rows = []
    for center in cluster.servers:
        workers = cluster.workers(center) or (center,)
        labels = data.train_y[np.concatenate([setup.part(name) for name in workers])]
        rows.append(np.bincount(labels, minlength=data.classes))
    return as_batches(np.array(rows), _SAMPLES), target


def build_center_selection(config: RunConfig) -> Selection:
    """The configured selection of centers; wrong settings raise ``ConfigError``."""
    return CENTER_SELECTIONS.build(config.center_selection)


def check_contributors(
    config: RunConfig, algorithm: SyncAlgorithm, codec: Codec, centers: Sequence[str]
) -> None:
    """Refuses what does not go with rounds to which some centers contribute nothing.

    Raises:
      ConfigError: names the key, the value and the fix.
    """
    selection, sync = build_center_selection(config), config.sync.name
    if algorithm.choice is not None and algorithm.choice.held_out:
        without = config.model.name == SYNTHETIC
        if without or has_devices(config):
            has = "model=synthetic has no data" if without else "devices hold their data themselves"
            fix = f"goes by accuracies on held-out samples, and {has}; use sync.policy=uniform"
            raise ConfigError("sync.policy", "adaptive", fix)
    chosen = config.center_selection.name
    if chosen != EVERYONE:
        fix = _unserved(config, algorithm)
        if fix:
            raise ConfigError("center_selection.name", chosen, fix)
        if not 1 <= selection.wanted(len(centers)) <= len(centers):
            count = len(centers)
            fix = (
                f"wan={config.wan.name} has {count} centers; use at most as many, e.g. "
                f"center_selection.devices={count}"
            )
            raise ConfigError("center_selection.devices", selection.devices, fix)
        if selection.needs_counts and config.model.name == SYNTHETIC:
            fix = "goes by classes, and model=synthetic has no data; use center_selection=random"
            raise ConfigError("center_selection.name", chosen, fix)
    if codec.splits and (algorithm.chooses or chosen != EVERYONE):
        who = f"sync={sync}" if chosen == EVERYONE else f"center_selection={chosen}"
        fix = (
            f"late parts stand for what a center does not offer, and with {who} some offer "
            f"nothing; use sync=local_steps center_selection=everyone with it, or "
            f"compression=fp16 with {who}"
        )
        raise ConfigError("compression.name", codec.name, fix)


def _unserved(config: RunConfig, algorithm: SyncAlgorithm) -> str:
    """Why the rounds of this run need everyone's contribution; empty: they do not."""
    sync = config.sync.name
    instead = "; use center_selection=everyone, or sync=local_steps"
    if algorithm.admission.exchange == "server":
        return f"sync={sync} has no common rounds to choose for{instead}"
    if algorithm.chooses:
        return f"sync={sync} chooses centers itself{instead}"
    rule = algorithm.client
    if rule is not None and rule.exchanges > 1:
        return f"sync={sync} needs the same centers in both exchanges of a round; use everyone"
    if rule is not None and rule.every_center:
        return f"sync={sync} counts the clients that take part, of each center alone{instead}"
    if config.sync.p3:
        return "with sync.p3 every center trains in every round; use everyone, or sync.p3=false"
    if algorithm.services:
        return f"sync={sync} times the steps of every center in every round{instead}"
    if algorithm.lan_rounds > 1:
        return f"sync={sync} averages in every center alone between its rounds{instead}"
    if algorithm.fragmentation.fragments > 1 or algorithm.fragmentation.overlap:
        return f"sync={sync} trains on during the exchange in every center{instead}"
    return ""
