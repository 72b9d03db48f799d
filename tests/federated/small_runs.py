"""Two centers of a few devices each that train a small model federatedly, and the twin's view."""

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import twin
from simulated_runs import simulated, small_config

from geojax.assemble.clients import chooser
from geojax.assemble.fleets import build_fleet, has_devices
from geojax.data.dataset import load_dataset
from geojax.federated import build as federated
from geojax.federated.clients import Clients
from geojax.sync.registry import build_sync
from testbed.run import prepare

ROUNDS = 3
CNN = {"model__name": "cnn_batchnorm", "lr": 0.05}


class Row(NamedTuple):
    """One algorithm.

    Attributes:
      keys: its own, under ``sync``.
      settings: others of the run.
      twin: keys of the twin that have other names, or are not under ``sync``.
    """

    name: str
    keys: Mapping = MappingProxyType({})
    settings: Mapping = MappingProxyType({})
    twin: Mapping = MappingProxyType({})


ROWS = {
    "fedavg": Row("fedavg"),
    "fedprox": Row("fedprox", {"mu": 0.5}),
    "fedmmd": Row("fedmmd", {"lam": 0.1}),
    "fedfusion conv": Row("fedfusion", {"operator": "conv"}, CNN),
    "fedfusion multi": Row("fedfusion", {"operator": "multi"}, CNN),
    "fedfusion single": Row("fedfusion", {"operator": "single"}, CNN),
    "ida": Row("ida", {"factor": "none"}),
    "ida fedavg": Row("ida", {"factor": "fedavg"}),
    "ida intrac": Row("ida", {"factor": "intrac"}),
    "fedavgm": Row("fedavgm", {"beta": 0.9, "server_lr": 0.5}),
    "fedadagrad": Row("fedadagrad", {"server_lr": 0.1, "b1": 0.0, "eps": 0.01}),
    "fedadam": Row("fedadam", {"server_lr": 0.02, "b1": 0.9, "b2": 0.99, "eps": 0.001}),
    "fedyogi": Row("fedyogi", {"server_lr": 0.02, "b1": 0.9, "b2": 0.99, "eps": 0.001}),
    "scaffold": Row("scaffold"),
    "fednova": Row("fednova"),
    "fednova, momentum": Row(
        "fednova", {}, {"optimizer__momentum": 0.5, "lr": 0.05}, {"momentum": 0.5}
    ),
    "feddyn": Row("feddyn", {"alpha": 0.1}),
    "moon": Row("moon", {"mu": 5.0, "temperature": 0.5}),
}


def config(name, *, rounds=ROUNDS, keys=None, **settings):
    """A run of so many federated rounds; devices differ in classes, sizes and steps."""
    training = {
        "wan__generator": "uniform", "wan__centers": 2, "wan__links": [], "wan__rate": 50.0,
        "wan__rtt": 30.0, "model__name": "mlp", "data__name": "digits", "batch_size": 8,
        "data__train_samples": 150, "lr": 0.1, "eval_every_s": 0.2,
        "overlay__chunk_elements": 700, "devices__count": 3, "device_partition__name": "dirichlet",
        "device_partition__alpha": 1.0, "device_partition__min_samples": 9,
        "sync__name": name, "sync__epochs": 2,
    }  # fmt: skip
    if settings.get("model__name", "mlp") == "mlp":
        training["model__hidden"] = [12]
    if settings.get("devices__count") == 0:
        training = {k: v for k, v in training.items() if not k.startswith("device")}
    own = {f"sync__{key}": value for key, value in (keys or {}).items()}
    made = small_config(**{**training, **own, **settings})
    made.rounds = rounds * build_sync(made.sync).exchanges
    return made


def config_of(row, **settings):
    return config(row.name, keys=row.keys, **{**row.settings, **settings})


@functools.cache
def engine(key):
    return simulated(config_of(ROWS[key]))


class Client(NamedTuple):
    """A client as the twin sees it."""

    part: np.ndarray
    own: Clients
    number: int

    def batches(self, number):
        return self.own.batches(self.number, number)


def twin_vector(run, name, *, rounds=ROUNDS, **keys):
    """What the twin's run ends with, laid out as the engine's vector; extras it has not: 0."""
    rule = build_sync(run.sync).client
    clients, choosers, first = [], [], [0]
    with tempfile.TemporaryDirectory() as folder:
        setup, _, _ = prepare(run, Path(folder))
    for index, worker in enumerate(setup.cluster.trainers):
        fleet = build_fleet(setup, worker) if has_devices(run) else None
        parts = [setup.part(worker)] if fleet is None else fleet.parts
        choosers.append(
            (lambda _: np.array([0])) if fleet is None else chooser(setup, worker, fleet)
        )
        own = Clients(
            parts, batch_size=run.batch_size, epochs=rule.epochs, seed=run.seed,
            worker_index=index,
        )  # fmt: skip
        clients += [Client(part, own, number) for number, part in enumerate(parts)]
        first.append(len(clients))

    def chosen(number):
        return [
            start + int(k)
            for start, choose in zip(first, choosers, strict=False)
            for k in choose(number)
        ]

    model = federated.build_model(run, rule)
    w = named(model, model.initial(run.seed))
    data = load_dataset(run.data)
    end = twin.train(name, w, clients, data, rounds=rounds, lr=run.lr, chosen=chosen, **keys)
    return vector_of(model, end)


def named(model, vector):
    """The arrays that the twin trains; trained extras are ``fusion/…``."""
    layers = model.spec.split(vector)
    trained = {f"federated/{extra.name}" for extra in model.extras if extra.trained}
    return {
        name.replace("federated/", "fusion/"): array
        for name, array in layers.items()
        if not name.startswith("federated/") or name in trained
    }


def vector_of(model, arrays):
    return np.concatenate([np.asarray(value).ravel() for value in arrays.values()])


def compared(run, vector):
    """Of an engine's vector what the twin has."""
    model = federated.build_model(run, build_sync(run.sync).client)
    return vector_of(model, named(model, vector))


def distance(a, b):
    assert np.linalg.norm(b) > 0
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
