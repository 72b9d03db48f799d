"""How fast clients train: ``python -m experiments.bench.federated``.

Rounds of FedAvg by the clients of one base station, on random images of 28 × 28 × 1, by every
execution of :mod:`geojax.federated.training.execution`: client steps (batches) and samples a
second, after compiling, the median of several repetitions that take turns. With ``--devices N``
clients are dealt to so many CPU devices, and the default, or else the first of those asked for, has
a row of one device, too. ``pmap`` needs devices of another kind, so beside it all others have one.

``--executions fleet,loop,scan,vmap --batch-size 320 --samples 3200`` is a round of FedGS of T = 10
steps on union batches of 320: a super node is a client whose batches are the unions. ``fleet`` is
how ``sync=fedgs`` runs it, once with a call of the base station's trainer for each step (``fleet,
loop``) and once with the T steps as one program (``fleet, scan``); ``vmap`` makes one of the whole
round of all centers. Each base station has one device here, which is always chosen.

``--peers plain,fedjax,flower`` measures others beside them on the same work (model, where it
starts, data, batch, clients, epochs), each in a process of its own: FedAvg written down in plain
JAX, FedJAX, and Flower's simulation. "Default ÷ it" is how many times as fast as they our default
execution is, repetition by repetition; "deviation" how far their first round ends from ours, as a
share of the way it went: they shuffle otherwise. ``--peer-python fedjax=PATH`` is a Python that has
a peer's packages, if this one does not.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np
from rich.table import Table

from experiments.bench import report
from experiments.bench.peers import contest
from experiments.bench.peers.work import Work
from geojax.axes import change
from geojax.config import RunConfig
from geojax.devices.execution import steps_together
from geojax.devices.fleet import Fleet
from geojax.devices.super_node import SuperNode
from geojax.errors import ConfigError, nearest
from geojax.federated import build as federated
from geojax.federated.clients import Clients
from geojax.federated.registry import FEDERATED
from geojax.models.registry import model_info
from geojax.selection.registry import build_selection
from geojax.sync.fedgs import fedgs
from geojax.sync.registry import build_sync

EXECUTIONS = ("loop", "scan", "vmap", "pmap")
FLEET = "fleet"  # not of clients: the steps of sync=fedgs, by each of its executions
FLEETS = ("fleet, loop", "fleet, scan")
KNOWN = (*EXECUTIONS, FLEET)
ONE = ", one device"
MODELS = ("mlp", "small_cnn", "demo_cnn")


def config_of(options: argparse.Namespace, model: str) -> RunConfig:
    """A run of these clients."""
    config = RunConfig(batch_size=options.batch_size, lr=0.001)
    if options.sync not in FEDERATED:
        fix = f"has no clients; {nearest(options.sync, FEDERATED)}"
        raise ConfigError("--sync", options.sync, fix)
    settings = {"model": model, "data": "fashion_mnist", "sync": options.sync}
    change(config, {**settings, "sync.epochs": options.epochs})
    config.testbed.devices = options.devices
    if options.devices > 1 and "pmap" in options.executions.split(","):
        change(config, {"sync.execution": "pmap"})
    return config


def data_of(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels of all clients, one client after the other."""
    draws = np.random.default_rng(0)
    count = options.clients * options.samples
    images = draws.random((count, 28, 28, 1), np.float32)
    return images, draws.integers(0, 10, count).astype(np.int32)


class Ours:
    """Rounds of one execution, each from where the last one ended.

    Attributes:
      spec: of the model's vector.
      start: where the first round begins.
      first: where it has ended.
      steps: client steps of a round.
      devices: how many it has.
    """

    def __init__(self, config: RunConfig, execution: str, options: argparse.Namespace):
        from geojax.federated.training.trainer import FederatedTrainer, build_programs

        execution, one, _ = execution.partition(ONE)
        rule = build_sync(config.sync).client
        assert rule is not None
        rule = rule._replace(execution=execution)
        images, labels = data_of(options)
        data = federated.place(config, images, labels)
        model = federated.build_model(config, rule)
        local = federated.client_devices(config)
        if one or (config.sync.splits_batches and execution != "pmap"):
            local, data = local[:1], data[:1]
        self.devices = len(local)
        programs = build_programs(config, model, rule, local)
        made = Clients(
            np.array_split(np.arange(len(labels)), options.clients),
            batch_size=config.batch_size, epochs=rule.epochs, seed=0, worker_index=0,
        )  # fmt: skip
        self.spec, self.start = model.spec, model.initial(0)
        self._trainer = FederatedTrainer(programs, rule, made, data, self.start, lr=config.lr)
        self._trainer.warm_up()
        self.steps = sum(made.steps(client) for client in range(options.clients))
        self._trainer.step()
        self.first = self.start + self._trainer.offer()

    def make_round(self) -> None:
        """The round of all clients, whose mean the next one begins with."""
        trainer = self._trainer
        trainer.load(trainer.vector() + trainer.offer())
        trainer.step()


