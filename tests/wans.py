"""Views of WANs made for tests."""

import numpy as np

from geojax.overlay.view import NetworkView

__all__ = ["full_mesh", "path", "random_wan", "ring", "wan_of"]


def wan_of(count, edges, *, rate=1.0, delay=0.01, egress=None, ingress=None):
    """Centers c1, c2, …; ``edges``: pairs of numbers from 0; caps: of every center."""
    centers = tuple(f"c{number}" for number in range(1, count + 1))
    named = [(centers[a], centers[b]) for a, b in edges]
    rates = dict(zip(named, np.broadcast_to(rate, len(named)).tolist(), strict=True))

    def caps(cap):
        return {} if cap is None else dict.fromkeys(centers, cap)

    return NetworkView(
        centers, rates, dict.fromkeys(named, delay), egress=caps(egress), ingress=caps(ingress)
    )


def full_mesh(count, **options):
    return wan_of(count, [(a, b) for a in range(count) for b in range(count) if a != b], **options)


def ring(count, **options):
    there = [(node, (node + 1) % count) for node in range(count)]
    return wan_of(count, there + [(b, a) for a, b in there], **options)


def path(count, **options):
    there = [(node, node + 1) for node in range(count - 1)]
    return wan_of(count, there + [(b, a) for a, b in there], **options)


def random_wan(seed, *, most=7, caps=True):
    """A ring and random chords with random rates each way; half of them with random caps."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, most + 1))
    pairs = {(node, node + 1) for node in range(count - 1)} | {(0, count - 1)}
    extra = rng.integers(0, count, (int(rng.integers(0, 2 * count)), 2)).tolist()
    pairs |= {(min(pair), max(pair)) for pair in extra if pair[0] != pair[1]}
    edges = sorted(pairs) + [(b, a) for a, b in sorted(pairs)]
    view = wan_of(count, edges, rate=rng.integers(20, 156, len(edges)) * 1e6)
    if not caps or rng.random() < 0.5:
        return view
    egress, ingress = (
        {c: float(rng.integers(50, 400)) * 1e6 for c in view.centers if rng.random() < 0.6}
        for _ in range(2)
    )
    return NetworkView(view.centers, view.rate, view.delay, egress=egress, ingress=ingress)
