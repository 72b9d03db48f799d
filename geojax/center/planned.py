"""What a worker's next step costs and trains on, before it is made; needs no JAX."""

from __future__ import annotations

from typing import NamedTuple


class Planned(NamedTuple):
    """The cost of a step.

    Attributes:
      batches: durations of one batch (the worker's pace) that pass one after the other.
      seconds: experiment time of transfers between devices and their base station, on top.
      internal_bytes: bytes of these transfers, both ways.
      samples: samples that are trained.
      divergence: ‖P − p‖₂ of their class shares P from the target p; None: not known.
      choice_s: CPU time that choosing its devices took, on a real clock; 0: nothing was timed.
    """

    batches: float
    seconds: float
    internal_bytes: int
    samples: int
    divergence: float | None = None
    choice_s: float = 0.0


def one_batch(samples: int) -> Planned:
    """A step on one batch, by a worker that holds its data itself."""
    return Planned(1.0, 0.0, 0, samples)
