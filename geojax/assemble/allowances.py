"""What a worker's and a center's offers may weigh, and how many local steps they may stand for.

Both follow from the run's plan. A weight that a sender makes and a bound that a receiver checks it
by come from the same functions: :func:`worker_weight`, :func:`step_weight`, and what a federated
algorithm says of its clients.
Steps are those that the local-step policy knows or, where it decides while the round runs, allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from geojax.assemble.clients import usual_of
from geojax.assemble.fleets import build_fleet, has_devices, step_weight
from geojax.assemble.setup import Setup
from geojax.center.pace import relative_speeds
from geojax.hips.exchange.contribution import (
    PARAMETERS,
    Allowance,
    Allowances,
    Share,
    StepsOf,
    together,
)
from geojax.models.registry import SYNTHETIC
from geojax.selection.registry import build_selection
from geojax.sync.algorithm import LocalStepPolicy, SyncAlgorithm
from geojax.sync.client import ClientRule


def worker_weight(name: str, setup: Setup, algorithm: SyncAlgorithm) -> float:
    """The weight of a worker's offers, 1 on average over all workers."""
    if algorithm.weights != "samples" or setup.config.model.name == SYNTHETIC:
        return 1.0
    sizes = {trainer: len(part) for trainer, part in setup.parts().items()}
    return sizes[name] * len(sizes) / sum(sizes.values())


def of_workers(setup: Setup, algorithm: SyncAlgorithm) -> Mapping[str, Allowance]:
    """What one offer of each worker may carry."""
    return setup.shared("allowances", lambda: _of_workers(setup, algorithm))


def _of_workers(setup: Setup, algorithm: SyncAlgorithm) -> Mapping[str, Allowance]:
    names, policy = setup.cluster.trainers, algorithm.local_steps
    if policy.for_speed is None:  # one object, so that a sum of many asks it once
        steps = dict.fromkeys(names, _of_policy(policy, algorithm.lan_rounds))
    else:
        speeds = relative_speeds(setup.config, names)
        steps = {
            name: _of_policy(policy.for_speed(speeds[name]), algorithm.lan_rounds) for name in names
        }
    return {name: _of_worker(setup, name, algorithm, steps[name]) for name in names}


def of_centers(setup: Setup, algorithm: SyncAlgorithm) -> Allowances:
    """What one offer of each center may carry over the WAN."""
    return setup.shared("allowances of centers", lambda: Allowances(_of_centers(setup, algorithm)))


def _of_centers(setup: Setup, algorithm: SyncAlgorithm) -> Mapping[str, Allowance]:
    cluster, workers = setup.cluster, of_workers(setup, algorithm)
    if algorithm.lan is not None:  # how far so many offers have moved the center's model
        pushes = 0 if setup.config.nonfinite == "skip" else algorithm.lan.offers
        moved = Allowance((Share(1.0, 1.0),), steps=lambda _: (pushes, math.inf))
        return dict.fromkeys(cluster.servers, moved)
    found = {}
    for center in cluster.servers:
        allowed = together(workers[name] for name in cluster.workers(center) or (center,))
        if algorithm.weights == "centers":
            count = len(allowed.shares)
            allowed = replace(allowed, shares=(Share(1.0, 1.0, count),))
        found[center] = replace(allowed, steps=_over_lan_rounds(allowed, algorithm))
    return found


def _over_lan_rounds(allowed: Allowance, algorithm: SyncAlgorithm) -> StepsOf:
    """Of one worker in a center's offer, whose LAN rounds are all in it.

    Workers that died since may have taken part in some of these, and one that is back in the last
    one only.
    """
    per = algorithm.lan_rounds
    workers = sum(share.contributors for share in allowed.shares)
    if per == 1:
        return allowed.steps

    def steps(number: int) -> tuple[int, float]:
        spans = [allowed.steps(number * per + at) for at in (0, per - 1)]
        return min(least for least, _ in spans), workers * per * max(most for _, most in spans)

    return steps


def of_lan(setup: Setup, center: str, algorithm: SyncAlgorithm) -> Allowances:
    """What one offer of each member of a center may carry over its LAN."""
    workers = of_workers(setup, algorithm)
    mine = {name: workers[name] for name in setup.cluster.workers(center)}
    if algorithm.lan is not None:  # its server pushes what came back from the WAN
        mine[center] = PARAMETERS
    return Allowances(mine)


def _of_worker(setup: Setup, name: str, algorithm: SyncAlgorithm, steps: StepsOf) -> Allowance:
    if algorithm.client is not None:
        least, most = _of_clients(setup, name, algorithm.client)
    elif has_devices(setup.config):
        selection = build_selection(setup.config.selection)
        least = most = step_weight(setup, name, algorithm, selection)
    else:
        least = most = 1.0
    factor = worker_weight(name, setup, algorithm)
    shares = (Share(factor * least, factor * most),)
    return Allowance(shares, skips=setup.config.nonfinite == "skip", steps=steps)


def _of_policy(policy: LocalStepPolicy, lan_rounds: int) -> StepsOf:
    """The local steps of a worker in a LAN round."""
    if policy.in_round is not None:
        least, most = policy.in_round.least, policy.in_round.most or math.inf
        return lambda _: (least, most)

    def known(number: int) -> tuple[int, float]:
        steps = policy.steps(number // lan_rounds)
        return steps, steps

    return known


def _of_clients(setup: Setup, name: str, rule: ClientRule) -> tuple[float, float]:
    """The smallest and the largest weight of the clients that take part in a worker's round.

    Where an algorithm finds weights while it runs (IDA's reciprocal distances), there is no bound.
    """
    if rule.mix is not None:
        return 0.0, math.inf
    sizes, wanted = [len(setup.part(name))], 1
    if has_devices(setup.config):
        fleet = build_fleet(setup, name)
        sizes = [len(part) for part in fleet.parts]
        wanted = build_selection(setup.config.selection).wanted(fleet.count)
    usual = usual_of(setup)
    if rule.weights != "samples":
        return wanted / usual.clients, wanted / usual.clients
    ordered = np.sort(sizes) / (usual.samples * usual.clients)
    return float(ordered[:wanted].sum()), float(ordered[-wanted:].sum())
