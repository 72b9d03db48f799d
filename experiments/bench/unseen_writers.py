"""How well a model reads people it has never seen: ``python -m experiments.bench.unseen_writers``.

Trains a model on all training samples of a data set that names its writers, without any exchange,
and shows its accuracy on the test samples, which are by other people; the classes that it mixes up
most; and how alike a writer's digits are (mean squared distance of two blurred images by one
writer, by two writers, and their ratio). It is how the drawn stand-in for FEMNIST is judged, beside
MNIST with its real writers:

    python -m experiments.bench.unseen_writers data.writers=300 --epochs 4
    python -m experiments.bench.unseen_writers --data mnist data.writers=FILE --epochs 2
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
from omegaconf import OmegaConf
from rich.table import Table

from experiments.bench import report
from geojax.config import ModelConfig, OptimizerConfig
from geojax.data import DATASETS, BatchOrder, Dataset, load_dataset
from geojax.data.strokes import CHARACTERS
from geojax.data.writer_effect import writer_effect
from geojax.errors import ConfigError

KINDS = {"digits": (0, 10), "capitals": (10, 36), "small letters": (36, 62)}


class Figures(NamedTuple):
    """What the model said of the test samples."""

    accuracy: float
    by_kind: dict[str, float]
    confusions: list[tuple[str, int]]  # "true > said", times; most frequent first


def judge(labels: np.ndarray, said: np.ndarray, most: int = 10) -> Figures:
    """Accuracies and confusions.

    >>> judge(np.array([0, 0, 24, 50]), np.array([0, 24, 24, 24])).confusions
    [('0 > O', 1), ('o > O', 1)]
    """
    right = labels == said
    kinds = {}
    for kind, (first, stop) in KINDS.items():
        own = (labels >= first) & (labels < stop)
        if own.any():
            kinds[kind] = float(right[own].mean())
    pairs, times = np.unique(np.stack([labels, said])[:, ~right], axis=1, return_counts=True)
    order = np.argsort(-times, kind="stable")[:most]
    names = [f"{CHARACTERS[pairs[0, at]]} > {CHARACTERS[pairs[1, at]]}" for at in order]
    confusions = list(zip(names, times[order].tolist(), strict=True))
    return Figures(float(right.mean()), kinds, confusions)


def train(data: Dataset, model: str, epochs: int, batch: int, lr: float, seed: int) -> np.ndarray:
    """The classes that a freshly trained model gives the test samples, int (samples,)."""
    import jax
    import optax

    from geojax.center.optimizers import build_optimizer
    from geojax.models.inputs import labelled
    from geojax.models.registry import build_model

    network = build_model(ModelConfig(model), labelled(data.train_x.shape[1:], data.classes))
    optimizer = build_optimizer(OptimizerConfig("adam"), lr)
    variables = network.init(jax.random.PRNGKey(seed), data.train_x[:1])
    state = optimizer.init(variables)

    def loss(variables: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        outputs: Any = network.apply(variables, images)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()

    @jax.jit
    def step(variables: Any, state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any]:
        gradient = jax.grad(loss)(variables, images, labels)
        update, state = optimizer.update(gradient, state, variables)
        return optax.apply_updates(variables, update), state

    @jax.jit
    def answer(variables: Any, images: jax.Array) -> jax.Array:
        outputs: Any = network.apply(variables, images)
        return outputs.argmax(axis=-1)

    order = BatchOrder(len(data.train_y), batch, seed, 0)
    for number in range(epochs * len(data.train_y) // batch):
        at = order(number)
        variables, state = step(variables, state, data.train_x[at], data.train_y[at])
    cuts = np.array_split(data.test_x, -(-len(data.test_x) // 500))
    return np.concatenate([np.asarray(answer(variables, cut)) for cut in cuts])


def main() -> int:
    """The command line."""
    parser = report.parser("unseen_writers", __doc__)
    parser.add_argument("--data", default="synth_femnist", help="data set (default %(default)s)")
    parser.add_argument("--model", default="demo_cnn", help="model (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="default %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="default %(default)s")
    parser.add_argument("--lr", type=float, default=0.001, help="Adam's (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the model and the order")
    parser.add_argument("settings", nargs="*", metavar="data.KEY=VALUE", help="keys of the data")
    options = parser.parse_args()

    def measure() -> Table:
        given: Any = OmegaConf.to_container(OmegaConf.from_dotlist(options.settings))
        if set(given) - {"data"}:
            fix = "write data.KEY=VALUE, e.g. data.writers=300"
            raise ConfigError("settings", options.settings, fix)
        data = load_dataset(DATASETS.settings(options.data, **given.get("data", {})))
        if data.train_groups is None:
            fix = "it does not say who wrote its samples; use synth_femnist, or mnist data.writers="
            raise ConfigError("data.name", options.data, fix)
        effect = writer_effect(data.train_x, data.train_y, data.train_groups)
        said = train(data, options.model, options.epochs, options.batch, options.lr, options.seed)
        figures = judge(data.test_y, said)
        writers = len(np.unique(data.train_groups))
        sizes = f"{len(data.train_y)} + {len(data.test_y)} samples"
        title = f"{data.name}: {writers} writers, {sizes}, {options.epochs} epochs"
        table = report.empty_table(f"{title} of {options.model}", ["", ""])
        table.add_row("accuracy on unseen writers", f"{figures.accuracy:.3f}")
        for kind, accuracy in figures.by_kind.items():
            table.add_row(f"  {kind}", f"{accuracy:.3f}")
        confused = ", ".join(f"{pair} ({times})" for pair, times in figures.confusions)
        table.add_row("most confused (true > said)", confused)
        table.add_row("mean ink of a pixel", f"{data.train_x.mean():.4f}")
        pair = f"{effect.same:.2f} / {effect.different:.2f}"
        table.add_row("digits of one writer / of two", pair)
        table.add_row("ratio", f"{effect.ratio:.3f}")
        return table

    return report.show(measure)


if __name__ == "__main__":
    sys.exit(main())
