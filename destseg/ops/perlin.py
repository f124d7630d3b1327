"""Perlin gradient noise over a picture, turned by an angle."""

import math

import torch
from torch import Tensor

from destseg.ops import _native

# Pixels this close outside the border still count as inside, so that a quarter turn loses no edge.
BORDER = 1e-6


def perlin(angles: Tensor, size: tuple[int, int], rotation: float = 0.0) -> Tensor:
    """Return Perlin noise of the given size, turned about the picture's centre.

    Args:
        angles: (cells_y + 1, cells_x + 1) float32 or float64, direction of the unit gradient at each lattice
            point in radians: cos(angle) along rows, sin(angle) along columns.
        size: height and width of the noise in pixels, each at least 1.
        rotation: angle in radians; what turns in from outside the picture is 0.

    Returns:
        (h, w) noise of the dtype of `angles`, roughly in [-1, 1].

    Raises:
        ValueError: `angles` is no lattice of at least 2 x 2 points, or the size is not positive.

    Equivalent to: `perlin_ref`. Source: Perlin, "Improving noise" (2002), times sqrt(2).
    """
    if angles.ndim != 2 or min(angles.shape) < 2 or not angles.is_floating_point():
        raise ValueError(
            "angles must be (cells_y + 1, cells_x + 1) floating point with at least one cell a side, "
            f"got {angles.dtype} of shape {tuple(angles.shape)}"
        )
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size must be (height, width), each at least 1, got {size}")
    if not math.isfinite(rotation):
        raise ValueError(f"rotation must be a finite angle in radians, got {rotation}")
    if not _native.usable(angles):
        return perlin_ref(angles, size, rotation)
    noise = angles.new_empty(size)
    _native.kernels.perlin(angles.detach().contiguous().numpy(), float(rotation), noise.numpy())
    return noise


def perlin_ref(angles: Tensor, size: tuple[int, int], rotation: float = 0.0) -> Tensor:
    """The definition of `perlin`, in double precision on any device."""
    (height, width), (points_y, points_x) = size, angles.shape
    cosine, sine = math.cos(rotation), math.sin(rotation)
    centre_y, centre_x = 0.5 * (height - 1), 0.5 * (width - 1)
    position = {"dtype": torch.float64, "device": angles.device}
    i, j = torch.arange(height, **position)[:, None], torch.arange(width, **position)[None, :]
    # The order of these sums is the kernel's: which pixels are inside must not hang on rounding.
    row = ((centre_y + cosine * (i - centre_y)) - sine * centre_x) + j * sine
    column = ((centre_x - sine * (i - centre_y)) - cosine * centre_x) + j * cosine
    inside = (row >= -BORDER) & (row <= height - 1 + BORDER) & (column >= -BORDER) & (column <= width - 1 + BORDER)

    y = torch.where(inside, row, 0.0) * ((points_y - 1) / height)
    x = torch.where(inside, column, 0.0) * ((points_x - 1) / width)
    cell_y, cell_x = y.trunc().long(), x.trunc().long()
    v, u = y - cell_y, x - cell_x
    along_rows, along_columns = angles.double().cos(), angles.double().sin()

    def dot(below: int, right: int) -> Tensor:
        corner = cell_y + below, cell_x + right
        return along_rows[corner] * (v - below) + along_columns[corner] * (u - right)

    def fade(t: Tensor) -> Tensor:
        return t**3 * (t * (t * 6 - 15) + 10)

    top = torch.lerp(dot(0, 0), dot(0, 1), fade(u))
    bottom = torch.lerp(dot(1, 0), dot(1, 1), fade(u))
    noise = math.sqrt(2) * torch.lerp(top, bottom, fade(v))
    return torch.where(inside, noise, 0.0).to(angles.dtype)
