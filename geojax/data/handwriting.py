"""People who write: a hand each, and letters that differ a little every time.

A writer has a main face and takes some letters from other faces; slant, rotation, proportions,
size, pen and ink; and a field that bends everything, beside one that bends each letter in a way
of its own. Each image adds a smaller slant, turn, stretch, shift and bend.

Everything is drawn from raw bits and computed by sums, products, quotients and square roots,
element by element: the same seed gives the same bytes on every machine and with every version of
NumPy. That is why rotations go by the tangent of half their angle, and why draws that should be
normal are sums of three uniform ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from geojax.data.strokes import CHARACTERS, FACES, POINTS, REACH, bank

SIZE = 28  # pixels of a side
UNIT = 10.0  # pixels of a glyph's half side, so that it fills 20 of 28 pixels, as in EMNIST
KNOTS = 5  # a bend is given at KNOTS² knots
_FIRST = np.array([0.34, 0.56, 0.74, 0.84, 0.92])  # cumulative shares of main faces
_OTHER_FACE = 0.25  # share of letters from another face than the main one

# Deviations of what differs: (writer, a writer's letter, image); lengths in half sides of glyphs.
SLANT = (0.17, 0.055, 0.095)
TURN = (0.042, 0.015, 0.029)  # tangent of half the angle
STRETCH = (0.085, 0.038, 0.056)
SCALE = (0.053, 0.023, 0.048)
SHIFT = (0.0, 0.0, 0.056)
BEND = (0.057, 0.076, 0.088)  # of each knot
RADIUS = (0.18, 0.0, 0.095)  # of the pen, relative to PEN
PEN, EDGE = 0.96, 1.5  # pixels: the pen's mean radius, the width of its soft edge


class Hand(NamedTuple):
    """One writer; arrays have a row for each of the 62 letters."""

    face: np.ndarray  # int64 (62,)
    slant: np.ndarray  # float32 (62,), and so on
    turn: np.ndarray
    stretch: np.ndarray
    scale: np.ndarray
    bend: np.ndarray  # float32 (62, 2, KNOTS²)
    radius: float  # of the pen, pixels
    ink: float  # darkest value, at most 1


class Draws:
    """Numbers from a generator's raw bits, by exact arithmetic."""

    def __init__(self, generator: np.random.Generator):
        self._bits = generator.bit_generator

    def uniform(self, *shape: int) -> np.ndarray:
        """In [0, 1), float64."""
        count = int(np.prod(shape))
        raw = self._bits.random_raw(count)  # type: ignore[attr-defined]
        return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)

    def bell(self, *shape: int) -> np.ndarray:
        """Of mean 0 and deviation 1, within ±3, float32: a sum of three uniform draws."""
        u = self.uniform(3, *shape)
        return (((u[0] + u[1]) + u[2] - 1.5) * 2.0).astype(np.float32)


def new_hand(draws: Draws, style: float) -> Hand:
    """A new writer.

    Args:
      draws: of this writer.
      style: how much writers differ; 1.0 is calibrated on MNIST's writers, see docs/fedgs.md;
        with 0.0 there is one hand.
    """
    letters = len(CHARACTERS)
    face, own = draws.uniform(2)
    main = int(np.searchsorted(_FIRST, face, side="right")) if own < style else 0
    other = (main + 1 + (draws.uniform(letters) * (len(FACES) - 1)).astype(np.int64)) % len(FACES)
    swapped = draws.uniform(letters) < _OTHER_FACE * style

    def around(deviations: tuple[float, float, float]) -> np.ndarray:
        own, each = draws.bell(1), draws.bell(letters)
        return own * np.float32(style * deviations[0]) + each * np.float32(style * deviations[1])

    whole = draws.bell(1, 2, KNOTS * KNOTS) * np.float32(style * BEND[0])
    each = draws.bell(letters, 2, KNOTS * KNOTS) * np.float32(style * BEND[1])
    return Hand(
        face=np.where(swapped, other, main),
        slant=around(SLANT) + np.float32(0.1),
        turn=around(TURN),
        stretch=around(STRETCH),
        scale=around(SCALE),
        bend=whole + each,
        radius=PEN * max(1.0 + style * RADIUS[0] * float(draws.bell(1)[0]), 0.55),
        ink=1.0 - min(style, 1.0) * 0.15 * float(draws.uniform(1)[0]),
    )


