"""The server of a federated algorithm: what it makes of the mean, before the outer optimizer."""

from __future__ import annotations

import numpy as np

from geojax.center.outer import OuterOptimizer
from geojax.center.spec import VectorSpec
from geojax.sync.client import Merged, ServerRule

PREFIX = "federated/"  # of the names of layers that travel beside a model


class FederatedServer:
    """See :class:`geojax.center.outer.OuterOptimizer`; every center computes the same.

    Args:
      rule: what it makes of the mean.
      spec: of what travels; extras are its layers ``federated/…``.
      inner: takes the step.
    """

    def __init__(self, rule: ServerRule, spec: VectorSpec, inner: OuterOptimizer):
        self._rule, self._spec, self._inner = rule, spec, inner
        self._extras = {
            layer.name.removeprefix(PREFIX): slice(layer.offset, layer.stop)
            for layer in spec.layers
            if layer.name.startswith(PREFIX)
        }
        self._state = rule.init(spec.parameters)

    def init(self, vector: np.ndarray) -> None:
        """Forgets all history."""
        self._inner.init(vector)
        self._state = self._rule.init(self._spec.parameters)

    def apply(self, vector: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """A step on minus the mean Δ; extras are what the rule makes of their means."""
        self._spec.check(vector, "outer parameters")
        self._spec.check(gradient, "merged offers")
        merged = gradient.copy()
        step, extras, self._state = self._rule.update(
            Merged(
                -gradient[: self._spec.parameters],
                {name: gradient[where] for name, where in self._extras.items()},
                {name: vector[where] for name, where in self._extras.items()},
            ),
            self._state,
        )
        merged[: self._spec.parameters] = -step
        for name, values in extras.items():
            merged[self._extras[name]] = values
        return self._inner.apply(vector, merged)

    def state_dict(self) -> dict[str, np.ndarray]:
        """That of the outer optimizer, and the server's own."""
        own = {f"{PREFIX}{name}": values.copy() for name, values in self._state.items()}
        return {**self._inner.state_dict(), **own}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Restores :meth:`state_dict`.

        Raises:
          ValueError: it comes from another algorithm, model or outer optimizer.
        """
        state = dict(state)
        for name, values in self._state.items():
            kept = state.pop(PREFIX + name, None)
            if kept is None or kept.shape != values.shape:
                raise ValueError(f"server: expected {name} of shape {values.shape}")
            self._state[name] = np.array(kept, np.float32)
        self._inner.load_state(state)
