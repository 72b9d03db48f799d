"""Our models once more, as plain functions of JAX arrays by name, for peers that know no Flax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Arrays = dict[str, Any]


def _dense(w: Arrays, name: str, x: Any) -> Any:
    return x.reshape((x.shape[0], -1)) @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def _convolution(w: Arrays, name: str, x: Any, stride: int, padding: str) -> Any:
    made = jax.lax.conv_general_dilated(
        x, w[f"{name}/kernel"], (stride, stride), padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return jax.nn.relu(made + w[f"{name}/bias"])


def _mlp(w: Arrays, x: Any) -> Any:
    return _dense(w, "Dense_1", jax.nn.relu(_dense(w, "Dense_0", x)))


def _small_cnn(w: Arrays, x: Any) -> Any:
    hidden = _convolution(w, "Conv_0", x, 2, "SAME")
    return _dense(w, "Dense_0", _convolution(w, "Conv_1", hidden, 2, "SAME"))


def _demo_cnn(w: Arrays, x: Any) -> Any:
    for name in ("Conv_0", "Conv_1"):
        x = _convolution(w, name, x, 1, "VALID")
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    for name in ("Dense_0", "Dense_1"):
        x = jax.nn.relu(_dense(w, name, x))
    return _dense(w, "Dense_2", x)


MODELS: dict[str, Callable[[Arrays, Any], Any]] = {
    "mlp": _mlp, "small_cnn": _small_cnn, "demo_cnn": _demo_cnn,
}  # fmt: skip


def loss(model: str, w: Arrays, images: Any, labels: Any) -> Any:
    """Mean cross-entropy of a batch."""
    logits = jax.nn.log_softmax(MODELS[model](w, images))
    return -jnp.take_along_axis(logits, labels[:, None], axis=1).mean()
