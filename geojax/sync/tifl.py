"""TiFL: in every round, some centers of one tier of equally fast ones contribute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from geojax.config import SyncConfig
from geojax.errors import ConfigError
from geojax.settings import key
from geojax.sync.algorithm import SYNCS, Choice, HostedService, RunFacts, SyncAlgorithm
from geojax.sync.fedat import by_speed
from geojax.sync.parts import barrier, delta_offer, fixed_steps, weighted_mean
from geojax.sync.tifl_policy import ADAPTIVE, PUBLISHED, drawn, probabilities
from geojax.sync.tifl_state import DONE, ENTER, JUDGED, TiflState

SERVICE = "tifl"
TIERS, PROFILING, INTERVAL, HELD_OUT = 2, 3, 10, 100  # what null stands for
POLICIES = (ADAPTIVE, "fast", *PUBLISHED, "slow", "uniform", "vanilla")


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
    profiling_rounds: int | None = key(
        None,
        "rounds that are timed to make tiers; 0: tiers by the configured paces; null: 3",
        least=0,
    )
    timeout_s: float | None = key(
        None,
        "T_max: who takes as long in the timed rounds, on average, drops out; null: nobody",
        unit="s",
        above=0,
    )
    interval: int | None = key(
        None, "I: rounds between two looks at the tiers' accuracies (adaptive); null: 10", least=1
    )
    credits: int | None = key(
        None, "rounds that a tier may get (adaptive); null: rounds / tiers", least=1
    )
    held_out: int | None = key(
        None, "samples of each worker that accuracies are of (adaptive); null: 100", least=1
    )

    def check(self) -> None:
        """See :meth:`geojax.settings.Settings.check`."""
        count = self.tiers or TIERS
        if self.policy in PUBLISHED and count != len(PUBLISHED[self.policy]):
            fix = f"is published for five tiers; use sync.policy=uniform with {count}, or "
            raise ConfigError("sync.policy", self.policy, f"{fix}sync.tiers=5")
        if self.policy == "vanilla" and self.tiers is not None:
            fix = "sync.policy=vanilla has no tiers; leave it out, or use sync.policy=uniform"
            raise ConfigError("sync.tiers", self.tiers, fix)
        if self.policy == "vanilla" and self.profiling_rounds:
            fix = "sync.policy=vanilla has no tiers to make; use 0, or sync.policy=uniform"
            raise ConfigError("sync.profiling_rounds", self.profiling_rounds, fix)
        if self.timeout_s is not None and not self.timed:
            fix = "no round is timed; leave it out, or use sync.profiling_rounds=3 with tiers"
            raise ConfigError("sync.timeout_s", self.timeout_s, fix)
        for name in ("interval", "credits", "held_out"):
            if self.policy != ADAPTIVE and getattr(self, name) is not None:
                fix = f"sync.policy={self.policy} goes by no accuracy; leave it out"
                raise ConfigError(f"sync.{name}", getattr(self, name), fix)

    @property
    def timed(self) -> int:
        """Rounds that are timed."""
        if self.policy == "vanilla":
            return 0
        return PROFILING if self.profiling_rounds is None else self.profiling_rounds


def tifl(
    *, steps: int, count: int, clients: int | None = None, policy: str = "uniform",
    profiling_rounds: int = PROFILING, timeout_s: float | None = None, interval: int = INTERVAL,
    credit: int | None = None, held_out: int = HELD_OUT,
) -> SyncAlgorithm:  # fmt: skip
    """Tier-based federated learning.

    Centers are parted into m tiers by how long they take. A round draws a tier, and |C| of its
    centers uniformly; these take local steps from the present parameters, which become the mean of
    theirs, weighted by samples. All others only receive the result. So a round lasts as long as its
    tier needs. Probabilities of the tiers, the fastest first:

    =========  =============================================
    uniform    1/m each
    fast       1, 0, …
    slow       0, …, 1
    random     0.7, 0.1, 0.1, 0.05, 0.05 (five tiers)
    fast1      0.225 each but the slowest, 0.1 (five tiers)
    fast2      0.2375 each but the slowest, 0.05 (five tiers)
    fast3      0.25 each but the slowest, 0 (five tiers)
    adaptive   1/m each at first; see below
    vanilla    no tiers: |C| of all centers
    =========  =============================================

    **Profiling.** All centers contribute to the first ``profiling_rounds`` rounds, and the
    scheduler times them: from its answer to a worker until the worker tells that its offer is made,
    and for as long as the offer was then being sent. That time comes with the next round, to which
    all contribute, too. A round that a center missed, or took longer for, counts T_max; who takes
    T_max on average drops out and never contributes again. A center is as slow as its slowest
    worker. With 0 profiling rounds tiers go by the configured paces, before any disturbance.

    **Adaptive.** A round takes one of its tier's credits, and no tier without credits is drawn.
    Every I rounds all workers tell how many of their held-out samples the round's parameters get
    right. Where that share, over its tier, of the tier of the round before is no higher than I
    rounds ago, probabilities change (:func:`geojax.sync.tifl_policy.changed`): the lower a tier's
    accuracy, the likelier it is drawn.

    Differs from the paper: a profiling round waits for all, as every round here does, so T_max
    bounds what is counted and not how long it lasts. Tiers are equally large, while the paper
    splits a histogram. Test data of a tier is what its workers hold out; the paper evaluates after
    each round, here it is every I rounds, which is all that the rule looks at, and new
    probabilities count one round later. A judgement is charged a third of a step a batch.

    Reconstructed: rounds/m credits a tier, as other implementations have it. The paper's draw never
    ends once all credits are spent, or only tiers of probability 0 have any left; here all tiers
    get their credits anew in the first case, and those tiers are equally likely in the second.

    A chosen center that dies contributes nothing; a round without any contribution leaves the
    parameters as they are. Profile and credits are in no checkpoint: a continued run profiles anew.

    Args:
      steps: local steps, at least 1.
      count: m; of ``vanilla`` it does not matter.
      clients: |C|, at most the centers of the largest tier; None: the whole tier. A tier that has
        fewer, also because some are gone, contributes as a whole.
      policy: see above.
      profiling_rounds: see above; none with ``vanilla``.
      timeout_s: T_max, s; None: nobody drops out but who has answered in no profiling round.
      interval: I.
      credit: rounds that each tier may get; None: the run's rounds / m, rounded up.
      held_out: samples that each worker keeps from training in an adaptive run.

    References:
      Chai et al., *TiFL: A Tier-based Federated Learning System*, HPDC 2020, §4, table 1 and
      Algorithm 2, arXiv 2001.09249.
    """
    count = 1 if policy == "vanilla" else count
    least = ("sync.tiers", count, count)
    algorithm = SyncAlgorithm(
        "tifl", delta_offer(), fixed_steps(steps), barrier()._replace(least=least),
        weighted_mean(), "average", weights="samples",
    )  # fmt: skip

    def for_run(facts: RunFacts) -> SyncAlgorithm:
        tier_of = by_speed(facts, count)
        there = len(facts.centers)
        largest = -(-there // count)
        if clients is not None and clients > largest and count <= there:
            among = f"{there} centers" if count == 1 else f"{there} centers in {count} tiers"
            fix = f"there are {among}, so at most {largest} contribute to a round; use that or less"
            raise ConfigError("sync.clients", clients, fix)
        timed = 0 if policy == "vanilla" else profiling_rounds
        if timed or policy == ADAPTIVE:
            state = partial(
                TiflState, policy=policy, count=count, clients=clients, seed=facts.seed,
                profiling_rounds=timed, timeout_s=timeout_s, interval=interval,
                credit=credit or -(-facts.rounds // count), tier_of=None if timed else tier_of,
                first=facts.first,
            )  # fmt: skip
            choice = Choice(
                SERVICE,
                entered=lambda number, push_s: {"op": ENTER, "round": number, "push_s": push_s},
                contributes=lambda answer: answer.get("contributes") is True,
                judges=lambda answer: answer.get("judges") is True,
                judged=lambda number, right, of: {
                    "op": JUDGED, "round": number, "right": right, "of": of,
                },
                ended=lambda number: {"op": DONE, "round": number},
                held_out=held_out if policy == ADAPTIVE else 0,
            )  # fmt: skip
            services = (HostedService(SERVICE, True, state),)
            return algorithm._replace(choice=choice, services=services)
        tiers = [
            [c for c in facts.centers if tier_of[c] == t] for t in range(1 + max(tier_of.values()))
        ]
        chances = probabilities(policy, len(tiers))

        def contributors(number: int) -> tuple[str, ...]:
            return drawn(tiers, chances, clients, facts.seed, number)

        return algorithm._replace(contributors=contributors)

    return algorithm._replace(for_run=for_run)


@SYNCS.register("tifl", TiflConfig)
def _configured(config: TiflConfig) -> SyncAlgorithm:
    return tifl(
        steps=config.local_steps, count=config.tiers or TIERS, clients=config.clients,
        policy=config.policy, profiling_rounds=config.timed, timeout_s=config.timeout_s,
        interval=config.interval or INTERVAL, credit=config.credits,
        held_out=config.held_out or HELD_OUT,
    )  # fmt: skip
