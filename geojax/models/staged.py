"""A network that can be run stage by stage, as layer-staged training needs it (P3)."""

from __future__ import annotations

import jax
from flax import linen as nn


class StagedModule(nn.Module):
    """A chain of stages: each makes the next one's input from the one before, and nothing else.

    A subclass says how many stages it has and writes :meth:`stage` as its one compact method.
    There submodules carry explicit names, so that one stage can run without those before it; with
    the names that Flax itself would give, in order of execution, initial values are those of the
    unstaged module, because Flax derives an array's random numbers from its path. For the same
    reason dropout and the like must be submodules with names of their own: then a step draws the
    same numbers staged and unstaged.
    """

    @property
    def stages(self) -> int:
        """Number of stages, at least 1."""
        raise NotImplementedError

    def stage(self, index: int, hidden: jax.Array, *, train: bool = False) -> jax.Array:
        """Output of stage ``index``: what the next stage takes, or the model's outputs.

        Args:
          index: which stage, from 0.
          hidden: for stage 0 samples (batch, ...); else the stage before's output.
          train: training or evaluation.
        """
        raise NotImplementedError

    def __call__(self, samples: jax.Array, *, train: bool = False) -> jax.Array:
        """The outputs of samples (batch, ...): all stages."""
        hidden = samples
        for index in range(self.stages):
            hidden = self.stage(index, hidden, train=train)
        return hidden
