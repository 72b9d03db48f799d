"""Every federated algorithm as a plain loop over dictionaries of arrays, in one process.

Written from the papers' formulas, without the library's rules: of the library it has the data, who
holds which samples, the order of the batches and the initial parameters. Read this first.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from networks import module_of

SIGMAS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 5, 10, 15, 20, 25, 30, 35, 100, 1e3, 1e4, 1e5, 1e6)


def add(a, b, factor=1.0):
    return {name: a[name] + factor * b[name] for name in a}


def minus(a, b):
    return add(a, b, -1.0)


def scaled(a, factor):
    return {name: factor * a[name] for name in a}


def mean(trees, weights):
    total = sum(weights)
    return {
        name: sum(w * tree[name] for tree, w in zip(trees, weights, strict=True)) / total
        for name in trees[0]
    }


def zeros(tree):
    return {name: np.zeros_like(value) for name, value in tree.items()}


# ---- the loss of one batch; ``mask`` is 0 for samples that only fill a short batch


def forward(p, x):
    """A perceptron with one hidden layer: representation, logits."""
    hidden = jax.nn.relu(x.reshape(len(x), -1) @ p["Dense_0/kernel"] + p["Dense_0/bias"])
    return hidden, hidden @ p["Dense_1/kernel"] + p["Dense_1/bias"]


def cross_entropy(logits, y, mask):
    chosen = jax.nn.log_softmax(logits)[jnp.arange(len(y)), y]
    return -(chosen * mask).sum() / mask.sum()


def plain(p, others, x, y, mask):
    return cross_entropy(forward(p, x)[1], y, mask), {}


def with_mmd(p, others, x, y, mask):
    start, lam = others
    z, logits = forward(p, x)
    g, _ = forward(start, x)

    def kernel(a, b):
        d = jnp.square(a[:, None] - b[None]).sum(axis=2)
        total = jnp.exp(-d[None] / (2 * jnp.array(SIGMAS)[:, None, None])).sum(axis=0)
        return mask @ total @ mask / mask.sum() ** 2

    squared = kernel(g, g) + kernel(z, z) - 2 * kernel(g, z)
    return cross_entropy(logits, y, mask) + lam * jnp.maximum(squared, 0), {}


def with_contrast(p, others, x, y, mask):
    start, previous, mu, t = others
    z, logits = forward(p, x)
    (near, _), (far, _) = forward(start, x), forward(previous, x)

    def cosine(a, b):
        return (a * b).sum(axis=1) / (jnp.linalg.norm(a, axis=1) * jnp.linalg.norm(b, axis=1))

    up, down = jnp.exp(cosine(z, near) / t), jnp.exp(cosine(z, far) / t)
    term = -jnp.log(up / (up + down))
    return cross_entropy(logits, y, mask) + mu * (term * mask).sum() / mask.sum(), {}


def fused(operator):
    """A small CNN with BatchNorm; the last convolution's output is that of its second block."""
    module = module_of("cnn_batchnorm", (8, 8, 1), 10)

    def variables(p):
        flat = {("" if n.startswith("batch_stats") else "params/") + n: a for n, a in p.items()}
        flat = {n: a for n, a in flat.items() if "fusion" not in n}
        return unflatten_dict({**flat, "counters/batches": jnp.zeros((), jnp.int32)}, sep="/")

    def blocks(bound, x, train):
        return bound.stage(1, bound.stage(0, x, train=train), train=train)

    def loss(p, others, x, y, mask):
        (start,) = others
        y_map = module.apply(variables(start), x, method=lambda m, x: blocks(m, x, False))

        def run(m, x):
            z = blocks(m, x, True)
            if operator == "conv":
                both = jnp.concatenate([z, y_map], axis=3)
                f = jnp.einsum("bhwc,cd->bhwd", both, p["fusion/kernel"]) + p["fusion/bias"]
            else:
                f = p["fusion/gamma"] * y_map + (1 - p["fusion/gamma"]) * z
            return m.stage(2, f, train=True)

        logits, changed = module.apply(
            variables(p), x, method=run, mutable=["batch_stats", "counters"]
        )
        statistics = {
            f"batch_stats/{layer}/{name}": value
            for layer, values in changed["batch_stats"].items() for name, value in values.items()
        }  # fmt: skip
        return cross_entropy(logits, y, mask), statistics

    return loss


