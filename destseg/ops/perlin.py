"""Perlin gradient noise turned by an angle, and pictures corrupted where it is high."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from destseg.ops import _native

# Pixels this close outside the border still count as inside, so that a quarter turn loses no edge.
BORDER = 1e-6
THRESHOLD = 0.5  # noise above it is anomaly

Channels = tuple[float, float, float]


class Corruption(NamedTuple):
    """The numbers that one synthetic anomaly is made of, drawn beforehand."""

    angles: Tensor  # (cells_y + 1, cells_x + 1) float32, radians, as `perlin` takes them
    rotation: float  # of the noise, in radians
    share: float  # b, how much of the picture shines through the texture, in [0, 1)


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
    i = torch.arange(height, dtype=torch.float64, device=angles.device)[:, None]
    j = torch.arange(width, dtype=torch.float64, device=angles.device)[None, :]
    # The order of these sums is the kernel's: which pixels are inside must not hang on rounding.
    row = ((centre_y + cosine * (i - centre_y)) - sine * centre_x) + j * sine
    column = ((centre_x - sine * (i - centre_y)) - cosine * centre_x) + j * cosine
    inside = (
        (row >= -BORDER) & (row <= height - 1 + BORDER) & (column >= -BORDER) & (column <= width - 1 + BORDER)
    )

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


def corrupt(
    pictures: Tensor, textures: Tensor, corruptions: Sequence[Corruption], mean: Channels, std: Channels
) -> tuple[Tensor, Tensor]:
    """Blend textures into pictures where Perlin noise exceeds 0.5, and normalise.

    Args:
        pictures: (n, h, w, 3) uint8.
        textures: (n, h, w, 3) uint8.
        corruptions: n anomalies.
        mean, std: per channel, on the range [0, 1].

    Returns:
        The corrupted pictures, (n, 3, h, w) float32 normalised, in channels-last memory order, and the masks,
        (n, 1, h, w) uint8, 1 where the texture was blended in.

    Raises:
        ValueError: shapes, dtypes or numbers of samples do not fit together.

    Equivalent to: `corrupt_ref`. Source: DeSTSeg (arXiv 2211.11317), section 3.1.
    """
    for name, stack in (("pictures", pictures), ("textures", textures)):
        if stack.dtype != torch.uint8 or stack.ndim != 4 or stack.shape[-1] != 3:
            raise ValueError(f"{name} must be (n, h, w, 3) uint8, got {stack.dtype} of {tuple(stack.shape)}")
    if pictures.shape != textures.shape or len(corruptions) != len(pictures):
        raise ValueError(
            f"pictures, textures and corruptions must agree in number and size, got {tuple(pictures.shape)}, "
            f"{tuple(textures.shape)} and {len(corruptions)}"
        )
    if _native.usable_on_gpu(pictures, textures, dtypes=(torch.uint8,)):
        return _corrupt_on_gpu(pictures, textures, corruptions, _affine(mean, std))
    if (
        not _native.usable(*(corruption.angles for corruption in corruptions))
        or pictures.device.type != "cpu"
    ):
        return corrupt_ref(pictures, textures, corruptions, mean, std)
    n, height, width, _ = pictures.shape
    corrupted = torch.empty(pictures.shape, dtype=torch.float32)
    masks = torch.empty((n, 1, height, width), dtype=torch.uint8)
    scale, offset = _affine(mean, std)
    _native.kernels.corrupt(
        pictures.contiguous().numpy(),
        textures.contiguous().numpy(),
        torch.cat([torch.empty(0), *(c.angles.float().flatten() for c in corruptions)]).numpy(),
        np.array([(c.angles.shape[0] - 1, c.angles.shape[1] - 1) for c in corruptions], np.int64),
        np.array([c.rotation for c in corruptions], np.float64),
        np.array([c.share for c in corruptions], np.float32),
        THRESHOLD,
        scale.numpy(),
        offset.numpy(),
        torch.get_num_threads(),
        corrupted.numpy(),
        masks.numpy(),
    )
    return corrupted.permute(0, 3, 1, 2), masks


def _corrupt_on_gpu(
    pictures: Tensor, textures: Tensor, corruptions: Sequence[Corruption], affine: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    kernels, (n, height, width, _) = _native.gpu_kernels(), pictures.shape
    pictures, textures = pictures.contiguous(), textures.contiguous()
    rows = [(c.rotation, c.angles.shape[0] - 1, c.angles.shape[1] - 1, c.share) for c in corruptions]
    table = torch.from_numpy(np.frombuffer(kernels.anomalies(rows), np.uint8).copy())
    angles = torch.cat([torch.empty(0), *(c.angles.float().flatten() for c in corruptions)])
    numbers = _native.sent(torch.cat([table, angles.view(torch.uint8)]), pictures.device)  # all at once
    gradients = torch.empty(2 * len(angles), dtype=torch.float32, device=pictures.device)
    corrupted = torch.empty_like(pictures, dtype=torch.float32)
    masks = pictures.new_empty((n, 1, height, width))
    kernels.corrupt(
        pictures.data_ptr(),
        textures.data_ptr(),
        numbers.data_ptr(),
        numbers.data_ptr() + len(table),
        len(angles),
        gradients.data_ptr(),
        (n, height, width),
        THRESHOLD,
        *(values.tolist() for values in affine),
        corrupted.data_ptr(),
        masks.data_ptr(),
        _native.place(masks),
    )
    return corrupted.permute(0, 3, 1, 2), masks


def corrupt_ref(
    pictures: Tensor, textures: Tensor, corruptions: Sequence[Corruption], mean: Channels, std: Channels
) -> tuple[Tensor, Tensor]:
    """The definition of `corrupt`, on any device; the noise is that of `perlin_ref`."""
    size = (pictures.shape[1], pictures.shape[2])
    noise = [perlin_ref(c.angles.to(pictures.device), size, c.rotation) for c in corruptions]
    masks = torch.stack(noise)[..., None] > THRESHOLD if noise else pictures.new_empty((0, *size, 1)) > 0
    shares = torch.tensor([c.share for c in corruptions], dtype=torch.float32, device=pictures.device)
    kept = torch.where(masks, shares[:, None, None, None], 1.0)
    blend = kept * pictures.float() + (1 - kept) * textures.float()
    scale, offset = (values.to(pictures.device) for values in _affine(mean, std))
    return (blend * scale + offset).permute(0, 3, 1, 2), masks.permute(0, 3, 1, 2).to(torch.uint8)


def _affine(mean: Channels, std: Channels) -> tuple[Tensor, Tensor]:
    """Return scale and offset that take a uint8 value to its normalised one."""
    means, deviations = torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)
    return 1 / (255 * deviations), -means / deviations
