"""Framing: how a picture of any size becomes network inputs, and what of it counts.

A picture is scaled, and frames of the network's input size are laid over the scaled picture. There are three
ways to scale it: it is stretched to the input size, which one frame covers; or it keeps its aspect inside of
that (`keep_aspect`); or by as much as takes a tile to the input size (`tile`), and many frames overlap. Where
a frame sticks out, the picture's edge is repeated: that is padding, which no map and no loss ever includes.
"""

import functools
import math
import zlib
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from destseg.pictures.decoding import resize
from destseg.pictures.roi import RegionOfInterest, Roi
from destseg.settings import Settings

LATTICE = 32  # pixels, the networks' largest stride: frames so far apart see the picture on the same grid


class View(NamedTuple):
    """A picture as it is laid under the frames."""

    pixels: np.ndarray  # (h, w, 3) uint8, scaled
    size: tuple[int, int]  # height and width of the picture itself


class Frame(NamedTuple):
    """The place of one network input."""

    rows: slice  # of the scaled picture, those that are inside of it
    columns: slice
    top: int  # rows of padding above, within the input
    left: int
    row_weights: np.ndarray  # (rows,) float32: its share in a map; at every pixel the frames' sum up to 1
    column_weights: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """The frame's share in the map at each pixel that it covers, (rows, columns) float32."""
        return np.outer(self.row_weights, self.column_weights)

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the network input that are no padding."""
        height, width = len(self.row_weights), len(self.column_weights)
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True, eq=False)
class Framing:
    """How pictures become network inputs.

    Attributes:
        size: height and width of the network's input in pixels.
        keep_aspect: scale whole pictures alike in both directions, and pad.
        tile: height and width, in pixels of the picture, of what becomes one input; None for the whole of it.
        overlap: share of a tile's side that its neighbours cover, too, at least.
        roi: what counts; None for everything.
    """

    size: tuple[int, int]
    keep_aspect: bool = False
    tile: tuple[int, int] | None = None
    overlap: float = 0.25
    roi: RegionOfInterest | None = None

    def within(self, roi: Roi | None) -> "Framing":
        """Return the same framing with another region of interest; the same one for None."""
        return self if roi is None else replace(self, roi=RegionOfInterest(roi))

    def scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width that a picture of this height and width is scaled to."""
        if self.tile is not None:
            factors = [side / tile for side, tile in zip(self.size, self.tile, strict=True)]
        elif self.keep_aspect:
            factors = [min(side / own for side, own in zip(self.size, size, strict=True))] * 2
        else:
            return self.size
        height, width = (max(1, round(own * factor)) for own, factor in zip(size, factors, strict=True))
        return height, width

    def view(self, pixels: np.ndarray) -> View:
        """Scale a picture (h, w, 3) uint8."""
        size = (pixels.shape[0], pixels.shape[1])
        return View(resize(pixels, self.scaled(size)), size)

    def region(self, view: View) -> np.ndarray | None:
        """Return which pixels of the scaled picture count, (h, w) bool; None for all of them."""
        if self.roi is None:
            return None
        return self.roi.mask(view.size, (view.pixels.shape[0], view.pixels.shape[1]))

    def frames(self, view: View) -> list[Frame]:
        """Return the frames that cover what counts, row by row."""
        height, width = view.pixels.shape[:2]
        region = self.region(view)
        frames = [
            Frame(rows, columns, top, left, row_weights, column_weights)
            for rows, top, row_weights in _cover(height, self.size[0], self.overlap)
            for columns, left, column_weights in _cover(width, self.size[1], self.overlap)
        ]
        return [frame for frame in frames if region is None or region[frame.rows, frame.columns].any()]

    def cut(self, view: View, frame: Frame) -> np.ndarray:
        """Return the network input (h, w, 3) uint8 of a frame; of one that covers it all, the pixels."""
        return self._padded(view.pixels, frame, "edge")

    def counting(self, view: View, frame: Frame) -> np.ndarray | None:
        """Return which pixels of a frame's network input count, (h, w) bool; None for all of them."""
        region = self.region(view)
        if region is None:
            if (len(frame.row_weights), len(frame.column_weights)) == self.size:
                return None
            region = np.ones(view.pixels.shape[:2], bool)
        return self._padded(region, frame, "constant")

    @property
    def checksum(self) -> int | None:
        """CRC-32 of all this but the size; None where the whole picture is stretched to one input."""
        if self.roi is None and self.tile is None and not self.keep_aspect:
            return None
        ways = repr((self.keep_aspect, self.tile, self.overlap))
        return zlib.crc32(ways.encode(), 0 if self.roi is None else self.roi.checksum)

    def _padded(self, values: np.ndarray, frame: Frame, mode: Any) -> np.ndarray:
        part = values[frame.rows, frame.columns]
        if part.shape[:2] == self.size:
            return values if part.shape == values.shape else part
        (height, width), (top, left) = part.shape[:2], (frame.top, frame.left)
        padding = [(top, self.size[0] - height - top), (left, self.size[1] - width - left)]
        return np.pad(part, padding + [(0, 0)] * (values.ndim - 2), mode)


def framing_of(settings: Settings) -> Framing:
    """Return how a model with these settings frames pictures."""
    return Framing(settings.size, settings.keep_aspect, settings.tile_size, settings.overlap, settings.roi)


@functools.lru_cache(maxsize=64)  # so tiles share their weights, and those of equal pictures
def _cover(length: int, side: int, overlap: float) -> tuple[tuple[slice, int, np.ndarray], ...]:
    """Lay frames over one axis: for each the slice of pixels, the padding before them, and their weights.

    They start at multiples of LATTICE, but the last, which ends with the picture, and overlap by the given
    share or more. What they share is divided in four: at the edge of a frame, where a network sees least
    around, its weight is 0 for a quarter; then it rises linearly over two.
    """
    if length <= side:
        return ((slice(0, length), (side - length) // 2, _read_only(np.ones(length))),)
    step = math.floor(side * (1 - overlap))
    step = max(step // LATTICE * LATTICE, min(step, LATTICE))
    starts = [*range(0, length - side, step), length - side]
    quarter = (side - step) / 4
    from_edge = np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
    rising = (from_edge - quarter) / max(min(2 * quarter, side / 2 - quarter), 0.5)
    weights = np.tile(rising.clip(0, 1), (len(starts), 1))
    weights[0, : side // 2] = weights[-1, side // 2 :] = 1  # the picture ends: no neighbour takes over
    total = np.zeros(length)
    for start, own in zip(starts, weights, strict=True):
        total[start : start + side] += own
    return tuple(
        (slice(start, start + side), 0, _read_only(own / total[start : start + side]))
        for start, own in zip(starts, weights, strict=True)
    )


def _read_only(weights: np.ndarray) -> np.ndarray:
    weights = weights.astype(np.float32)
    weights.setflags(write=False)  # they are handed out again
    return weights