@functools.cache
def differentiated(kind):
    loss = {"plain": plain, "mmd": with_mmd, "moon": with_contrast}.get(kind) or fused(kind)
    quickly = {"xla_backend_optimization_level": 0}
    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=quickly)


# ---- one client


def local(client, number, start, data, lr, *, kind="plain", others=(), extra=None, momentum=0.0):
    """E epochs of SGD: w_k and τ_k. ``extra(w)`` is added to every gradient."""
    p, velocity = dict(start), zeros(start)
    batches = client.batches(number)
    for positions in batches:
        at = np.where(positions < 0, ~positions, positions)
        mask = (positions >= 0).astype(np.float32)
        (_, state), gradient = differentiated(kind)(
            p, others, data.train_x[at], data.train_y[at], mask
        )
        gradient = {name: np.asarray(g) for name, g in gradient.items()}
        if extra is not None:
            gradient = add(gradient, extra(p))
        velocity = add(scaled(velocity, momentum), gradient)
        p = add(p, velocity, -lr)
        p.update({name: np.asarray(value) for name, value in state.items()})
    return p, len(batches)


def accuracy(client, p, data):
    x, y = data.train_x[client.part], data.train_y[client.part]
    hidden = np.maximum(x.reshape(len(x), -1) @ p["Dense_0/kernel"] + p["Dense_0/bias"], 0)
    logits = hidden @ p["Dense_1/kernel"] + p["Dense_1/bias"]  # in numpy: every x has its own shape
    return float((np.argmax(logits, axis=1) == y).mean())


# ---- whole rounds: one function an algorithm, (w_t, round) -> w_{t+1}


class Round(NamedTuple):
    """One round: who takes part, and what is remembered from the rounds before."""

    number: int
    clients: list  # all of them
    chosen: list  # numbers of those that take part, S
    data: Any
    lr: float
    keys: dict
    server: dict  # what the server remembers
    kept: list  # what each client remembers

    def local(self, k, start, **how):
        return local(self.clients[k], self.number, start, self.data, self.lr, **how)

    @property
    def p(self):
        """In proportion to the samples."""
        return [len(self.clients[k].part) for k in self.chosen]

    @property
    def even(self):
        return [1.0 for _ in self.chosen]


def fedavg(w, r):
    return mean([r.local(k, w)[0] for k in r.chosen], r.p)


def fedprox(w, r):
    pull = lambda p: scaled(minus(p, w), r.keys["mu"])  # noqa: E731
    return mean([r.local(k, w, extra=pull)[0] for k in r.chosen], r.p)


def fedmmd(w, r):
    how = {"kind": "mmd", "others": (w, r.keys["lam"])}
    return mean([r.local(k, w, **how)[0] for k in r.chosen], r.p)


def moon(w, r):
    models = []
    for k in r.chosen:
        previous = r.kept[k].get("previous", w)
        others = (w, previous, r.keys["mu"], r.keys["temperature"])
        models.append(r.local(k, w, kind="moon", others=others)[0])
        r.kept[k]["previous"] = models[-1]
    return mean(models, r.p)


def fedfusion(w, r):
    kind = r.keys["operator"]
    new = mean([r.local(k, w, kind=kind, others=(w,))[0] for k in r.chosen], r.even)
    if kind != "conv":
        new["fusion/gamma"] = 0.1 * new["fusion/gamma"] + 0.9 * w["fusion/gamma"]
    return new


def ida(w, r):
    models = [r.local(k, w)[0] for k in r.chosen]
    center = mean(models, r.even)
    alpha = []
    for k, model in zip(r.chosen, models, strict=True):
        far = sum(float(np.abs(d).sum()) for d in minus(center, model).values())
        alpha.append(1 / (far + 1e-12))
        if r.keys["factor"] == "fedavg":
            alpha[-1] *= len(r.clients[k].part)
        if r.keys["factor"] == "intrac":
            alpha[-1] /= max(1 / 10, accuracy(r.clients[k], model, r.data))
    return mean(models, alpha)


