"""Streaming DiLoCo: DiLoCo by fragments of the model, which travel while the workers train."""

from __future__ import annotations

from dataclasses import dataclass

from geojax.config import SyncConfig
from geojax.errors import ConfigError
from geojax.settings import key
from geojax.sync.algorithm import PATTERNS, SYNCS, Fragmentation, SyncAlgorithm
from geojax.sync.parts import barrier, delta_offer, fixed_steps, weighted_mean


@dataclass
class StreamingDilocoConfig(SyncConfig):
    """Keys of ``sync=streaming_diloco``."""

    name: str = "streaming_diloco"
    local_steps: int = key(
        100, "H: inner steps between two outer steps of the same fragment", least=1
    )
    fragments: int = key(
        1, "P: parts of the model, each of whole layers; one travels every H/P steps", least=1
    )
    pattern: str = key(
        "strided", "layer l is of fragment l mod P, or of the l·P/L-th", choices=PATTERNS
    )
    overlap: int = key(
        0, "τ: inner steps from a fragment's departure until its result counts", least=0
    )
    blend: float = key(
        0.0, "α: share of the worker's own values in what it goes on with", least=0, below=1
    )
    carry: bool = key(
        False, "what a worker has trained while the exchange was under way is added to the result"
    )

    def check(self) -> None:
        """See :meth:`geojax.settings.Settings.check`."""
        steps, parts, overlap = self.local_steps, self.fragments, self.overlap
        if steps % parts:
            enough = max(-(-steps // parts), overlap) * parts
            fix = (
                f"sync.local_steps = {steps} must be a multiple of it, so that a fragment leaves "
                f"every H/P steps; use e.g. sync.local_steps={enough}"
            )
            raise ConfigError("sync.fragments", parts, fix)
        if self.carry and self.blend:
            fix = f"sync.blend = {self.blend:g} keeps a share of the same; use sync.blend=0"
            raise ConfigError("sync.carry", True, f"{fix}, or sync.carry=false")
        if self.carry and not overlap:
            fix = "nothing is trained during an exchange with sync.overlap = 0; use sync.overlap=1"
            raise ConfigError("sync.carry", True, f"{fix} or more, or sync.carry=false")
        interval = steps // parts
        most = interval if self.carry else min(interval, steps - 1)
        if overlap <= most:
            return
        use = (
            f"; use sync.overlap={most} or less, or "
            f"sync.local_steps={max(overlap * parts, overlap + 1)}"
        )
        fix = (
            f"longer than the {interval} steps between fragments (sync.local_steps = {steps} / "
            f"sync.fragments = {parts})"
        )
        if overlap == steps and not self.carry:
            fix = f"all of sync.local_steps = {steps} would be overwritten by the result before"
        raise ConfigError("sync.overlap", overlap, fix + use)


def streaming_diloco(
    *, steps: int, fragments: int = 1, pattern: str = "strided", overlap: int = 0,
    blend: float = 0.0, carry: bool = False,
) -> SyncAlgorithm:  # fmt: skip
    """DiLoCo of one fragment at a time, at its own offset, with overlap and blending.

    After every H/P steps the next fragment p leaves, in turn, so that each has H steps between two
    of its outer steps, which are those of :func:`geojax.sync.diloco.diloco` with a state v_p of its
    own. The workers train on; τ steps later the result arrives in them::

        θ_i,p ← α·θ_i,p + (1 - α)·θ_p

    where θ_i are a worker's parameters and θ the outer ones, which evaluation uses. With α = 0 the
    τ steps made meanwhile are lost; with ``carry`` they are kept, as in CoCoD-SGD::

        θ_i,p ← θ_p + (θ_i,p - θ_i,p as it was when the fragment left)

    and with an outer optimizer of plain SGD at rate 1, P = 1 and τ = H it is CoCoD-SGD. A *round*
    is one fragment's exchange. With P = 1, τ = 0, α = 0 it is DiLoCo, bit for bit. In the first H
    steps fragment p has made (p + 1)·H/P of them, not H.

    The paper sends outer gradients as 4-bit floats (``compression=e3m0``), has 3 transformer layers
    in a fragment, and finds τ up to 5 steps harmless, with α = 0.5. Its fragments hold whole
    blocks; here they hold whole modules (a weight with its bias, and the float state of that
    module).

    Args:
      steps: H, at least 1, a multiple of ``fragments``.
      fragments: P.
      pattern: ``strided`` or ``sequential``.
      overlap: τ, at most H/P, and less than H.
      blend: α, in [0, 1).
      carry: see above; not in the paper.

    References:
      Shen et al., *Faster Distributed Deep Net Training: Computation and Communication Decoupled
      Stochastic Gradient Descent*, IJCAI 2019, Algorithm 1, arXiv 1906.12043.
      Douillard et al., *Streaming DiLoCo with overlapping communication: Towards a Distributed Free
      Lunch*, 2025, Algorithm 2 and §2.2-2.4, arXiv 2501.18512.
    """
    return SyncAlgorithm(
        "streaming_diloco", delta_offer(), fixed_steps(steps // fragments), barrier(),
        weighted_mean(), "nesterov",
        fragmentation=Fragmentation(fragments, pattern, overlap, blend, carry),
    )  # fmt: skip


@SYNCS.register("streaming_diloco", StreamingDilocoConfig)
def _configured(config: StreamingDilocoConfig) -> SyncAlgorithm:
    return streaming_diloco(
        steps=config.local_steps, fragments=config.fragments, pattern=config.pattern,
        overlap=config.overlap, blend=config.blend, carry=config.carry,
    )  # fmt: skip
