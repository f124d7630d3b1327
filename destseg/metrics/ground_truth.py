"""Pairs each anomaly map with its ground-truth mask and checks both, picture by picture."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Pictures = ArrayLike | Sequence[ArrayLike]
Array = NDArray[Any]
Scores = NDArray[np.floating]
Mask = NDArray[np.bool_]


class Pair(NamedTuple):
    """A map with its mask."""

    scores: Scores  # (h, w) float32 (from bool, 8- and 16-bit types and float32) or else float64, no NaN
    mask: Mask  # (h, w), False outside the region of interest
    roi: Mask | None  # (h, w), which pixels count; None: all of them


def pairs(maps: Pictures, masks: Pictures, regions: Pictures | None = None) -> Iterator[Pair]:
    """Yield each map with its mask.

    Args:
        maps: one (n, h, w) stack or a sequence of n (h, w) arrays, bool, integer or float.
        masks: the same form and sizes; 0 is normal, one positive value (1, 255, True, ...) is defect.
        regions: regions of interest in the same form and sizes: 0 does not count, positive values do. By
            default all pixels do.

    Raises:
        TypeError, ValueError: the message names the picture's index.
    """
    maps, masks = _pictures(maps, "maps"), _pictures(masks, "masks")
    rois = [None] * len(maps) if regions is None else _pictures(regions, "regions")
    for name, others in (("masks", masks), ("regions", rois)):
        if len(maps) != len(others):
            raise ValueError(
                f"maps and {name} must be equally many, got {len(maps)} maps and {len(others)} {name}"
            )
    for index, (scores, mask, roi) in enumerate(zip(maps, masks, rois, strict=True)):
        if mask.shape != scores.shape:
            raise ValueError(
                f"mask {index} must have the size of its map, {scores.shape}, got {mask.shape}; "
                "resize one of them to the other's size"
            )
        if not scores.size:
            raise ValueError(f"map {index} must have at least one pixel, got shape {scores.shape}")
        if roi is None:
            yield Pair(_scores(scores, index), _mask(mask, index), None)
            continue
        if roi.shape != scores.shape or not roi.any():
            got = f"{roi.shape}" if roi.any() else "none"
            raise ValueError(
                f"region {index} must have the size of its map, {scores.shape}, and a pixel inside, got {got}"
            )
        if roi.dtype != np.bool_ and not roi.min() >= 0:  # NaN fails, too
            some = np.unique(roi)[:3].tolist()
            wanted = "regions must hold 0 outside and positive values inside"
            raise ValueError(f"{wanted}, got values such as {some} in region {index}")
        inside = roi != 0
        yield Pair(_scores(scores, index), _mask(mask, index) & inside, inside)


def per_picture(values: ArrayLike, count: int, name: str) -> list[Any]:
    """Return the values, one per picture, as a list; raise ValueError for another number of them."""
    array = np.asarray(values)
    if array.shape != (count,):
        raise ValueError(f"{name} must be ({count},), one per picture, got shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers, got {array.dtype}")
    return list(array.tolist())


def labels_of(values: ArrayLike, name: str) -> Mask:
    """Return labels as bool: 0 is normal, one positive value is a defect. Raises ValueError for all else.

    With -1 in place of 0, as some tools have it, every picture would count as defective.
    """
    labels = np.asarray(values)
    if labels.dtype == np.bool_:
        return labels
    found = np.unique(labels[labels != 0]) if labels.dtype.kind in "iuf" else np.zeros(2)
    if found.size > 1 or not (found > 0).all():  # NaN fails, too
        allowed = "bool, or 0 for normal and one other, positive value for defects"
        raise ValueError(f"{name} must be {allowed}, got values such as {labels.ravel()[:3].tolist()}")
    defect: Mask = labels != 0
    return defect


def refuse_nan(image_scores: Array) -> None:
    """Raise ValueError that names the first picture whose score is NaN."""
    for index in np.flatnonzero(np.isnan(image_scores)):
        raise ValueError(
            f"image scores must be numbers, got NaN for picture {index} "
            "(the mean of the largest values of a map is NaN where they hold both infinities)"
        )


def _pictures(pictures: Pictures, name: str) -> list[Array]:
    if hasattr(pictures, "__array__"):
        stack = np.asanyarray(pictures)
        if stack.ndim != 3 and stack.dtype != object:
            raise ValueError(f"{name} must be (n, h, w) or a sequence of (h, w), got shape {stack.shape}")
        pictures = list(stack)
    arrays = []
    for index, picture in enumerate(pictures):  # type: ignore[arg-type]
        if np.ma.is_masked(picture):
            raise ValueError(
                f"{name} must have no masked values, got some at {index}; regions leave pixels out"
            )
        array = np.asarray(picture)
        arrays.append(array)
        if array.ndim != 2:
            raise ValueError(
                f"{name} must be (n, h, w) or a sequence of (h, w), got {array.shape} at {index}"
            )
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} must be bool, integer or float, got {array.dtype} at {index}")
    return arrays


def _scores(scores: Array, index: int) -> Scores:
    with np.errstate(invalid="ignore"):
        lowest = scores.min()  # NaN if there is one
    if np.isnan(lowest):
        row, column = np.argwhere(np.isnan(scores))[0]
        raise ValueError(f"maps must not hold NaN, got NaN in map {index} at row {row}, column {column}")
    return scores.astype(np.result_type(scores.dtype, np.float32), copy=False)


def _mask(mask: Array, index: int) -> Mask:
    if mask.dtype == np.bool_:
        return mask
    defect: Mask = mask != 0
    values = mask[defect]
    if values.size and not (values[0] > 0 and (values == values[0]).all()):
        raise ValueError(
            "masks must hold 0 for normal pixels and one other, positive value for defects, "
            f"got values such as {np.unique(mask)[:3].tolist()} in mask {index}"
        )
    return defect