def write(hand: Hand, letters: np.ndarray, draws: Draws) -> np.ndarray:
    """Images of letters by one writer, each a little different.

    Args:
      hand: who writes.
      letters: classes, integers (samples,) in [0, 62).
      draws: of these samples.

    Returns:
      uint8 (samples, 28, 28): paper is 0, ink up to 255, as in MNIST.
    """
    count = len(letters)

    def varied(of_hand: np.ndarray, deviation: float) -> np.ndarray:
        return (of_hand[letters] + draws.bell(count) * np.float32(deviation))[:, np.newaxis]

    slant, turn = varied(hand.slant, SLANT[2]), varied(hand.turn, TURN[2])
    stretch, scale = varied(hand.stretch, STRETCH[2]), varied(hand.scale, SCALE[2])
    shift = draws.bell(2, count, 1) * np.float32(SHIFT[2])
    bend = hand.bend[letters] + draws.bell(count, 2, KNOTS * KNOTS) * np.float32(BEND[2])
    one, two = np.float32(1), np.float32(2)
    scale, stretch = np.maximum(one + scale, 0.5), np.maximum(one + stretch, 0.5)
    square = one + turn * turn
    cosine, sine = (one - turn * turn) / square, two * turn / square
    # from pixels to the glyph: shift, turn, scale, shear
    across, down = (_PIXELS[axis] + shift[axis] + _bent(bend[:, axis]) for axis in (0, 1))
    turned_x, turned_y = cosine * across + sine * down, cosine * down - sine * across
    x, y = turned_x / (scale * stretch), turned_y / scale
    x = x + slant * y
    # the same pen for all sizes of a glyph: distances are counted in pixels
    distance = _looked_up(hand.face[letters] * len(CHARACTERS) + letters, x, y)
    distance *= scale * np.float32(UNIT)
    radius = np.float32(hand.radius) * (one + draws.bell(count, 1) * np.float32(RADIUS[2]))
    ink = np.clip((radius - distance) / np.float32(EDGE) + np.float32(0.5), 0, 1)
    ink *= np.float32(255 * hand.ink)
    return (ink + np.float32(0.5)).astype(np.uint8).reshape(count, SIZE, SIZE)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    """Where pixels are, in half sides of a glyph: across and down, float32 (SIZE²,)."""
    axis = ((np.arange(SIZE) - (SIZE - 1) / 2) / UNIT).astype(np.float32)
    return np.tile(axis, SIZE), np.repeat(axis, SIZE)


def _knots() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """The four knots around each pixel and their smooth weights, (SIZE²,) each."""
    at = np.arange(SIZE) * ((KNOTS - 1) / (SIZE - 1))
    low = np.minimum(at.astype(np.int64), KNOTS - 2)
    share = at - low
    share = share * share * (3 - 2 * share)
    corners = []
    for down in (0, 1):
        for across in (0, 1):
            knot = np.add.outer((low + down) * KNOTS, low + across).ravel()
            weight = np.multiply.outer(share if down else 1 - share, share if across else 1 - share)
            corners.append((knot, weight.ravel().astype(np.float32)))
    return tuple(corners)


_PIXELS, _KNOTS = _grid(), _knots()


def _bent(knots: np.ndarray) -> np.ndarray:
    """Displacements of all pixels, float32 (samples, SIZE²), from those of the knots."""
    first, *others = (np.take(knots, knot, axis=1) * weight for knot, weight in _KNOTS)
    for other in others:
        first += other
    return first


def _looked_up(glyphs: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distances to the glyphs' strokes at points (samples, SIZE²), between the maps' points."""
    maps = bank().reshape(-1)
    steps = np.float32((POINTS - 1) / (2 * REACH))
    last = np.float32(POINTS - 1.001)
    column = np.clip((x + np.float32(REACH)) * steps, 0, last)
    row = np.clip((y + np.float32(REACH)) * steps, 0, last)
    left, top = column.astype(np.int32), row.astype(np.int32)
    column -= left
    row -= top
    at = (glyphs * (POINTS * POINTS)).astype(np.int32)[:, np.newaxis] + top * POINTS + left
    upper, lower = np.take(maps, at), np.take(maps, at + POINTS)
    upper += (np.take(maps, at + 1) - upper) * column
    lower += (np.take(maps, at + (POINTS + 1)) - lower) * column
    return upper + (lower - upper) * row
