"""The DeST map: the anomaly map of teacher and student alone, without the segmentation network."""

from collections.abc import Sequence

import torch
from torch import Tensor

from destseg.ops import kernels, tensors
from destseg.ops.features import (
    Levels,
    are_channels_last,
    arrays,
    check,
    resize,
    thread_count,
    to_single,
    unit_vectors,
    wants_gradient,
)


def destmap(distances: Sequence[Tensor], size: Sequence[int] | None = None) -> Tensor:
    """Return the DeST map: the product of the cosine distances over all levels.

    Args:
        distances: each level's, (n, 1, h_k, w_k) floating point, as `cosine_distances` gives them.
        size: height and width of the map in pixels; by default the first level's.

    Returns:
        (n, 1, height, width): all levels resized bilinearly (align_corners=False) to the size of the first,
        and multiplied; the product is then resized to `size` in the same way.

    Raises:
        ValueError: there are no levels, shapes or dtypes do not fit together, or the size is not positive.

    Equivalent to: `destmap_ref`. Source: DeSTSeg (arXiv 2211.11317), section 4.4.
    """
    height, width = _check(distances, size)
    if wants_gradient(*distances) or not tensors.usable(*distances):
        return destmap_ref(distances, size)
    n = distances[0].shape[0]
    output = distances[0].new_empty(n, 1, height, width)
    planes = [level.detach().contiguous()[:, 0].numpy() for level in distances]
    kernels.cpu.destmap(planes, torch.get_num_threads(), output[:, 0].numpy())
    return output


def destmap_ref(distances: Sequence[Tensor], size: Sequence[int] | None = None) -> Tensor:
    """The definition of `destmap`, on any device; differentiable."""
    size = _check(distances, size)
    product = distances[0]
    for distance in distances[1:]:
        product = product * resize(distance, product.shape[-2:])
    return resize(product, size)


def destmap_of_features(taught: Levels, learnt: Levels, size: Sequence[int] | None = None) -> Tensor:
    """Return the DeST map of teacher and student features, in one pass from features to pixels.

    Args:
        taught: the teacher's features of each level, (n, c_k, h_k, w_k) floating point.
        learnt: the student's, of the same shapes and dtype.
        size: height and width of the map in pixels; by default the first level's.

    Returns:
        (n, 1, height, width): `destmap` of the features' cosine distances.

    Raises:
        ValueError: there are no levels, shapes or dtypes do not fit together, or the size is not positive.

    Equivalent to: `destmap_of_features_ref`. Source: DeSTSeg (arXiv 2211.11317), sections 3.2 and 4.4.
    """
    check(taught, learnt)
    height, width = _size(taught[0], size)
    if wants_gradient(*taught, *learnt):
        return destmap_of_features_ref(taught, learnt, size)
    taught, learnt = to_single(taught), to_single(learnt)
    if not tensors.usable(*taught, *learnt):
        return destmap_of_features_ref(taught, learnt, size)
    channels_last = are_channels_last(*taught, *learnt)
    output = taught[0].new_empty(taught[0].shape[0], 1, height, width)
    kernels.cpu.destmap_of_features(
        arrays(taught, channels_last),
        arrays(learnt, channels_last),
        channels_last,
        thread_count(*learnt),
        output[:, 0].numpy(),
    )
    return output


def destmap_of_features_ref(taught: Levels, learnt: Levels, size: Sequence[int] | None = None) -> Tensor:
    """The definition of `destmap_of_features`, on any device; differentiable."""
    check(taught, learnt)
    distances = [
        1 - (unit_vectors(t) * unit_vectors(s)).sum(dim=1, keepdim=True)
        for t, s in zip(taught, learnt, strict=True)
    ]
    return destmap_ref(distances, size)


def _check(distances: Sequence[Tensor], size: Sequence[int] | None) -> tuple[int, int]:
    """Check distances and return the map's height and width."""
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
    return _size(first, size)


def _size(first: Tensor, size: Sequence[int] | None) -> tuple[int, int]:
    """Return height and width of the map, by default those of the first level."""
    height, width = first.shape[-2:] if size is None else size
    if height < 1 or width < 1:
        raise ValueError(f"size must be height and width, at least 1 each, got {(height, width)}")
    return height, width
