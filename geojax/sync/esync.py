"""ESync: everybody trains for as long as the slowest one needs, so that all arrive together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from geojax.config import SyncConfig
from geojax.errors import ConfigError
from geojax.settings import key
from geojax.sync.algorithm import (
    SYNCS,
    HostedService,
    InRound,
    LocalStepPolicy,
    SyncAlgorithm,
)
from geojax.sync.esync_state import DONE, QUERY, REPORT, EsyncState, told
from geojax.sync.parts import barrier, delta_offer, weighted_mean

SERVICE, OF_CENTERS = "esync", "esync_centers"
MOST_LAN_ROUNDS = 1000
_GUARD_S = {"journal": 0.0, "preprint": 0.5}  # ε of the preprint
_WEIGHTS = {"journal": "samples", "preprint": "uniform"}


@dataclass
class EsyncConfig(SyncConfig):
    """Keys of ``sync=esync``."""

    name: str = "esync"
    variant: str = key("journal", "which paper's rule", choices=("journal", "preprint"))
    level: str = key(
        "centers", "who is aligned: centers, the workers within each center, or both",
        choices=("both", "centers", "workers"),
    )  # fmt: skip
    min_local_steps: int = key(1, "h0: local steps of the straggler in a round", least=1)
    max_local_steps: int | None = key(
        None, "most local steps of anybody in a round; null: any number", least=1
    )
    guard_s: float | None = key(
        None, "who would arrive this late does not train; null: the variant's", unit="s", least=0
    )
    weights: str | None = key(
        None, "what an offer counts; null: the variant's", choices=("samples", "uniform")
    )
    query: str = key(
        "wait", "wait for each answer, or begin the next step meanwhile",
        choices=("in_flight", "wait"),
    )  # fmt: skip
    max_lan_rounds: int | None = key(
        None, "level=both: most exchanges within a center in one over the WAN; null: 1000", least=1
    )
    evict_after_s: float = key(
        10.0, "silence after which nobody waits for a straggler", unit="s", above=0
    )

    def check(self) -> None:
        """See :meth:`geojax.settings.Settings.check`."""
        most = self.max_local_steps
        if most is not None and most < self.min_local_steps:
            fix = (
                f"is above sync.max_local_steps = {most}; use sync.min_local_steps={most}, or "
                f"sync.max_local_steps={self.min_local_steps}"
            )
            raise ConfigError("sync.min_local_steps", self.min_local_steps, fix)
        if self.max_lan_rounds is not None and self.level != "both":
            fix = f"sync.level={self.level} does not read it; use sync.level=both, or leave it out"
            raise ConfigError("sync.max_lan_rounds", self.max_lan_rounds, fix)


def esync(
    *,
    variant: str = "journal",
    level: str = "centers",
    least: int = 1,
    most: int | None = None,
    guard_s: float | None = None,
    weights: str | None = None,
    in_flight: bool = False,
    evict_after_s: float = 10.0,
    most_lan_rounds: int = MOST_LAN_ROUNDS,
) -> SyncAlgorithm:
    """Every member takes as many local steps as fit into the time that the slowest one needs.

    After each step a member k asks a *state server* whether one more is due. With c_k, the
    duration of its last step, and m_k, the time to push its offer, its delay is d_k = c_k + m_k
    and the straggler is s = argmax d_k (equation 1). The straggler's offer will arrive at
    t̂_s = t_s + d_s (equation 2), t_s being when it entered the round; member k trains on while
    t_c + d_k ≤ t̂_s (equation 3), t_c being now. The straggler itself takes h0 = ``least`` steps;
    with more than one, d_s is h0 c_s + m_s (reconstructed). Then all exchange at a barrier:
    w ← w + Σ_k (n_k/n) Δ_k, Δ_k being how far member k has moved. Members with equal delays all
    take h0 steps, which is ``local_steps`` (with h0 = 1 and plain SGD: FSA).

    The variant ``preprint`` differs: a delay is c_k alone, ε = 0.5 s is added to it, whether the
    straggler is done is only known when it was told to exchange, and offers count all the same.

    What is reconstructed here: the state server stamps times when it handles a message; m_k is the
    time for which the offer was being sent (m_k is 0 before the first one); nobody's first step has
    been timed in the first round, so all take h0 steps in it; a member that is silent for longer
    than ``evict_after_s`` and 3 d_k is left out of the argmax; a told duration counts no more than
    what the server has observed.

    Args:
      variant: ``journal`` or ``preprint``.
      level: ``centers``: the scheduler's state server aligns centers of one worker each;
        ``workers``: each local server has one that aligns the workers of its center; ``both``: so
        it does, and the scheduler's aligns centers by how often their workers exchange within the
        center before an exchange over the WAN.
      least: h0, at least 1.
      most: local steps that nobody exceeds in a round; None: any number.
      guard_s: added to d_k in equation 3, s; None: 0 in the journal, 0.5 in the preprint.
      weights: ``samples`` (n_k/n) or ``uniform``; None: as the variant has it.
      in_flight: the next step begins while the question is under way, and is given up if it was
        not due (the preprint's delayed answers).
      evict_after_s: see above.
      most_lan_rounds: of ``both``: exchanges within a center that no round exceeds.

    References:
      Li et al., *ESync: Accelerating Intra-Domain Federated Learning in Heterogeneous Data
      Centers*, IEEE TSC 15(4), 2022, Algorithms 1 to 3; Li et al., *ESync: An Efficient Synchronous
      Parallel Algorithm for Distributed ML in Heterogeneous Clusters*, 2019 (the preprint).
    """
    guard = _GUARD_S[variant] if guard_s is None else guard_s
    counted = weights or _WEIGHTS[variant]
    state = partial(EsyncState, variant=variant, guard_s=guard, evict_after_s=evict_after_s)
    rule = InRound(
        SERVICE,
        entered=partial(told, REPORT),
        asked=partial(told, QUERY),
        due=lambda answer: answer.get("train") is True,
        ended=partial(told, DONE),
        least=least,
        most=most,
        in_flight=in_flight,
    )
    workers = partial(state, least=least)
    steps = LocalStepPolicy(f"esync({variant}, h0={least})", lambda _: least, rule)
    services, inner = (HostedService(SERVICE, level == "centers", workers),), None
    if level == "both":
        per = most_lan_rounds
        among = rule._replace(service=OF_CENTERS, least=1, most=per, in_flight=False)
        inner = LocalStepPolicy(f"esync({variant})", lambda _: 1, among)
        services = (
            HostedService(SERVICE, False, partial(workers, lan_rounds=per)),
            HostedService(OF_CENTERS, True, state),
        )
    return SyncAlgorithm(
        "esync",
        delta_offer(),
        steps,
        barrier(),
        weighted_mean(),
        "average",
        weights="samples" if counted == "samples" else "steps",
        services=services,
        lan_rounds=most_lan_rounds if level == "both" else 1,
        inner=inner,
    )


@SYNCS.register("esync", EsyncConfig)
def _configured(config: EsyncConfig) -> SyncAlgorithm:
    return esync(
        variant=config.variant, level=config.level, least=config.min_local_steps,
        most=config.max_local_steps, guard_s=config.guard_s, weights=config.weights,
        in_flight=config.query == "in_flight", evict_after_s=config.evict_after_s,
        most_lan_rounds=config.max_lan_rounds or MOST_LAN_ROUNDS,
    )  # fmt: skip
