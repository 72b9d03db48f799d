"""HALoS: asynchronous workers under asynchronous local servers under an asynchronous global one."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.settings import key
from geojax.sync.admission import immediately
from geojax.sync.algorithm import SYNCS, LanTier, SyncAlgorithm
from geojax.sync.async_diloco import dylu_steps
from geojax.sync.merging import one_by_one
from geojax.sync.parts import delta_offer, fixed_steps


@dataclass
class HalosConfig(SyncConfig):
    """Keys of ``sync=halos``."""

    name: str = "halos"
    local_steps: int = key(8, "H: local steps of the fastest worker", least=1)
    dylu: bool = key(True, "slower workers take fewer local steps, else all take H")
    offers: int = key(32, "K: offers of its workers after which a center offers", least=1)
    share: float = key(
        0.25, "α: share of the global parameters in a center's, when they come", above=0, most=1
    )
    local_lr: float = key(0.2, "step of a local server along one offer", above=0)
    local_momentum: float = key(0.9, "β of a local server", least=0, below=1)
    local_buffer: int = key(16, "N of a local server: offers in a step of its momentum", least=1)
    global_lr: float = key(0.15, "step of the global server along one offer", above=0)
    global_momentum: float = key(0.5, "β of the global server", least=0, below=1)
    global_buffer: int = key(2, "N of the global server", least=1)


def halos(
    *, steps: int, dylu: bool = True, offers: int = 32, share: float = 0.25,
    local: tuple[float, float, int] = (0.2, 0.9, 16),
    total: tuple[float, float, int] = (0.15, 0.5, 2),
) -> SyncAlgorithm:  # fmt: skip
    """Hierarchical asynchronous local SGD.

    A worker takes local steps (AdamW in the paper: ``optimizer=adamw lr=0.001``), sends its delta
    to its center's *local server*, and gets the local model back at once. Both kinds of servers
    step by delayed Nesterov (:func:`geojax.center.delayed_nesterov.delayed_nesterov`, c = 0) along
    each delta that comes. After K of them a local server sends how far its model has moved from
    its reference; when the *global* model comes back::

        w ← (1 − α)·w + α·w_global,    reference ← w

    and it counts K from there. It has served its workers meanwhile. **What they push between its
    offer and the answer** moves the local model, is behind the next reference, and so is in no
    offer: it reaches others by the local model only, of which a share of 1 − α is kept. With α = 1
    it is lost. The authors' code does the same; the larger K, the less it matters.

    With K = 1, α = 1, steps of length 1 and no momentum it is two-hop asynchronous SGD on deltas,
    but for these pushes.

    A *step* s and a buffer N give delayed Nesterov's ε = s·N, which divides every delta by N: the
    authors' code multiplies by N, too.

    RECONSTRUCTED: float model state (BatchNorm), which the paper does not speak of, is mixed into
    the local model as workers' values are, by the number of the LAN's members. Not taken over: the
    learning-rate schedule (warm-up, cosine), and data that any worker may draw; here it stays with
    its worker.

    Args:
      steps: H, of the fastest worker.
      dylu: worker k takes max(1, ceil(H·v_k / max v)) steps, by its configured speed v_k; the
        authors' code rounds up, Async DiLoCo's paper down.
      offers: K, at least 1.
      share: α, in (0, 1].
      local: step, β and N of the local servers.
      total: those of the global server; ``outer_optimizer=delayed_nesterov`` sets others.

    References:
      Kim et al., *HALoS: Hierarchical Asynchronous Local SGD over Slow Networks for Geo-Distributed
      Large Language Model Training*, ICML 2025, arXiv 2506.04531; constants and what happens
      between offer and answer from the authors' simulator (utnslab/halos).
    """
    policy = dylu_steps(steps, up=True) if dylu else fixed_steps(steps)
    name, outer = "delayed_nesterov", _nesterov(*local)
    return SyncAlgorithm(
        "halos", delta_offer(), policy, immediately(), one_by_one(), name,
        outer_keys=_nesterov(*total), lan=LanTier(offers, share, name, outer),
    )  # fmt: skip


def _nesterov(step: float, momentum: float, buffer: int) -> dict[str, float]:
    return {"lr": step * buffer, "momentum": momentum, "buffer": buffer}


@SYNCS.register("halos", HalosConfig)
def _configured(config: HalosConfig) -> SyncAlgorithm:
    return halos(
        steps=config.local_steps, dylu=config.dylu, offers=config.offers, share=config.share,
        local=(config.local_lr, config.local_momentum, config.local_buffer),
        total=(config.global_lr, config.global_momentum, config.global_buffer),
    )  # fmt: skip
