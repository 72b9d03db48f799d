"""The fastest synchronization that any schedule can reach, as a linear program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import block_array, csr_array, eye_array, kron

from geojax.overlay.bounds.linear_program import maximize
from geojax.overlay.view import NetworkView


def fluid_optimum(
    view: NetworkView, members: Sequence[str], sources: Sequence[str] | None = None
) -> float:
    """The largest rate at which vectors can be summed over all members and given back to them.

    Every element is reduced at some root and broadcast from there, up and down at the same time.
    With x_v the rate that has its root at v and X = Σ x_v; g_e and h_e what link e gives to
    broadcasts and to reductions; f^u, for every member u, a flow from the roots to u; and r^u, for
    every source u, one from u to the roots::

        maximize X  subject to
        f^u_e ≤ g_e,  r^u_e ≤ h_e,  g_e + h_e ≤ c_e
        out(f^u, w) - in(f^u, w) ≤ x_w - [w = u] X        for all members u, all w
        in(r^u, w) - out(r^u, w) ≤ x_w - [w = u] X        for all sources u, all w
        Σ_{e out of i} (g_e + h_e) ≤ O_i,  Σ_{e into i} (g_e + h_e) ≤ I_i

    When all centers are members and sources, g and h decompose into weighted trees from and to the
    roots (Edmonds, *Edge-Disjoint Branchings*, 1973), so that pipelining small chunks along them
    comes as near to X as one likes; Beaumont et al. (*Pipelining Broadcasts on Heterogeneous
    Platforms*, IPDPS 2004) do so for one broadcast. With further centers that only relay or merge,
    X is still an upper bound. Assumed: full duplex, free addition, nothing compressed.

    Args:
      view: the WAN; links of rate 0 count as none.
      members: the centers that are given the sum.
      sources: those whose vectors are summed; None: all members.

    Returns:
      X in bit/s; infinity for less than two members, and 0 where they cannot all reach each other.

    Raises:
      GeojaxError: if the solver fails.

    >>> view = NetworkView(("a", "b"), rate={("a", "b"): 9e6, ("b", "a"): 5e6}, delay={})
    >>> fluid_optimum(view, view.centers)
    5000000.0
    """
    if len(members) < 2:
        return np.inf
    position = {center: index for index, center in enumerate(view.centers)}
    links = [(position[a], position[b]) for (a, b), rate in view.rate.items() if rate > 0]
    if not links:
        return 0.0
    sources = members if sources is None else sources
    nodes, count = len(position), len(links)
    ends = np.array(links)
    rate = np.array([rate for rate in view.rate.values() if rate > 0])
    unit = rate.max()
    one = np.ones(count)
    leaving = csr_array((one, (ends[:, 0], np.arange(count))), shape=(nodes, count))
    entering = csr_array((one, (ends[:, 1], np.arange(count))), shape=(nodes, count))
    taken, given = (
        _flows([position[user] for user in users], nodes, count) for users in (members, sources)
    )
    net = leaving - entering
    caps, cap_rows = _caps(view, position, leaving, entering)
    both = eye_array(count)
    # columns: x, g, h, f, r
    matrix = csr_array(
        block_array(
            [
                [None, -taken.share, None, taken.each, None],
                [None, None, -given.share, None, given.each],
                [taken.roots, None, None, kron(eye_array(len(members)), net), None],
                [given.roots, None, None, None, -kron(eye_array(len(sources)), net)],
                [None, both, both, None, None],
                *([[None, cap_rows, cap_rows, None, None]] if caps.size else []),
            ]
        )
    )
    free = (len(members) + len(sources)) * (count + nodes)
    limits = np.concatenate([np.zeros(free), np.concatenate([rate, caps]) / unit])
    gain = np.zeros(nodes + count * (2 + len(members) + len(sources)))
    gain[:nodes] = 1.0
    what = f"the bound of {nodes} centers was"
    found = maximize(gain, matrix, limits, what=what, method="highs-ipm").value * float(unit)
    return found if found > rate.min() * 1e-9 else 0.0


class _Flows(NamedTuple):
    """Blocks of the constraints of one flow for every user.

    Attributes:
      share: the row of link e in every user's block.
      each: every user's flow over every link.
      roots: [w = u] X - x_w in the row of every user u and center w.
    """

    share: csr_array
    each: csr_array
    roots: csr_array


def _flows(users: Sequence[int], nodes: int, links: int) -> _Flows:
    ones = np.ones((len(users), 1))
    picked = csr_array(
        (np.ones(len(users)), (np.arange(len(users)), users)), shape=(len(users), nodes)
    )
    roots = kron(picked.reshape(-1, 1), np.ones((1, nodes))) - kron(ones, eye_array(nodes))
    share = kron(ones, eye_array(links))
    return _Flows(csr_array(share), csr_array(eye_array(len(users) * links)), csr_array(roots))


def _caps(
    view: NetworkView, position: dict[str, int], leaving: csr_array, entering: csr_array
) -> tuple[np.ndarray, csr_array]:
    """The access caps, bit/s, and which links they hold for."""
    egress = [position[center] for center in view.egress]
    ingress = [position[center] for center in view.ingress]
    caps = np.array([*view.egress.values(), *view.ingress.values()], float)
    return caps, csr_array(block_array([[leaving[egress]], [entering[ingress]]]))
