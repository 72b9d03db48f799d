"""What a model is given, and what it is asked for; needs no JAX."""

from __future__ import annotations

import math
from typing import NamedTuple


class Values(NamedTuple):
    """One array of an example.

    Attributes:
      shape: of one sample's, or of one target.
      classes: how many different integers it holds, from 0 on, as int32; 0: it holds float32.
    """

    shape: tuple[int, ...]
    classes: int = 0

    @property
    def dtype(self) -> str:
        """Of the array."""
        return "int32" if self.classes else "float32"


class Inputs(NamedTuple):
    """An example: a sample, and the target that goes with it.

    Images with labels are float32 (height, width, channels) with an integer (); a sequence of
    tokens is an integer (length,), and its target, for a model of language, another one.
    """

    sample: Values
    target: Values

    @property
    def outputs(self) -> int:
        """Numbers that a model makes of a sample: one a class, or one an element of the target.

        For a target of integers, one a class for *each* of its elements: logits (batch, classes)
        of labels, (batch, length, classes) of sequences.
        """
        return self.target.classes or math.prod(self.target.shape)


def labelled(shape: tuple[int, ...], classes: int) -> Inputs:
    """Float samples of a shape, each with the label of a class.

    >>> labelled((8, 8, 1), 10).outputs
    10
    """
    return Inputs(Values(tuple(shape)), Values((), classes))