def fedavgm(w, r):
    delta = minus(fedavg(w, r), w)
    r.server["m"] = add(delta, r.server.get("m", zeros(w)), r.keys["beta"])
    return add(w, r.server["m"], r.keys["server_lr"])


def adaptive(w, r, square):
    delta, b1 = minus(fedavg(w, r), w), r.keys["b1"]
    m = add(scaled(r.server.get("m", zeros(w)), b1), delta, 1 - b1)
    v = r.server.get("v", zeros(w))
    v = {i: square(v[i], delta[i] ** 2) for i in w}
    r.server.update(m=m, v=v)
    return {i: w[i] + r.keys["server_lr"] * m[i] / (np.sqrt(v[i]) + r.keys["eps"]) for i in w}


def fedadagrad(w, r):
    return adaptive(w, r, lambda v, d2: v + d2)


def fedadam(w, r):
    b2 = r.keys["b2"]
    return adaptive(w, r, lambda v, d2: b2 * v + (1 - b2) * d2)


def fedyogi(w, r):
    b2 = r.keys["b2"]
    return adaptive(w, r, lambda v, d2: v - (1 - b2) * d2 * np.sign(v - d2))


def scaffold(w, r):
    c = r.server.get("c", zeros(w))
    models, moves = [], []
    for k in r.chosen:
        c_k = r.kept[k].get("c", zeros(w))
        correction = minus(c, c_k)
        w_k, tau = r.local(k, w, extra=lambda _, correction=correction: correction)
        r.kept[k]["c"] = add(minus(c_k, c), minus(w, w_k), 1 / (tau * r.lr))
        moves.append(minus(r.kept[k]["c"], c_k))
        models.append(w_k)
    r.server["c"] = add(c, mean(moves, r.even), len(r.chosen) / len(r.clients))
    return mean(models, r.even)


def fednova(w, r):
    rho, steps, moves = r.keys.get("momentum", 0.0), [], []
    for k in r.chosen:
        w_k, tau = r.local(k, w, momentum=rho)
        norm = velocity = 0.0  # ‖a_k‖₁, by adding up how often each gradient counts
        for _ in range(tau):
            velocity = rho * velocity + 1
            norm += velocity
        steps.append(norm)
        moves.append(scaled(minus(w, w_k), 1 / norm))
    tau_eff = sum(n * tau for n, tau in zip(r.p, steps, strict=True)) / sum(r.p)
    return add(w, mean(moves, r.p), -tau_eff)


def feddyn(w, r):
    alpha, h = r.keys["alpha"], r.server.get("h", zeros(w))
    models = []
    for k in r.chosen:
        h_k = r.kept[k].get("h", zeros(w))
        w_k, _ = r.local(k, w, extra=lambda p, h_k=h_k: minus(scaled(minus(p, w), alpha), h_k))
        r.kept[k]["h"] = add(h_k, minus(w_k, w), -alpha)
        models.append(w_k)
    for w_k in models:
        h = add(h, minus(w_k, w), -alpha / len(r.clients))
    r.server["h"] = h
    return add(mean(models, r.even), h, -1 / alpha)


ALGORITHMS = {
    each.__name__: each
    for each in (
        fedavg, fedprox, fedmmd, fedfusion, ida, fedavgm, fedadagrad, fedadam, fedyogi, scaffold,
        fednova, feddyn, moon,
    )
}  # fmt: skip


def train(name, w, clients, data, *, rounds, lr, chosen=None, **keys):
    """``w`` after so many rounds; ``chosen(round)``: who takes part, None: all."""
    server, kept = {}, [{} for _ in clients]
    for number in range(rounds):
        who = list(range(len(clients))) if chosen is None else chosen(number)
        w = ALGORITHMS[name](w, Round(number, clients, who, data, lr, keys, server, kept))
    return w