class FleetRounds:
    """Rounds of FedGS by its base stations, of one device each, from where the last one ended.

    Attributes:
      first: where the first round begins and ends, as of :class:`Ours`.
      steps: of a round, of all base stations.
    """

    def __init__(self, config: RunConfig, execution: str, options: argparse.Namespace):
        from geojax.devices.trainer import build_fleet_trainer

        images, labels = data_of(options)
        parts = np.array_split(np.arange(len(labels)), options.clients)
        self._each = options.epochs * (options.samples // options.batch_size)
        self.steps = self._each * len(parts)
        algorithm = fedgs(steps=self._each, execution=execution)
        shares = np.bincount(labels, minlength=10) / len(labels)
        self._trainers = []
        for index, part in enumerate(parts):
            fleet = Fleet(
                labels, [part], batch_size=config.batch_size, classes=10, seed=0, first=index
            )
            node = SuperNode(
                fleet, build_selection(config.selection), shares, seed=0, worker_index=index,
                round_steps=self._each,
            )  # fmt: skip
            trainer = build_fleet_trainer(
                config, node, features=images, labels=labels, reports=False,
                together=functools.partial(steps_together, config, algorithm),
            )  # fmt: skip
            trainer.warm_up(gradient=False)
            self._trainers.append(trainer)
        self._vector = self._trainers[0].vector()
        self.make_round()
        self.first = self._vector

    def make_round(self) -> None:
        """T steps of every base station, and the mean of their models."""
        total = np.zeros_like(self._vector)
        for trainer in self._trainers:
            trainer.load(self._vector)
            trainer.expect(self._each)
            for _ in range(self._each):
                trainer.planned()
                trainer.step()
            total += trainer.vector()
        self._vector = total / np.float32(len(self._trainers))


def work_of(options: argparse.Namespace, config: RunConfig, ours: Ours) -> Work:
    """The same work for peers."""
    images, labels = data_of(options)
    shape = (options.clients, options.samples)
    layers = ours.spec.layers
    return Work(
        config.model.name, [each.name for each in layers], [list(each.shape) for each in layers],
        ours.start, images.reshape(*shape, 28, 28, 1), labels.reshape(shape),
        config.batch_size, options.epochs, config.lr,
    )  # fmt: skip


def measure(options: argparse.Namespace) -> Table:
    """Measures every execution, and the peers, on every model."""
    from geojax.center import devices

    chosen = _names(options.executions, KNOWN, "--executions")
    peers = _names(options.peers, tuple(contest.PEERS), "--peers")
    models = options.models.split(",")
    _check(options, peers, models)
    if chosen == [FLEET]:
        raise ConfigError("--executions", FLEET, "give others beside it, e.g. fleet,loop,scan")
    if FLEET in chosen and (options.samples % options.batch_size or options.sync != "fedavg"):
        fix = f"fleet takes full batches: a multiple of {options.batch_size}, and --sync fedavg"
        raise ConfigError("--samples", options.samples, fix)
    if FLEET in chosen and options.devices > 1:
        fix = "a base station has one here; use 1, or leave fleet out of --executions"
        raise ConfigError("--devices", options.devices, fix)
    pythons = contest.pythons(peers, options.peer_python)
    devices.configure(config_of(options, models[0]).mesh_size)
    if "pmap" in chosen and options.devices < 2 and not _accelerators():
        chosen.remove("pmap")
    if options.devices > 1 and "pmap" not in chosen:
        default = _default(models[0])
        chosen.append((default if default in chosen else chosen[0]) + ONE)
    title = (
        f"{options.sync}: {options.clients} clients of {options.samples} samples, batches of "
        f"{options.batch_size}, E = {options.epochs}; median of {options.repetitions} repetitions, "
        f"in turn, of {options.rounds} rounds each"
    )
    columns = (
        "model", "execution", "", "client steps/s", "samples/s", "µs a client step",
        "default ÷ it", "deviation",
    )  # fmt: skip
    table = report.empty_table(title, columns, words=3)
    for model in models:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            config = config_of(options, model)
            ours = {name: Ours(config, name, options) for name in chosen if name != FLEET}
            first = next(iter(ours.values()))
            contenders = [
                contest.Contender(name, contest.here(each.make_round, each.steps))
                for name, each in ours.items()
            ]
            if FLEET in chosen:
                for name in FLEETS:
                    fleet = FleetRounds(config, name.removeprefix(f"{FLEET}, "), options)
                    run = contest.here(fleet.make_round, fleet.steps)
                    contenders.append(contest.Contender(name, run, first=fleet.first))
            archive = pathlib.Path(folder) / "work.npz"
            if peers:
                work_of(options, config, first).save(str(archive))
            for name, python in pythons.items():
                peer = contest.Peer(name, python, archive)
                stack.callback(peer.close)
                contenders.append(contest.Contender(name, peer.run, peer.words, peer.first))
            off = contest.deviations(contenders, first.start, first.first)
            contest.hold(contenders, rounds=options.rounds, repetitions=options.repetitions)
            counts = {name: each.devices for name, each in ours.items()}
            _add_rows(table, model, contenders, off, counts, options)
    return table


def _add_rows(
    table: Table, model: str, contenders: Sequence[contest.Contender],
    off: Mapping[str, float], counts: Mapping[str, int], options: argparse.Namespace,
) -> None:  # fmt: skip
    ours = [each for each in contenders if not each.words]
    best = max(ours, key=lambda each: each.rate)
    default = next((each for each in ours if each.name == _default(model)), best)
    rows = -(-options.samples // options.batch_size)
    for each in contenders:
        count = counts.get(each.name, 1)
        words = [
            *[f"{count} devices"] * (count > 1),
            *["default"] * (each.name == _default(model)),
            *["sync=fedgs"] * (each.name == _fleet_default(model)),
            *["fastest"] * (each is best),
        ]
        table.add_row(
            model, each.name, each.words or ", ".join(words), f"{each.rate:,.0f}",
            f"{each.rate * options.samples / rows:,.0f}", f"{1e6 / each.rate:,.0f}",
            f"{contest.ratio(default, each):.2f}",
            f"{off[each.name]:.3f}" if each.name in off else "",
        )  # fmt: skip


def _names(text: str, known: Sequence[str], option: str) -> list[str]:
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            raise ConfigError(option, name, nearest(name, known))
    return names


def _check(options: argparse.Namespace, peers: Sequence[str], models: Sequence[str]) -> None:
    """Refuses work that peers do not know."""
    if not peers:
        return
    if options.sync != "fedavg":
        raise ConfigError("--sync", options.sync, "peers do fedavg; leave --peers out")
    if options.samples % options.batch_size:
        fix = f"with --peers, a multiple of --batch-size ({options.batch_size})"
        raise ConfigError("--samples", options.samples, fix)
    for model in models:
        if model not in MODELS:
            raise ConfigError("--models", model, f"peers know {', '.join(MODELS)}")


def _default(model: str) -> str:
    from geojax.center import devices
    from geojax.federated.training.execution import execution_of

    scans = model_info(change(RunConfig(), {"model": model}).model).scans
    return execution_of("auto", devices.local_devices()[0].platform, scans=scans)


def _fleet_default(model: str) -> str:
    from geojax.center import devices

    config = change(RunConfig(), {"model": model})
    together = steps_together(config, fedgs(steps=2), devices.local_devices()[0].platform)
    return FLEETS[together > 1]


def _accelerators() -> bool:
    import jax

    return jax.default_backend() != "cpu"


def main() -> int:
    """Measures and prints a table."""
    parser = report.parser("federated", __doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="some models, with commas")
    parser.add_argument("--executions", default=",".join(EXECUTIONS), help="some of them, or fleet")
    parser.add_argument("--sync", default="fedavg", help="the algorithm")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--samples", type=int, default=200, help="of each client")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="of a repetition")
    parser.add_argument("--repetitions", type=int, default=7, help="of which the median counts")
    parser.add_argument("--peers", default="", help=f"some of {','.join(contest.PEERS)}")
    parser.add_argument(
        "--peer-python",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the Python of a peer; may be repeated",
    )
    parser.add_argument("--devices", type=int, default=1, help="CPU devices for clients")
    options = parser.parse_args()
    return report.show(lambda: measure(options), width=150)


if __name__ == "__main__":
    sys.exit(main())
