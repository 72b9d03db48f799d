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
