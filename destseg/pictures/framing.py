"""Framing: how a picture of any size becomes network inputs, and which of their pixels count.

A picture is scaled, and frames of the network's input size are laid over the scaled picture. There are three
ways to scale it. By default it is stretched to the input size, and one frame covers it. With `keep_aspect` it
is scaled to fit into one frame. With `tile` it is scaled so that a tile becomes as large as the input, and
many frames overlap. Where a frame sticks out, the picture's edge is repeated. That is padding: no map and no
loss includes it.
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

LATTICE = 32  # pixels, the networks' largest stride: frames at its multiples see the picture on one grid


class View(NamedTuple):
    """A scaled picture, over which frames are laid."""

    pixels: np.ndarray  # (h, w, 3) uint8, scaled
    size: tuple[int, int]  # height and width of the picture itself


class Frame(NamedTuple):
    """Where one network input lies on the scaled picture."""

    rows: slice  # the rows of the scaled picture that the frame covers
    columns: slice
    top: int  # rows of padding above them, within the input
    left: int
    row_weights: np.ndarray  # (rows,) float32, the frame's share in the map; all frames' shares add up to 1
    column_weights: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """The frame's share in the map at every pixel that it covers, (rows, columns) float32."""
        return np.outer(self.row_weights, self.column_weights)

    @property
    def inside(self) -> tuple[slice, slice]:
        """The rows and columns of the network input that are no padding."""
        height, width = len(self.row_weights), len(self.column_weights)
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


@dataclass(frozen=True, eq=False)
class Framing:
    """How pictures become network inputs.

    Attributes:
        size: height and width of the network's input in pixels.
        keep_aspect: scale both sides of a whole picture alike, and pad it.
        tile: height and width of a tile, which becomes one input, in pixels of the picture; None: the whole
            picture becomes one input.
        overlap: least share of a tile's side that a neighbouring tile covers, too.
        roi: region of interest; None: the whole picture counts.
        bit_depth: bits of 16-bit data, see `destseg.pictures.decoding.to_rgb`.
    """

    size: tuple[int, int]
    keep_aspect: bool = False
    tile: tuple[int, int] | None = None
    overlap: float = 0.25
    roi: RegionOfInterest | None = None
    bit_depth: int | None = None

    def within(self, roi: Roi | None) -> "Framing":
        """Return the same framing with another region of interest; None keeps the present one."""
        return self if roi is None else replace(self, roi=RegionOfInterest(roi))

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width to which a picture of this height and width is scaled."""
        if self.tile is not None:
            factors = [side / tile for side, tile in zip(self.size, self.tile, strict=True)]
        elif self.keep_aspect:
            factors = [min(side / length for side, length in zip(self.size, size, strict=True))] * 2
        else:
            return self.size
        height, width = (max(1, round(length * factor)) for length, factor in zip(size, factors, strict=True))
        return height, width

    def view(self, pixels: np.ndarray) -> View:
        """Scale a picture (h, w, 3) uint8."""
        size = (pixels.shape[0], pixels.shape[1])
        return View(resize(pixels, self.scaled_size(size)), size)

    def roi_mask(self, view: View) -> np.ndarray | None:
        """Return which pixels of the scaled picture count, (h, w) bool; None: all of them."""
        if self.roi is None:
            return None
        return self.roi.mask(view.size, (view.pixels.shape[0], view.pixels.shape[1]))

    def frames(self, view: View) -> list[Frame]:
        """Return the frames in which some pixel counts, row by row."""
        height, width = view.pixels.shape[:2]
        counts = self.roi_mask(view)
        frames = [
            Frame(rows, columns, top, left, row_weights, column_weights)
            for rows, top, row_weights in _cover(height, self.size[0], self.overlap)
            for columns, left, column_weights in _cover(width, self.size[1], self.overlap)
        ]
        return [frame for frame in frames if counts is None or counts[frame.rows, frame.columns].any()]

    def cut(self, view: View, frame: Frame) -> np.ndarray:
        """Return the network input of a frame, (h, w, 3) uint8: not a copy if it is the whole view."""
        return self._pad(view.pixels, frame, "edge")

    def input_roi(self, view: View, frame: Frame) -> np.ndarray | None:
        """Return which pixels of a frame's network input count, (h, w) bool; None: all of them."""
        counts = self.roi_mask(view)
        if counts is None:
            if (len(frame.row_weights), len(frame.column_weights)) == self.size:
                return None
            counts = np.ones(view.pixels.shape[:2], bool)
        return self._pad(counts, frame, "constant")

    @property
    def checksum(self) -> int | None:
        """CRC-32 of all settings but the size; None where whole pictures are stretched, and have 16 bits."""
        depth = () if self.bit_depth in (None, 16) else (self.bit_depth,)  # which earlier versions had not
        if self.roi is None and self.tile is None and not self.keep_aspect and not depth:
            return None
        ways = repr((self.keep_aspect, self.tile, self.overlap, *depth))
        return zlib.crc32(ways.encode(), 0 if self.roi is None else self.roi.checksum)

    def _pad(self, values: np.ndarray, frame: Frame, mode: Any) -> np.ndarray:
        """Cut a frame out of (h, w, ...) values and pad it to the input's size."""
        part = values[frame.rows, frame.columns]
        if part.shape[:2] == self.size:
            return values if part.shape == values.shape else part
        (height, width), (top, left) = part.shape[:2], (frame.top, frame.left)
        padding = [(top, self.size[0] - height - top), (left, self.size[1] - width - left)]
        return np.pad(part, padding + [(0, 0)] * (values.ndim - 2), mode)


def framing_of(settings: Settings) -> Framing:
    """Return the framing of a model with these settings."""
    return Framing(
        settings.size,
        settings.keep_aspect,
        settings.tile_size,
        settings.overlap,
        settings.roi,
        settings.bit_depth,
    )


@functools.lru_cache(maxsize=64)  # so the tiles of all pictures of one size share their weights
def _cover(length: int, side: int, overlap: float) -> tuple[tuple[slice, int, np.ndarray], ...]:
    """Lay frames over one axis and return, for each, its slice of pixels, the padding before it, its weights.

    Frames start at multiples of LATTICE, except the last, which ends with the picture. They overlap by the
    given share or more. Over the first quarter of the overlap the weight of a frame is 0, because a network
    sees least around it at its edge; over the next two quarters it rises linearly.
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
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + side] += weight
    return tuple(
        (slice(start, start + side), 0, _read_only(weight / total[start : start + side]))
        for start, weight in zip(starts, weights, strict=True)
    )


def _read_only(weights: np.ndarray) -> np.ndarray:
    weights = weights.astype(np.float32)
    weights.setflags(write=False)  # the cache returns them again
    return weights
