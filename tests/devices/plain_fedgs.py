"""FedGS as loops that are too simple to be wrong: the twin of runs over fleets, for tests.

No code of the library but the data, how it is dealt, its random streams and the start.
"""

import jax
import jax.numpy as jnp
import numpy as np
from simulated_runs import small_config

from geojax.center.trainer import build_spec, initial_vector
from geojax.data.dataset import load_dataset
from geojax.data.dealing import deal_devices, partition
from geojax.data.streams import stream

CENTERS = ("c1", "c2", "c3")
ONE = {"wan": "single_center"}


def config(**settings):
    """Five devices behind each of three centers, whose classes differ much."""
    training = {
        "model__name": "mlp", "data__name": "digits", "rounds": 3, "batch_size": 8, "lr": 0.1,
        "eval_every_s": 100.0, "overlay__chunk_elements": 1000, "devices__count": 5,
        "device_partition": "dirichlet", "device_partition__alpha": 0.5, "sync": "fedgs",
        "sync__local_steps": 3, "selection": "random", "selection__devices": 3,
    }  # fmt: skip
    return small_config(**{**training, **settings})


EVERYONE = {
    "selection": "everyone", "selection__devices": None, "device_partition": "by_class",
    "device_partition__alpha": None, "partition": "by_class", "data__train_samples": 1200,
}  # fmt: skip
WORKERS = {
    **EVERYONE, "devices__count": 0, "device_partition": "iid", "sync__local_steps": None,
}  # fmt: skip


def as_workers(count, **settings):
    """The devices of :func:`as_fleet` as workers on the LAN of their center."""
    return config(workers=count, **{**WORKERS, **settings})


def as_fleet(count, **settings):
    """Everyone takes part, and each device makes its own gradient; ordered data is dealt alike."""
    return config(devices__count=count, devices__gradient="each", **{**EVERYONE, **settings})


def distance(a, b):
    assert np.linalg.norm(b) > 0
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


class Device:
    """Full batches without end; what is left of an epoch comes first in the next one."""

    def __init__(self, positions, number, config):
        self.positions, self.number, self.config = positions, number, config
        self.left, self.epoch = [], 0

    def batch(self):
        while len(self.left) < self.config.batch_size:
            draws = stream("batches", self.config.seed, self.number, self.epoch)
            self.left += list(self.positions[draws.permutation(len(self.positions))])
            self.epoch += 1
        taken = self.left[: self.config.batch_size]
        self.left = self.left[self.config.batch_size :]
        return taken


def fleets(config, centers=CENTERS):
    data = load_dataset(config.data)
    parts = partition(config.partition, data.train_y, centers, config.seed)
    made, number = [], 0
    for index, mine in enumerate(parts.values()):
        dealt = deal_devices(
            config.device_partition, mine, data.train_y, None, config.devices.count, config.seed,
            worker=index,
        )  # fmt: skip
        made.append([Device(part, number + k, config) for k, part in enumerate(dealt)])
        number += len(dealt)
    return made


def picked(config, center, number, step):
    """What ``selection=random`` chooses."""
    draws = stream("selection", config.seed, center, number, step)
    return sorted(draws.choice(config.devices.count, config.selection.devices, replace=False))


def named(config, vector):
    layers = build_spec(config).layers
    return {layer.name: vector[layer.offset : layer.stop].reshape(layer.shape) for layer in layers}


def gradient_of(config):
    """Function from parameters and positions to the gradient of the mean loss, a vector."""
    data, layers = load_dataset(config.data), build_spec(config).layers

    def loss(arrays, images, labels):
        flat = images.reshape(len(images), -1)
        hidden = jax.nn.relu(flat @ arrays["Dense_0/kernel"] + arrays["Dense_0/bias"])
        logits = hidden @ arrays["Dense_1/kernel"] + arrays["Dense_1/bias"]
        return -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels].mean()

    differentiate = jax.jit(jax.grad(loss))

    def gradient(vector, positions):
        positions = np.asarray(positions)
        found = differentiate(
            named(config, vector), data.train_x[positions], data.train_y[positions]
        )
        return np.concatenate([np.asarray(found[layer.name]).ravel() for layer in layers])

    return gradient


def plain_fedgs(config, steps, centers=CENTERS, *, each=False):
    """The parameters after all rounds; ``each``: every device makes its own model of the step."""
    gradient, groups = gradient_of(config), fleets(config, centers)
    vector, rate = initial_vector(config), np.float32(config.lr)
    for number in range(config.rounds):
        made = []
        for center, devices in enumerate(groups):
            own = vector
            for step in range(steps):
                batches = [devices[k].batch() for k in picked(config, center, number, step)]
                if each:
                    models = [own - rate * gradient(own, batch) for batch in batches]
                    own = sum(models) / np.float32(len(models))
                else:
                    own = own - rate * gradient(own, np.concatenate(batches))
            made.append(own)
        vector = sum(made) / np.float32(len(made))
    return vector
