"""Letters as strokes: how far each point of a square is from the pen's path.

The strokes are those of A. V. Hershey's fonts (US National Bureau of Standards, 1967), as the
Python package ``Hershey-Fonts`` (MIT) has them. :func:`bank` turns a glyph into a map of
distances, from which a pen of any width can draw it, moved and bent in any way.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np

from geojax.errors import DataError

CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""The 62 classes, in the order of EMNIST ByClass and LEAF."""
FACES = ("futural", "scripts", "cursive", "scriptc", "timesr", "timesi")
"""Hershey's sans serif, two simple scripts, a double one, and a roman and an italic with serifs."""
REACH, POINTS = 1.5, 49  # a map covers [-REACH, REACH]², glyphs [-1, 1]², with POINTS² points
_SHA256 = "8289fe15a2ff71b458f6f704660d3f87a3fd8d28fc7364da4a4a09549fa82af0"


@functools.cache
def bank() -> np.ndarray:
    """Distance maps of all glyphs: float32 (faces, 62, POINTS, POINTS); rows go downwards.

    A glyph is scaled, its aspect kept, so that its longer side reaches from -1 to 1, and centered:
    so images are size-normalized, as those of EMNIST are.

    Raises:
      DataError: the package is missing, or its strokes are others than these.
    """
    glyphs = [[_strokes(face, character) for character in CHARACTERS] for face in FACES]
    found = hashlib.sha256(repr(glyphs).encode()).hexdigest()
    if found != _SHA256:
        raise DataError(
            f"Hershey-Fonts holds other strokes (sha256 {found}, should be {_SHA256}); "
            "do: pip install Hershey-Fonts==2.1.0"
        )
    return np.stack([np.stack([_distances(strokes) for strokes in face]) for face in glyphs])


def _strokes(face: str, character: str) -> list[list[tuple[int, int]]]:
    fonts = _fonts(face)
    return [[(int(x), int(y)) for x, y in stroke] for stroke in fonts.strokes_for_text(character)]


@functools.cache
def _fonts(face: str):
    try:
        from HersheyFonts import HersheyFonts
    except ImportError as problem:
        raise DataError("no letters to draw; do: pip install Hershey-Fonts==2.1.0") from problem
    fonts = HersheyFonts()
    fonts.load_default_font(face)
    return fonts


def _distances(strokes: list[list[tuple[int, int]]]) -> np.ndarray:
    """Distance of each point of the grid to the nearest stroke; exact arithmetic only.

    Sums, products, quotients and square roots are rounded alike on every machine (IEEE 754), and
    nothing here depends on an order of addition; so maps are the same everywhere, bit for bit.
    """
    points = np.array([point for stroke in strokes for point in stroke], np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    half = max(float((high - low).max()) / 2, 1.0)
    pieces = [((np.array(s, np.float64) - (low + high) / 2) / half) for s in strokes]
    start = np.concatenate([piece[:-1] for piece in pieces])[:, :, np.newaxis]
    stop = np.concatenate([piece[1:] for piece in pieces])[:, :, np.newaxis]
    axis = np.arange(POINTS) * (2 * REACH / (POINTS - 1)) - REACH
    x, y = np.tile(axis, POINTS), np.repeat(axis, POINTS)
    along_x, along_y = stop[:, 0] - start[:, 0], stop[:, 1] - start[:, 1]
    length = np.maximum(along_x * along_x + along_y * along_y, 1e-12)
    to_x, to_y = x - start[:, 0], y - start[:, 1]
    share = np.clip((to_x * along_x + to_y * along_y) / length, 0, 1)
    off_x, off_y = to_x - share * along_x, to_y - share * along_y
    nearest = np.sqrt((off_x * off_x + off_y * off_y).min(axis=0))
    return nearest.reshape(POINTS, POINTS).astype(np.float32)
