"""MOON: representations are drawn to the round's model, and away from the client's last one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geojax.federated.base import FederatedConfig, need_stages, register
from geojax.settings import key
from geojax.sync.client import Batch, ClientModel, ClientRule, Given, Sent, Trained

if TYPE_CHECKING:
    import jax


@dataclass
class MoonConfig(FederatedConfig):
    """Keys of ``sync=moon``."""

    name: str = "moon"
    mu: float = key(5.0, "μ of the contrastive term; the paper tunes over .1, 1, 5, 10", least=0)
    temperature: float = key(0.5, "of the contrastive term", above=0)


def contrast(local: jax.Array, near: jax.Array, far: jax.Array, temperature: float) -> jax.Array:
    """``−log (e^{cos(z, z_g)/t} / (e^{cos(z, z_g)/t} + e^{cos(z, z_prev)/t}))`` of each sample.

    Args:
      local: z, (b, features).
      near: z_g.
      far: z_prev.
      temperature: t.
    """
    import jax
    import jax.numpy as jnp

    def cosine(one: jax.Array, other: jax.Array) -> jax.Array:
        # The floor lies under the root, where its gradient is finite at zero.
        squares = [jnp.maximum(jnp.square(each).sum(axis=-1), 1e-16) for each in (one, other)]
        return (one * other).sum(axis=-1) / jnp.sqrt(squares[0] * squares[1])

    return jax.nn.softplus((cosine(local, far) - cosine(local, near)) / temperature)


def moon(*, mu: float, temperature: float) -> ClientRule:
    """Local objective ``F_k(w) + μ ℓ_con``, see :func:`contrast`; then FedAvg.

    z is the input of the model's last stage; z_g is that of w_t and z_prev that of the model in
    which the client's last round ended, both frozen and in evaluation mode, with the float state
    (BatchNorm) that the round began with. Before its first round a client has no such model: w_t
    stands for it, and the term is log 2 without a gradient. The authors' networks have a projection
    head before the output layer, whose output is z; here models have none.

    References:
      Li et al., *Model-Contrastive Federated Learning*, CVPR 2021, equations 3 and 4, arXiv
      2103.16257. μ = 5, t = .5.
    """

    def objective(model: ClientModel, w: Any, given: Given, batch: Batch) -> Any:
        loss, local, changed = model.loss_and_representation(w, batch)
        near = model.representation(given.start, given.state, batch)
        far = model.representation(given.kept["previous"], given.state, batch)
        term = contrast(local, near, far, temperature) * batch.weights
        return loss + mu * term.sum() / batch.weights.sum(), changed

    def finish(done: Trained) -> Sent:
        return Sent(done.end - done.given.start, {}, {"previous": done.end})

    check = need_stages("moon", "the representation of a sample")
    return ClientRule(
        "moon", objective=objective, finish=finish, keeps={"previous": "start"}, check=check
    )


@register("moon", MoonConfig)
def _configured(config: MoonConfig) -> ClientRule:
    return moon(mu=config.mu, temperature=config.temperature)
