"""HFA: centers average alone every K1 steps, and all together every K1 · K2 steps."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.algorithm import SYNCS, SyncAlgorithm
from geojax.sync.parts import barrier, delta_offer, fixed_steps, weighted_mean


@dataclass
class HfaConfig(SyncConfig):
    """Keys of ``sync=hfa``."""

    name: str = "hfa"
    local_steps: int = key(1, "K1: steps of a worker before an exchange over the LAN", least=1)
    lan_rounds: int = key(1, "K2: exchanges over the LAN in one over the WAN", least=1)


@dataclass
class HierfavgConfig(HfaConfig):
    """Keys of ``sync=hierfavg``."""

    name: str = "hierfavg"


def hfa(*, steps: int, lan_rounds: int) -> SyncAlgorithm:
    """Hierarchical frequency aggregation as in GeoMX.

    A worker takes K1 = ``steps`` local steps with its inner optimizer, whose state is never
    averaged; then the center's workers average their parameters over the LAN. After K2 =
    ``lan_rounds`` of these the local server sends δ_c = w̄_c − m_t, how far its center's mean has
    moved from the last global parameters (the *milestone*), and every center goes on from
    m_{t+1} = m_t + (1/P) Σ_c δ_c: the mean of the P centers' means, each center counting the same.

    GeoMX counts LAN rounds when key 0 completes, so that one round can mix local and global
    decisions; here a whole LAN round is of one kind.

    Args:
      steps: K1, at least 1; GeoMX's demo has 20.
      lan_rounds: K2, at least 1; GeoMX's demo has 10.

    References:
      INET-RC/GeoMX, ``MXNET_KVSTORE_USE_HFA``.
    """
    return _averaged("hfa", steps, lan_rounds, "centers")


def hierfavg(*, steps: int, lan_rounds: int) -> SyncAlgorithm:
    """HierFAVG: the same hierarchy, with every mean weighted by the sizes of the workers' data.

    Liu et al. write κ1 for ``steps`` and κ2 for ``lan_rounds``; both the edge's mean, every κ1
    steps, and the cloud's, every κ1 · κ2 steps, weigh a client by the number of samples it holds.

    Args:
      steps: κ1, at least 1.
      lan_rounds: κ2, at least 1.

    References:
      Liu et al., *Client-Edge-Cloud Hierarchical Federated Learning*, ICC 2020,
      Algorithm 1, arXiv 1905.06641.
    """
    return _averaged("hierfavg", steps, lan_rounds, "samples")


def _averaged(name: str, steps: int, lan_rounds: int, weights: str) -> SyncAlgorithm:
    return SyncAlgorithm(
        name, delta_offer(), fixed_steps(steps), barrier(), weighted_mean(), "average",
        lan_rounds=lan_rounds, weights=weights,
    )  # fmt: skip


@SYNCS.register("hfa", HfaConfig)
def _hfa(config: HfaConfig) -> SyncAlgorithm:
    return hfa(steps=config.local_steps, lan_rounds=config.lan_rounds)


@SYNCS.register("hierfavg", HierfavgConfig)
def _hierfavg(config: HierfavgConfig) -> SyncAlgorithm:
    return hierfavg(steps=config.local_steps, lan_rounds=config.lan_rounds)
