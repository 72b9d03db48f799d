"""TiFL: in every round, some centers of one tier of equally fast ones contribute."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geojax.config import SyncConfig
from geojax.errors import ConfigError
from geojax.settings import key
from geojax.sync.algorithm import SYNCS, RunFacts, SyncAlgorithm
from geojax.sync.fedat import by_speed
from geojax.sync.parts import barrier, delta_offer, fixed_steps, weighted_mean

PUBLISHED = {  # the paper's policies for five tiers
    "fast1": (0.225, 0.225, 0.225, 0.225, 0.1),
    "fast2": (0.2375, 0.2375, 0.2375, 0.2375, 0.05),
    "fast3": (0.25, 0.25, 0.25, 0.25, 0.0),
    "random": (0.7, 0.1, 0.1, 0.05, 0.05),
}
TIERS = 2
POLICIES = ("fast", *PUBLISHED, "slow", "uniform", "vanilla")


@dataclass
class TiflConfig(SyncConfig):
    """Keys of ``sync=tifl``."""

    name: str = "tifl"
    local_steps: int = key(10, "local steps of a chosen center's workers", least=1)
    tiers: int | None = key(
        None, "m: groups of centers by speed; at most as many as centers; null: 2", least=1
    )
    clients: int | None = key(
        None, "|C|: centers of the tier that contribute to a round; null: all of it", least=1
    )
    policy: str = key("uniform", "how a round's tier is drawn", choices=POLICIES)

    def check(self) -> None:
        """See :meth:`geojax.settings.Settings.check`."""
        count = self.tiers or TIERS
        if self.policy in PUBLISHED and count != len(PUBLISHED[self.policy]):
            fix = f"is published for five tiers; use sync.policy=uniform with {count}, or "
            raise ConfigError("sync.policy", self.policy, f"{fix}sync.tiers=5")
        if self.policy == "vanilla" and self.tiers is not None:
            fix = "sync.policy=vanilla has no tiers; leave it out, or use sync.policy=uniform"
            raise ConfigError("sync.tiers", self.tiers, fix)


def tifl(
    *, steps: int, count: int, clients: int | None = None, policy: str = "uniform"
) -> SyncAlgorithm:
    """Tier-based federated learning with a static policy.

    Centers are parted into m tiers by their speeds. A round draws a tier, and |C| of its centers
    uniformly; these take local steps from the present parameters, which become the mean of theirs,
    weighted by samples. All others only receive the result. So a round lasts as long as its tier
    needs. Probabilities of the tiers, the fastest first:

    =========  =============================================
    uniform    1/m each
    fast       1, 0, …
    slow       0, …, 1
    random     0.7, 0.1, 0.1, 0.05, 0.05 (five tiers)
    fast1      0.225 each but the slowest, 0.1 (five tiers)
    fast2      0.2375 each but the slowest, 0.05 (five tiers)
    fast3      0.25 each but the slowest, 0 (five tiers)
    vanilla    no tiers: |C| of all centers
    =========  =============================================

    In the paper profiling rounds measure how long every client takes. Here tiers go by the
    configured paces, before any disturbance, and profiling costs no time. Its adaptive policy (by
    each tier's accuracy, with credits) is not here. A chosen center that is dead contributes
    nothing; a round without any contribution leaves the parameters as they are.

    Args:
      steps: local steps, at least 1.
      count: m; of ``vanilla`` it does not matter.
      clients: |C|; None: the whole tier. A tier that has fewer contributes as a whole.
      policy: see above.

    References:
      Chai et al., *TiFL: A Tier-based Federated Learning System*, HPDC 2020, §4 and table 1, arXiv
      2001.09249.
    """
    count = 1 if policy == "vanilla" else count
    algorithm = SyncAlgorithm(
        "tifl", delta_offer(), fixed_steps(steps),
        barrier()._replace(least=("sync.tiers", count, count)), weighted_mean(), "average",
        weights="samples",
    )  # fmt: skip

    def for_run(facts: RunFacts) -> SyncAlgorithm:
        tier_of = by_speed(facts, count)
        tiers = [
            [c for c in facts.centers if tier_of[c] == t] for t in range(1 + max(tier_of.values()))
        ]
        chances = probabilities(policy, len(tiers))

        def contributors(number: int) -> tuple[str, ...]:
            return drawn(tiers, chances, clients, facts.seed, number)

        return algorithm._replace(contributors=contributors)

    return algorithm._replace(for_run=for_run)


def probabilities(policy: str, count: int) -> tuple[float, ...]:
    """The probability of each tier, the fastest first.

    >>> probabilities("fast", 3), probabilities("slow", 2)
    ((1.0, 0.0, 0.0), (0.0, 1.0))
    >>> [sum(probabilities(policy, 5)) for policy in POLICIES]
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if policy in ("fast", "slow"):
        chosen = 0 if policy == "fast" else count - 1
        return tuple(float(tier == chosen) for tier in range(count))
    return PUBLISHED.get(policy, (1 / count,) * count)


def drawn(
    tiers: Sequence[Sequence[str]], chances: Sequence[float], clients: int | None, seed: int,
    number: int,
) -> tuple[str, ...]:  # fmt: skip
    """The contributors of a round: a function of the seed and the round alone.

    Args:
      tiers: the centers of each.
      chances: the probability of each tier.
      clients: how many of the tier; None: all.
      seed: of the run.
      number: the round.
    """
    stream = np.random.default_rng([seed, zlib.crc32(b"tifl"), number])
    tier = tiers[stream.choice(len(tiers), p=chances)]
    if clients is None or clients >= len(tier):
        return tuple(tier)
    chosen = sorted(stream.choice(len(tier), clients, replace=False))
    return tuple(str(tier[at]) for at in chosen)


@SYNCS.register("tifl", TiflConfig)
def _configured(config: TiflConfig) -> SyncAlgorithm:
    return tifl(
        steps=config.local_steps, count=config.tiers or TIERS, clients=config.clients,
        policy=config.policy,
    )  # fmt: skip
