"""A base station that trains on the batches of its devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from geojax.center.planned import Planned
from geojax.center.trainer import Trainer, build_mesh_trainer
from geojax.config import RunConfig
from geojax.devices.links import InternalLinks
from geojax.devices.super_node import SuperNode
from geojax.errors import ConfigError


class FleetTrainer:
    """See :class:`geojax.center.trainer.Trainer`: a step is one of the super node.

    All devices of a super node begin a step from the same parameters and make one step of the same
    length on batches of the same size, so the mean of what they make is one step on the union of
    their batches. It takes as long as one device's batch (they compute at the same time), and the
    transfers on top.

    Args:
      trainer: takes the steps, on the batches that ``node`` names.
      node: chooses devices.
      links: between the devices and the base station.
      reports: devices report class counts, since the selection asks for them.
      weight: of an offer; see :class:`geojax.center.trainer.Trainer`.
    """

    def __init__(
        self,
        trainer: Trainer,
        node: SuperNode,
        links: InternalLinks,
        *,
        reports: bool,
        weight: float = 1.0,
    ):
        self.spec, self.samples_per_step = trainer.spec, node.batch_size
        self.weight = weight
        self.node = node
        self._trainer, self._links = trainer, links
        self._classes = node.fleet.classes if reports else 0

    @property
    def steps(self) -> int:
        """Steps made so far."""
        return self._trainer.steps

    @property
    def last_loss(self) -> float:
        """Mean loss of the last union batch."""
        return self._trainer.last_loss

    def load(self, vector: np.ndarray) -> None:
        """See :meth:`geojax.center.trainer.Trainer.load`."""
        self._trainer.load(vector)

    def load_part(self, start: int, stop: int, values: np.ndarray) -> None:
        """See :meth:`geojax.center.trainer.Trainer.load_part`."""
        self._trainer.load_part(start, stop, values)

    def forward(self, index: int) -> None:
        """Refused: a super node does not train stage by stage."""
        self._trainer.forward(index)

    def backward(self, index: int) -> np.ndarray:
        """Refused, as :meth:`forward`."""
        return self._trainer.backward(index)

    def gradient(self) -> np.ndarray:
        """Mean gradient of the union batch, then the new state."""
        gradient = self._trainer.gradient()
        self._choose()
        return gradient

    def step(self) -> None:
        """One step of the super node."""
        self._trainer.step()
        self._choose()

    def expect(self, steps: int) -> int:
        """See :meth:`geojax.center.trainer.Trainer.expect`: all devices are chosen in the first."""
        return self._trainer.expect(steps)

    def planned(self) -> Planned:
        """One batch's duration, and the transfers."""
        facts = self.node.facts(self.steps)
        elements, classes = self.spec.size, self._classes
        fresh = self.node.fleet.count if self.steps == 0 else self.node.size
        return Planned(
            1.0,
            self._links.seconds(elements, classes),
            self._links.step_bytes(elements, self.node.size, reports=fresh, classes=classes),
            self.node.batch_size,
            facts.divergence,
            facts.choice_s,
        )

    def skip_to(self, steps: int) -> None:
        """Lets the devices go on as they would have in so many steps, without training."""
        self.node.skip_to(steps)
        self._trainer.skip_to(steps)

    def vector(self) -> np.ndarray:
        """See :meth:`geojax.center.trainer.Trainer.vector`."""
        return self._trainer.vector()

    def warm_up(self, *, gradient: bool = True, step: bool = True) -> None:
        """Compiles what will be called, chooses the first devices, and leaves all as it was."""
        kept, number = self.node.state_dict(), self.node.step
        self._trainer.warm_up(gradient=gradient, step=step)
        self.node.load_state(kept, number)
        self._choose()

    def state_dict(self) -> dict[str, Any]:
        """That of the trainer, and where each device is in its stream."""
        return {**self._trainer.state_dict(), "fleet": self.node.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict`.

        Raises:
          ValueError: it comes from another model, inner optimizer, or number of devices.
        """
        self._trainer.load_state({name: kept for name, kept in state.items() if name != "fleet"})
        self.node.load_state(state["fleet"], self.steps)

    def _choose(self) -> None:
        """Chooses the next devices now, so that the time it takes is a part of the step.

        Where steps are one program, they are those of its next run, chosen while it runs.
        """
        _ = self.node.chosen


def build_fleet_trainer(
    config: RunConfig,
    node: SuperNode,
    *,
    features: np.ndarray,
    labels: np.ndarray,
    reports: bool,
    weight: float = 1.0,
    proximal: float = 0.0,
    together: Callable[[str], int] = lambda _: 1,
) -> FleetTrainer:
    """The trainer of a base station, at the run's initial parameters.

    Args:
      config: the run.
      node: chooses devices; their samples are positions in ``features``.
      features: samples (samples, ...); not copied.
      labels: their targets (samples, ...).
      reports: see :class:`FleetTrainer`.
      weight: see :class:`FleetTrainer`.
      proximal: see :func:`geojax.center.trainer.build_trainer`; not with ``devices.gradient=each``.
      together: ``backend -> steps`` that are one program, such as
        :func:`geojax.devices.execution.steps_together`.

    Raises:
      ConfigError: a setting of the model, the optimizer or the batch is wrong.
      DataError: the samples do not fit the configured data set.
    """
    from geojax.center import devices

    devices.configure(config.testbed.devices)
    each = config.devices.gradient == "each"
    local = devices.devices_of(config, node.worker_index)
    check_split(config, node.size, len(local))
    trainer = build_mesh_trainer(
        config, features, labels, node, each=node.size if each else 0, proximal=proximal,
        together=together(local[0].platform),
    )  # fmt: skip
    links = InternalLinks(config.devices.rate, config.devices.rtt)
    return FleetTrainer(trainer, node, links, reports=reports, weight=weight)


def check_split(config: RunConfig, size: int, count: int) -> None:
    """Refuses a step that cannot be split evenly over a worker's local devices.

    Args:
      config: the run.
      size: L, devices of a super node.
      count: local devices (accelerators, or ``testbed.devices``).
    """
    n, each = config.batch_size, config.devices.gradient == "each"
    if each and n % count:
        fix = f"must be a multiple of the {count} local devices (testbed.devices); try "
        raise ConfigError("batch_size", n, f"{fix}{-(-n // count) * count}")
    if not each and (size * n) % count:
        fix = (
            f"must divide the {size * n} samples of a step ({size} devices of a super node, "
            f"batch_size = {n} each); use 1, or a batch_size that is a multiple of {count}"
        )
        raise ConfigError("testbed.devices", count, fix)
