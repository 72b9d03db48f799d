"""What a selection is given, what it is, and what all of them share.

A *device* has the class counts of its next batch; a base station needs L of its K devices for the
coming step. With p the class shares of all training data and n samples a batch, the batches of the
chosen set S should together hold n L p_f samples of class f. How far they are from that is the
divergence, ``|| sum of counts over S / (n L) - p ||``. So it is for centers in a round, too: they
are rows of class counts as well (see :func:`geojax.selection.target.as_batches`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from geojax.config import SelectionConfig
from geojax.data.streams import stream
from geojax.errors import ConfigError, DataError
from geojax.registry import Registry
from geojax.settings import key

SHARES_TOLERANCE = 1e-6  # by which the target's sum may miss one


class Choice(NamedTuple):
    """The devices of one base station, of which some are to be chosen."""

    counts: np.ndarray  # (K, F) whole numbers: class counts of every device's next batch
    target: np.ndarray  # float64 (F,): the shares wanted, p; they sum to one
    devices: int  # L: how many to choose
    batch: int  # n: samples of a batch; every row of counts sums to it
    draws: np.random.Generator  # all randomness of this choice


class Selection(NamedTuple):
    """Which devices of a base station take part in a step, or in a round.

    ``select`` returns L positions in ``counts``, ascending. It is a pure function of its argument,
    whose ``draws`` it advances. Call it by :func:`choose`, which checks what goes in and comes out.
    """

    name: str
    select: Callable[[Choice], np.ndarray]
    needs_counts: bool = True  # False: of counts, it reads how many rows there are
    devices: int | None = None  # L as configured; None: everyone
    per_round: bool = False  # every step of a round gets the same randomness
    faithful: bool = False  # the target is to count test labels too
    select_all: Callable[[Sequence[Choice]], list[np.ndarray]] | None = None  # at once, if it can

    def wanted(self, present: int) -> int:
        """L where ``present`` devices are there: ``Choice.devices``."""
        return present if self.devices is None else self.devices


SELECTIONS: Registry[Callable[[Any], Selection]] = Registry("selection.name", SelectionConfig)
CENTER_SELECTIONS = SELECTIONS.under("center_selection.name")


@dataclass
class DevicesConfig(SelectionConfig):
    """Keys of selections that choose some of the devices."""

    devices: int = key(10, "L: how many of a base station take part in a step", least=1)
    reuse_random_within_round: bool = key(
        False, "the same randomness in every step of a round, as in the authors' code"
    )


@dataclass
class CountsConfig(DevicesConfig):
    """Keys of selections that go by the class counts of the next batches."""

    random_devices: int = key(
        2, "L_rnd: of these, how many are drawn at random before the others are chosen", least=0
    )
    faithful: bool = key(
        False, "the target counts test labels too, as in the authors' code, instead of train labels"
    )

    def check(self) -> None:
        """There are no more random devices than devices."""
        check_random(self.random_devices, self.devices)


def by_counts(
    name: str,
    config: CountsConfig,
    select: Callable[[Choice], np.ndarray],
    select_all: Callable[[Sequence[Choice]], list[np.ndarray]] | None = None,
) -> Selection:
    """A selection with the settings that all selections by class counts share."""
    return Selection(
        name, select, devices=config.devices, per_round=config.reuse_random_within_round,
        faithful=config.faithful, select_all=select_all,
    )  # fmt: skip


def check_random(random_devices: int, devices: int) -> None:
    """Raises ``ConfigError`` when L_rnd is more than L."""
    if random_devices > devices:
        fix = f"of selection.devices = {devices} no more can be random; use at most {devices}"
        raise ConfigError("selection.random_devices", random_devices, fix)


def draws_for(
    selection: Selection, seed: int, group: int, round_number: int, step: int
) -> np.random.Generator:
    """The randomness of one choice: ``Choice.draws``.

    Args:
      selection: with ``per_round`` the step makes no difference: the authors' code seeds its
        generator with the round's number before every step.
      seed: the run's.
      group: index of the base station.
      round_number: of the round.
      step: of the round.
    """
    return stream("selection", seed, group, round_number, 0 if selection.per_round else step)


def choose(selection: Selection, choice: Choice, group: str = "a base station") -> np.ndarray:
    """The chosen devices of one base station.

    Args:
      selection: how to choose.
      choice: among whom.
      group: its name, for messages.

    Returns:
      Positions in ``choice.counts``, int64 (L,), ascending.

    Raises:
      ConfigError: L is larger than the group, or an own selection returns something else.
      DataError: the target is none, or a device's batch is not full.
    """
    check_choice(choice, group, counts=selection.needs_counts)
    return _checked(selection, choice, selection.select(choice))


def choose_all(selection: Selection, choices: Sequence[Choice]) -> list[np.ndarray]:
    """:func:`choose` for several base stations: in one call where the selection has one."""
    for number, choice in enumerate(choices):
        check_choice(choice, f"base station {number}", counts=selection.needs_counts)
    if selection.select_all is not None:
        found = selection.select_all(choices)
    else:
        found = [selection.select(choice) for choice in choices]
    return [
        _checked(selection, choice, chosen) for choice, chosen in zip(choices, found, strict=True)
    ]


def check_choice(choice: Choice, group: str, *, counts: bool = True) -> None:
    """Refuses a choice that nobody could make; see :func:`choose`."""
    present = len(choice.counts)
    if not 1 <= choice.devices <= present:
        fix = (
            f"{group} has {present} devices; use from 1 to {present}, or more devices for it "
            "(devices.count)"
        )
        raise ConfigError("selection.devices", choice.devices, fix)
    if not counts:
        return
    rows, target = np.asarray(choice.counts), np.asarray(choice.target)
    if rows.ndim != 2 or target.shape != rows.shape[1:]:
        raise DataError(
            f"{group}: class counts of shape {rows.shape} do not go with a target of shape "
            f"{target.shape}; give (devices, classes) and (classes,)"
        )
    if not abs(target.sum() - 1) <= SHARES_TOLERANCE or target.min() < 0:
        raise DataError(
            f"{group}: the target's shares sum to {target.sum():.6g}, the least is "
            f"{target.min():.6g}; divide class counts by their sum "
            "(geojax.selection.target.target_of)"
        )
    wrong = (rows.sum(axis=1) != choice.batch) | (rows < 0).any(axis=1)
    wrong |= (rows != np.rint(rows)).any(axis=1)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise DataError(
            f"{group}: the class counts of device {first} are no batch of {choice.batch} samples "
            f"(their sum is {rows[first].sum():g}); give whole batches, or make centers' counts "
            "comparable by geojax.selection.target.as_batches"
        )


def _checked(selection: Selection, choice: Choice, chosen: np.ndarray) -> np.ndarray:
    """The result as int64; refused unless it is L different devices, ascending."""
    found = np.asarray(chosen)
    right = found.shape == (choice.devices,) and np.issubdtype(found.dtype, np.integer)
    if right and choice.devices:
        right = found[0] >= 0 and found[-1] < len(choice.counts) and (np.diff(found) > 0).all()
    if not right:
        fix = (
            f"return {choice.devices} different positions below {len(choice.counts)}, ascending; "
            f"it returned {found.tolist()}"
        )
        raise ConfigError("selection.name", selection.name, fix)
    return found.astype(np.int64)
