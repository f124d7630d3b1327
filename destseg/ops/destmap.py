"""The DeST map: anomaly map of teacher and student alone, without the segmentation network."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from destseg.ops import _native


def destmap(distances: Sequence[Tensor], size: Sequence[int] | None = None) -> Tensor:
    """Return the DeST map: the product over levels of the cosine distances.

    Args:
        distances: (n, 1, h_k, w_k) floating point of each level, as `cosine_distances` gives them.
        size: height and width of the map in pixels; the first level's when not given.

    Returns:
        (n, 1, height, width): each level's distances resized bilinearly (align_corners=False) to the first
        one's size and multiplied; the product is then resized the same way to `size`.

    Raises:
        ValueError: there are no levels, shapes or dtypes do not fit together, or the size is not positive.

    Equivalent to: `destmap_ref`. Source: DeSTSeg (arXiv 2211.11317), section 4.4.
    """
    height, width = _checked(distances, size)
    wants_gradient = torch.is_grad_enabled() and any(level.requires_grad for level in distances)
    if wants_gradient:
        return destmap_ref(distances, size)
    if _native.usable_on_gpu(*distances):
        return _destmap_on_gpu(distances, height, width)
    if not _native.usable(*distances):
        return destmap_ref(distances, size)
    n = distances[0].shape[0]
    output = distances[0].new_empty(n, 1, height, width)
    planes = [level.detach().contiguous()[:, 0].numpy() for level in distances]
    _native.kernels.destmap(planes, torch.get_num_threads(), output[:, 0].numpy())
    return output


def _destmap_on_gpu(distances: Sequence[Tensor], height: int, width: int) -> Tensor:
    levels = [level.detach().contiguous() for level in distances]
    output = levels[0].new_empty(levels[0].shape[0], 1, height, width)
    product = torch.empty_like(levels[0], dtype=torch.float32)
    _native.gpu_kernels().destmap(
        [(level.data_ptr(), _size_of(level)) for level in levels],
        len(output),
        _native.name_of(output.dtype),
        product.data_ptr(),
        (height, width),
        output.data_ptr(),
        _native.place(output),
    )
    return output


def destmap_ref(distances: Sequence[Tensor], size: Sequence[int] | None = None) -> Tensor:
    """The definition of `destmap`, on any device; differentiable."""
    size = _checked(distances, size)
    product, finest = distances[0], _size_of(distances[0])
    for distance in distances[1:]:
        product = product * _resized(distance, finest)
    return _resized(product, size)


def _checked(distances: Sequence[Tensor], size: Sequence[int] | None) -> tuple[int, int]:
    """Return height and width of the map."""
    if not distances:
        raise ValueError("distances must be those of at least one level, got none")
    first = distances[0]
    for level in distances:
        if level.ndim != 4 or level.shape[:2] != (first.shape[0], 1) or 0 in level.shape[2:]:
            raise ValueError(
                "distances must be (n, 1, h, w) with h and w of at least 1 and one n for all levels, "
                f"got {tuple(level.shape)}"
            )
        if not level.is_floating_point() or level.dtype != first.dtype:
            raise ValueError(
                f"distances must be floating point of one precision, got {first.dtype} and {level.dtype}"
            )
    height, width = _size_of(first) if size is None else size
    if height < 1 or width < 1:
        raise ValueError(f"size must be height and width, at least 1 each, got {(height, width)}")
    return height, width


def _size_of(image: Tensor) -> tuple[int, int]:
    return image.shape[2], image.shape[3]


def _resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    if _size_of(image) == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
