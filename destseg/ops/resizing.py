"""Resizes anomaly maps. Letters: n maps of h x w pixels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from destseg.ops import kernels

Maps = NDArray[np.float32]


def resize_maps(maps: Maps, size: Sequence[int]) -> Maps:
    """Resize maps bilinearly (align_corners=False), without antialiasing.

    Args:
        maps: (n, h, w) float32.
        size: height and width in pixels, at least 1 each.

    Returns:
        (n, height, width) float32; the maps themselves where they have that size already.

    Raises:
        ValueError: another shape, dtype or size.

    Equivalent to: `resize_maps_ref`.
    """
    height, width = size
    if maps.ndim != 3 or maps.dtype != np.float32 or 0 in maps.shape[1:]:
        raise ValueError(f"maps must be (n, h, w) float32, got {maps.dtype} of shape {maps.shape}")
    if height < 1 or width < 1:
        raise ValueError(f"size must be height and width, at least 1 each, got {tuple(size)}")
    if maps.shape[1:] == (height, width):
        return maps
    if kernels.cpu is None:
        return resize_maps_ref(maps, size)
    resized = np.empty((len(maps), height, width), np.float32)
    # The DeST map of a single level is the resized level.
    kernels.cpu.destmap([np.ascontiguousarray(maps)], kernels.thread_count(), resized)
    return resized


def resize_maps_ref(maps: Maps, size: Sequence[int]) -> Maps:
    """The definition of `resize_maps`, in numpy."""
    for axis, wanted in ((1, size[0]), (2, size[1])):
        given = maps.shape[axis]
        # In single precision, as in the kernel: in double, maps would differ by 1e-5 where they are large.
        centres = np.float32(given / wanted) * (np.arange(wanted, dtype=np.float32) + np.float32(0.5))
        centres = (centres - np.float32(0.5)).clip(0, given - 1)
        low = centres.astype(np.int64)
        share = (centres - low.astype(np.float32)).reshape(-1, *[1] * (2 - axis))
        before, after = maps.take(low, axis), maps.take(np.minimum(low + 1, given - 1), axis)
        maps = before + share * (after - before)
    return maps
