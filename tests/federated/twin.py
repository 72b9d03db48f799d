"""Every federated algorithm as a plain loop over dictionaries of arrays, in one process.

Written from the papers' formulas, without the library's rules: of the library it has the data, who
holds which samples, the order of the batches and the initial parameters. Read this first.
"""

import functools

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
        total = 0.0
        for i in range(len(a)):
            for sigma in SIGMAS:
                d = jnp.square(a[i] - b).sum(axis=1)
                total += (jnp.exp(-d / (2 * sigma)) * mask).sum() * mask[i]
        return total / mask.sum() ** 2

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
    return jax.jit(jax.value_and_grad(loss, has_aux=True))


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
    return float((np.argmax(forward(p, x)[1], axis=1) == y).mean())


# ---- whole rounds


def train(name, w, clients, data, *, rounds, lr, chosen=None, **keys):
    """``w`` after so many rounds; ``chosen(round)``: the clients of a round, None: all."""
    n_all = len(clients)
    sizes = [len(client.part) for client in clients]
    everywhere, kept = {}, {k: {} for k in range(n_all)}
    for number in range(rounds):
        s = list(range(n_all)) if chosen is None else list(chosen(number))
        p_k = [sizes[k] for k in s]
        even = [1.0] * len(s)
        run = functools.partial(local, number=number, start=w, data=data, lr=lr)
        if name == "fedavg":
            w = mean([run(clients[k])[0] for k in s], p_k)
        elif name == "fedprox":
            w_t = w
            w = mean(
                [run(clients[k], extra=lambda p: scaled(minus(p, w_t), keys["mu"]))[0] for k in s],
                p_k,
            )
        elif name == "fedmmd":
            w = mean([run(clients[k], kind="mmd", others=(w, keys["lam"]))[0] for k in s], p_k)
        elif name == "moon":
            new = {
                k: run(
                    clients[k], kind="moon",
                    others=(w, kept[k].get("previous", w), keys["mu"], keys["temperature"]),
                )[0] for k in s
            }  # fmt: skip
            for k in s:
                kept[k]["previous"] = new[k]
            w = mean([new[k] for k in s], p_k)
        elif name == "fedfusion":
            new = mean([run(clients[k], kind=keys["operator"], others=(w,))[0] for k in s], even)
            if keys["operator"] != "conv":
                new["fusion/gamma"] = 0.1 * new["fusion/gamma"] + 0.9 * w["fusion/gamma"]
            w = new
        elif name == "ida":
            models = [run(clients[k])[0] for k in s]
            center = mean(models, even)
            alpha = []
            for k, model in zip(s, models, strict=True):
                far = sum(float(np.abs(d).sum()) for d in minus(center, model).values())
                factor = {
                    "none": 1.0, "fedavg": sizes[k],
                    "intrac": 1 / max(1 / 10, accuracy(clients[k], model, data)),
                }[keys["factor"]]  # fmt: skip
                alpha.append(factor / (far + 1e-12))
            w = mean(models, alpha)
        elif name in ("fedavgm", "fedadagrad", "fedadam", "fedyogi"):
            delta = minus(mean([run(clients[k])[0] for k in s], p_k), w)
            everywhere = everywhere or {"m": zeros(w), "v": zeros(w)}
            eta = keys["server_lr"]
            if name == "fedavgm":
                everywhere["m"] = add(delta, everywhere["m"], keys["beta"])
                w = add(w, everywhere["m"], eta)
                continue
            b1, b2 = keys["b1"], keys.get("b2")
            m = add(scaled(everywhere["m"], b1), delta, 1 - b1)
            square = {name_: d * d for name_, d in delta.items()}
            v = everywhere["v"]
            if name == "fedadagrad":
                v = add(v, square)
            elif name == "fedadam":
                v = add(scaled(v, b2), square, 1 - b2)
            else:
                v = {i: v[i] - (1 - b2) * square[i] * np.sign(v[i] - square[i]) for i in v}
            everywhere = {"m": m, "v": v}
            w = {i: w[i] + eta * m[i] / (np.sqrt(v[i]) + keys["eps"]) for i in w}
        elif name == "scaffold":
            c = everywhere.get("c", zeros(w))
            models, moves = [], []
            for k in s:
                c_k = kept[k].get("c", zeros(w))
                w_k, tau = run(clients[k], extra=lambda _, c_k=c_k: minus(c, c_k))
                new = add(minus(c_k, c), minus(w, w_k), 1 / (tau * lr))
                moves.append(minus(new, c_k))
                kept[k]["c"] = new
                models.append(w_k)
            everywhere["c"] = add(c, mean(moves, even), len(s) / n_all)
            w = mean(models, even)
        elif name == "fednova":
            rho, steps, moves = keys.get("momentum", 0.0), [], []
            for k in s:
                w_k, tau = run(clients[k], momentum=rho)
                weight, velocity = 0.0, 0.0  # ‖a_k‖₁, by adding up how often each gradient counts
                for _ in range(tau):
                    velocity = rho * velocity + 1
                    weight += velocity
                steps.append(weight)
                moves.append(scaled(minus(w, w_k), 1 / weight))
            tau_eff = sum(p * tau for p, tau in zip(p_k, steps, strict=True)) / sum(p_k)
            w = add(w, mean(moves, p_k), -tau_eff)
        elif name == "feddyn":
            alpha, w_t = keys["alpha"], w
            h = everywhere.get("h", zeros(w))
            models = []
            for k in s:
                h_k = kept[k].get("h", zeros(w))
                w_k, _ = run(
                    clients[k],
                    extra=lambda p, h_k=h_k: minus(scaled(minus(p, w_t), alpha), h_k),
                )
                kept[k]["h"] = add(h_k, minus(w_k, w), -alpha)
                models.append(w_k)
            for w_k in models:
                h = add(h, minus(w_k, w), -alpha / n_all)
            everywhere["h"] = h
            w = add(mean(models, even), h, -1 / alpha)
        else:
            raise AssertionError(name)
    return w
