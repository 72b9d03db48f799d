"""Every loss by name: what training makes small, and what an evaluation tells beside it.

An own one is a function that registers itself; it imports JAX inside, since this module is loaded
where JAX must not be::

    @LOSSES.register("absolute")
    def absolute() -> Loss:
        import jax.numpy as jnp

        return Loss(lambda outputs, targets: jnp.abs(outputs - targets).mean(axis=-1))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from geojax.registry import Registry

if TYPE_CHECKING:
    import jax

    Score = Callable[[jax.Array, jax.Array], jax.Array]

ACCURACY = "accuracy"  # the metric that a run's target is about


class Loss(NamedTuple):
    """How wrong outputs are, and how good.

    Both functions take a model's outputs (batch, ...) and the targets (batch, ...) and make float32
    (batch,), one number an example.

    Attributes:
      per_example: its mean over a batch is what training makes small.
      metric: name of the figure that an evaluation tells beside the loss; empty: none. A run looks
        for ``target_accuracy`` where it is ``accuracy``.
      measure: its mean over the test set is that figure.
    """

    per_example: Score
    metric: str = ""
    measure: Score | None = None


LOSSES: Registry[Callable[[], Loss]] = Registry("loss")


@LOSSES.register("cross_entropy")
def cross_entropy() -> Loss:
    """Softmax cross entropy of logits (batch, classes) and labels (batch,); share of right ones."""
    import jax.numpy as jnp
    import optax

    def per_example(outputs: jax.Array, targets: jax.Array) -> jax.Array:
        logits = outputs.astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets)

    def right(outputs: jax.Array, targets: jax.Array) -> jax.Array:
        return (jnp.argmax(outputs, axis=-1) == targets).astype(jnp.float32)

    return Loss(per_example, ACCURACY, right)


@LOSSES.register("next_token")
def next_token() -> Loss:
    """Cross entropy of logits (batch, length, classes) and tokens (batch, length), nats a token.

    The targets are the samples moved by one, see :func:`geojax.data.npz.shifted`. Accuracy is the
    share of tokens that were predicted right.
    """
    token = cross_entropy()

    def mean(of: Score | None) -> Score:
        assert of is not None
        return lambda outputs, targets: of(outputs, targets).mean(axis=1)

    return Loss(mean(token.per_example), ACCURACY, mean(token.measure))


@LOSSES.register("mse")
def mse() -> Loss:
    """Mean squared error of as many outputs as a target has numbers; mean absolute error."""
    import jax.numpy as jnp

    def error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
        if not jnp.issubdtype(targets.dtype, jnp.floating):
            raise TypeError("targets are classes, not floats")
        flat = (len(targets), -1)
        outputs, targets = outputs.astype(jnp.float32).reshape(flat), targets.reshape(flat)
        if outputs.shape != targets.shape:
            raise ValueError(f"{outputs.shape[1]} outputs for {targets.shape[1]} numbers")
        return outputs - targets

    return Loss(
        lambda outputs, targets: jnp.square(error(outputs, targets)).mean(axis=1),
        "absolute_error",
        lambda outputs, targets: jnp.abs(error(outputs, targets)).mean(axis=1),
    )
