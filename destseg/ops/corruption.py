"""Pictures corrupted where Perlin noise is high: the synthetic anomalies of training."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from destseg.ops import kernels, tensors
from destseg.ops.perlin import perlin_ref

THRESHOLD = 0.5  # where the noise exceeds it there is an anomaly

Channels = tuple[float, float, float]


class Corruption(NamedTuple):
    """The random numbers that make one synthetic anomaly."""

    angles: np.ndarray  # (cells_y + 1, cells_x + 1) float32, radians, as `perlin` takes them
    rotation: float  # of the noise, in radians
    share: float  # b in [0, 1): how much of the picture shines through the texture


def corrupt(
    pictures: Tensor, textures: Tensor, corruptions: Sequence[Corruption], mean: Channels, std: Channels
) -> tuple[Tensor, Tensor]:
    """Blend textures into pictures where Perlin noise exceeds 0.5, and normalise.

    Args:
        pictures: (n, h, w, 3) uint8.
        textures: (n, h, w, 3) uint8.
        corruptions: n anomalies.
        mean, std: of each channel, for values in [0, 1].

    Returns:
        The corrupted pictures, (n, 3, h, w) float32 normalised, in channels-last memory order, and the masks,
        (n, 1, h, w) uint8, 1 where the texture was blended in.

    Raises:
        ValueError: shapes, dtypes or numbers of pictures do not fit together.

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
    if tensors.usable_on_gpu(pictures, textures, dtypes=(torch.uint8,)):
        return _corrupt_on_gpu(pictures, textures, corruptions, _affine(mean, std))
    if not tensors.usable() or type(pictures) is not Tensor or not pictures.is_cpu:
        return corrupt_ref(pictures, textures, corruptions, mean, std)
    n, height, width, _ = pictures.shape
    corrupted = torch.empty(pictures.shape, dtype=torch.float32)
    masks = torch.empty((n, 1, height, width), dtype=torch.uint8)
    scale, offset = _affine(mean, std)
    kernels.cpu.corrupt(
        pictures.contiguous().numpy(),
        textures.contiguous().numpy(),
        _lattices(corruptions),
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
    gpu, (n, height, width, _) = kernels.gpu(), pictures.shape
    pictures, textures = pictures.contiguous(), textures.contiguous()
    rows = [(c.rotation, c.angles.shape[0] - 1, c.angles.shape[1] - 1, c.share) for c in corruptions]
    table, angles = np.frombuffer(gpu.anomalies(rows), np.uint8), _lattices(corruptions)
    numbers = torch.from_numpy(np.concatenate([table, angles.view(np.uint8)]))
    numbers = tensors.send(numbers, pictures.device)  # one copy for all
    gradients = torch.empty(2 * len(angles), dtype=torch.float32, device=pictures.device)
    corrupted = torch.empty_like(pictures, dtype=torch.float32)
    masks = pictures.new_empty((n, 1, height, width))
    gpu.corrupt(
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
        tensors.place(masks),
    )
    return corrupted.permute(0, 3, 1, 2), masks


def corrupt_ref(
    pictures: Tensor, textures: Tensor, corruptions: Sequence[Corruption], mean: Channels, std: Channels
) -> tuple[Tensor, Tensor]:
    """The definition of `corrupt`, on any device; the noise is that of `perlin_ref`."""
    size = (pictures.shape[1], pictures.shape[2])
    noise = [perlin_ref(c.angles, size, c.rotation) for c in corruptions]
    masks = torch.from_numpy(np.array(noise).reshape(-1, *size, 1) > THRESHOLD).to(pictures.device)
    shares = torch.tensor([c.share for c in corruptions], dtype=torch.float32, device=pictures.device)
    kept = torch.where(masks, shares[:, None, None, None], 1.0)
    blend = kept * pictures.float() + (1 - kept) * textures.float()
    scale, offset = (values.to(pictures.device) for values in _affine(mean, std))
    return (blend * scale + offset).permute(0, 3, 1, 2), masks.permute(0, 3, 1, 2).to(torch.uint8)


def _lattices(corruptions: Sequence[Corruption]) -> np.ndarray:
    """Return the angles of all anomalies in one float32 array, one after the other."""
    flat = [corruption.angles.astype(np.float32).ravel() for corruption in corruptions]
    return np.concatenate(flat) if flat else np.empty(0, np.float32)


def _affine(mean: Channels, std: Channels) -> tuple[Tensor, Tensor]:
    """Return the scale and offset that normalise a uint8 value."""
    means, deviations = torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32)
    return 1 / (255 * deviations), -means / deviations
