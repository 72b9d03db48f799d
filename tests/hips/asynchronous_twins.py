"""Asynchronous algorithms as a person reads them first: one loop over arrivals, one vector each.

``order`` lists (center, round) as pushes come to the server, ``train(center, round, parameters)``
is what a center makes of the parameters that it was sent. Everything is float32.
"""

import numpy as np


def fedasync_loop(order, centers, start, train, alpha, s):
    """Xie et al. (2019), Algorithm 1: returns the model, and the staleness of every arrival."""
    x = start
    sent = dict.fromkeys(centers, (start, 0))  # what each center has, and its time stamp
    staleness = []
    for t, (center, number) in enumerate(order):
        x_old, tau = sent[center]
        x_new = train(center, number, x_old)
        alpha_t = np.float32(alpha * s(t - tau))
        x = (np.float32(1) - alpha_t) * x + alpha_t * x_new
        staleness.append(t - tau)
        sent[center] = (x, t + 1)
    return x, staleness


def fedbuff_loop(order, centers, start, train, size, s, rate):
    """Nguyen et al. (2022), Algorithm 1: returns the model, and the staleness of every arrival."""
    w, steps = start, 0
    sent = dict.fromkeys(centers, (start, 0))
    buffer, staleness = [], []
    for center, number in order:
        w_start, then = sent[center]
        delta = w_start - train(center, number, w_start)
        buffer.append((delta, then))
        if len(buffer) == size:
            staleness += [steps - since for _, since in buffer]
            weighted = [np.float32(s(steps - since)) * each for each, since in buffer]
            w = w - np.float32(rate) * (sum(weighted[1:], weighted[0]) / np.float32(size))
            steps, buffer = steps + 1, []
        sent[center] = (w, steps)
    return w, staleness


def dc_aha_loop(order, centers, start, train, lam, s, shares, local_lr, rate, memory=0.95):
    """The reconstruction, in float64."""
    w, mean_square = start.astype(np.float64), 0.0
    sent = dict.fromkeys(centers, (w, 0))
    for t, (center, number) in enumerate(order):
        backup, then = sent[center]
        g = (backup - train(center, number, backup.astype(np.float32))) / local_lr
        mean_square = memory * mean_square + (1 - memory) * g * g
        corrected = g + lam / np.sqrt(mean_square + 1e-7) * g * g * (w - backup)
        w = w - rate * s(t - then) * shares[center] * corrected
        sent[center] = (w, t + 1)
    return w


def fedat_loop(updates, start, train, tier_of, count):
    """Chai et al. (2021), Algorithm 2: ``updates`` lists the (center, round) pairs of each merge.

    All centers hold equally many samples.
    """
    models, counts, w = [start] * count, np.zeros(count), start
    sent = dict.fromkeys(tier_of, start)
    for pushes in updates:
        tier = tier_of[pushes[0][0]]
        models[tier] = np.mean([train(c, n, sent[c]) for c, n in pushes], axis=0)
        counts[tier] += 1
        w = sum(counts[count - 1 - m] / counts.sum() * models[m] for m in range(count))
        for center, _ in pushes:
            sent[center] = w.astype(np.float32)
    return w


def delayed_nesterov_loop(step, beta, size):
    """Liu et al. (2024), Algorithm 3 with c = 0 and ε = step·N: ``move(parameters, gradient)``."""
    seen, total, momentum = 0, np.float32(0), np.float32(0)

    def move(w, g):
        nonlocal seen, total, momentum
        seen, total = seen + 1, total + g
        w = w - np.float32(step) * g
        if seen % size == 0:
            momentum = np.float32(beta) * momentum + total / np.float32(size)
            w, total = w - np.float32(step * size * beta) * momentum, np.float32(0)
        return w

    return move


def halos_loop(order, centers, start, train, offers, share, local, total):
    """Kim et al. (2025), Algorithm 1, with what the authors' simulator does in between.

    ``order`` lists (tier, member, round) as servers merge: ("lan", "c1/w0", 3) is a worker's push,
    ("wan", "c1", 1) a center's, ("lan", "c1", 1) the global model that came back for it. ``local``
    and ``total`` are step, β and N. Returns the global model and that of every center.
    """
    globally, step_global = start, delayed_nesterov_loop(*total)
    w, reference = dict.fromkeys(centers, start), dict.fromkeys(centers, start)
    step_in = {center: delayed_nesterov_loop(*local) for center in centers}
    count, offered, answered, sent = dict.fromkeys(centers, 0), {}, {}, {}
    for tier, member, number in order:
        center = member.partition("/")[0]
        if tier == "wan":
            globally = step_global(globally, reference[center] - offered[center])
            answered[center] = globally
        elif member == center:
            kept = np.float32(1 - share)
            w[center] = kept * w[center] + np.float32(share) * answered[center]
            reference[center], count[center] = w[center], 0
        else:
            begun = sent.get(member, start)
            w[center] = step_in[center](w[center], begun - train(member, number, begun))
            sent[member], count[center] = w[center], count[center] + 1
            if count[center] == offers:
                offered[center] = w[center]
    return globally, w
