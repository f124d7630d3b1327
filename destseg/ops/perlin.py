"""Perlin gradient noise turned by an angle."""

import math

import numpy as np
from numpy.typing import NDArray

from destseg.ops import kernels

# Pixels this close outside the border still count as inside, so that a quarter turn loses no edge.
BORDER = 1e-6

Noise = NDArray[np.floating]


def perlin(angles: Noise, size: tuple[int, int], rotation: float = 0.0) -> Noise:
    """Return Perlin noise of the given size, turned about the picture's centre.

    Args:
        angles: (cells_y + 1, cells_x + 1) float32 or float64, direction of the unit gradient at each lattice
            point in radians: its row component is cos(angle), its column component sin(angle).
        size: height and width of the noise in pixels, each at least 1.
        rotation: angle in radians; pixels that the rotation brings in from outside the picture are 0.

    Returns:
        (h, w) noise of the dtype of `angles`, roughly in [-1, 1].

    Raises:
        ValueError: `angles` is no lattice of at least 2 x 2 points, or the size is not positive.

    Equivalent to: `perlin_ref`. Source: Perlin, "Improving noise" (2002), times sqrt(2).
    """
    if angles.ndim != 2 or min(angles.shape) < 2 or angles.dtype not in (np.float32, np.float64):
        raise ValueError(
            "angles must be (cells_y + 1, cells_x + 1) float32 or float64 with at least one cell a side, "
            f"got {angles.dtype} of shape {angles.shape}"
        )
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be (height, width), each at least 1, got {size}")
    if not math.isfinite(rotation):
        raise ValueError(f"rotation must be a finite angle in radians, got {rotation}")
    if kernels.cpu is None or angles.dtype != np.float32:
        return perlin_ref(angles, size, rotation)
    noise = np.empty(size, angles.dtype)
    kernels.cpu.perlin(kernels.lay_out(angles), float(rotation), noise)
    return noise


def perlin_ref(angles: Noise, size: tuple[int, int], rotation: float = 0.0) -> Noise:
    """The definition of `perlin`, in double precision."""
    (height, width), (points_y, points_x) = size, angles.shape
    cosine, sine = math.cos(rotation), math.sin(rotation)
    centre_y, centre_x = 0.5 * (height - 1), 0.5 * (width - 1)
    i = np.arange(height, dtype=np.float64)[:, None]
    j = np.arange(width, dtype=np.float64)[None, :]
    # The order of these sums is the kernel's: rounding must not decide which pixels are inside.
    row = ((centre_y + cosine * (i - centre_y)) - sine * centre_x) + j * sine
    column = ((centre_x - sine * (i - centre_y)) - cosine * centre_x) + j * cosine
    inside = (
        (row >= -BORDER) & (row <= height - 1 + BORDER) & (column >= -BORDER) & (column <= width - 1 + BORDER)
    )

    y = np.where(inside, row, 0.0) * ((points_y - 1) / height)
    x = np.where(inside, column, 0.0) * ((points_x - 1) / width)
    cell_y, cell_x = np.trunc(y).astype(np.int64), np.trunc(x).astype(np.int64)
    v, u = y - cell_y, x - cell_x
    along_rows, along_columns = np.cos(angles.astype(np.float64)), np.sin(angles.astype(np.float64))

    def dot(below: int, right: int) -> Noise:
        corner = cell_y + below, cell_x + right
        return along_rows[corner] * (v - below) + along_columns[corner] * (u - right)

    top = _mix(dot(0, 0), dot(0, 1), _fade(u))
    bottom = _mix(dot(1, 0), dot(1, 1), _fade(u))
    noise = math.sqrt(2) * _mix(top, bottom, _fade(v))
    return np.where(inside, noise, 0.0).astype(angles.dtype)


def _mix(start: Noise, end: Noise, share: Noise) -> Noise:
    return start + share * (end - start)


def _fade(t: Noise) -> Noise:
    return t**3 * (t * (t * 6 - 15) + 10)
