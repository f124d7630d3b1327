"""Connected components of a stack of masks, the scores of their pixels, and masks of anomaly maps.

Letters: n masks, h x w pixels, k components over the whole stack.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from destseg.ops import kernels

Labels = NDArray[np.int32]
Sizes = NDArray[np.int64]
Scores = NDArray[np.floating]

EXTENT = 0.75  # of the pixel threshold, down to which a mask reaches around what exceeds it


class Instances(NamedTuple):
    """The k instances of one picture and the scores of their pixels."""

    positives: Scores  # scores of instance 1, then of instance 2 .., each in raster order
    sizes: Sizes  # (k,) pixels of each instance
    found_at: Scores  # (k,) value at index int(0.5 * size) of the instance's scores in falling order


def components(masks: NDArray[np.bool_ | np.uint8], connectivity: int = 8) -> tuple[Labels, Sizes]:
    """Number the connected components of every mask of a stack.

    Args:
        masks: (n, h, w) bool or uint8, any strides; all values but 0 are foreground.
        connectivity: 8 (pixels that share an edge or a corner are connected) or 4 (an edge only).

    Returns:
        labels: (n, h, w) int32; 0 is background, 1..k are the components of the whole stack in raster order
            of their first pixels.
        sizes: (k,) int64, how many pixels each component has.

    Raises:
        TypeError: masks is no array of bool or uint8.
        ValueError: masks has another number of dimensions, or connectivity is neither 4 nor 8.

    Equivalent to: `components_ref`.
    """
    _check(masks, connectivity)
    if kernels.cpu is None:
        return components_ref(masks, connectivity)
    labels = np.empty(masks.shape, np.int32)
    sizes = kernels.cpu.components(np.ascontiguousarray(masks).view(np.uint8), connectivity == 8, labels)
    return labels, sizes


def components_ref(masks: NDArray[np.bool_ | np.uint8], connectivity: int = 8) -> tuple[Labels, Sizes]:
    """The definition of `components`, in numpy.

    A run is a stretch of foreground within one row. Runs that touch from one row to the next are linked, and
    every linked group takes the number of its first run. That is union-find on whole arrays: hook the larger
    root onto the smaller, then shorten all paths, until no link joins two roots.
    """
    _check(masks, connectivity)
    foreground = masks != 0
    rows, starts, stops = _runs(foreground)
    upper, lower = _links(rows, starts, stops, foreground.shape[2], reach=1 if connectivity == 8 else 0)
    roots = _roots(len(rows), upper, lower)
    is_root = roots == np.arange(len(rows))
    run_labels = np.cumsum(is_root, dtype=np.int32)[roots]

    lengths = stops - starts
    labels = np.zeros(foreground.shape, np.int32)
    labels[foreground] = np.repeat(run_labels, lengths)
    sizes = np.zeros(np.count_nonzero(is_root), np.int64)
    np.add.at(sizes, run_labels - 1, lengths)
    return labels, sizes


def mask_of(anomaly_map: NDArray[np.floating], pixel_threshold: float) -> NDArray[np.bool_]:
    """Return the mask of an anomaly map: its 8-connected parts that somewhere exceed the pixel threshold.

    The threshold is so high that normal pictures rarely reach it, so often only the middle of a defect does.
    Therefore a part is what exceeds EXTENT times the threshold. Where no pixel exceeds the threshold itself,
    there is no mask.

    Args:
        anomaly_map: (h, w) floating point in [0, 1].
        pixel_threshold: not negative; NaN marks nothing.

    Returns:
        (h, w) bool.

    Source: hysteresis, as in Canny, "A Computational Approach to Edge Detection" (1986). docs/quality_log.md
    tells what it is worth.
    """
    exceeding = anomaly_map > pixel_threshold
    if not exceeding.any():
        return exceeding
    labels, sizes = components((anomaly_map > EXTENT * pixel_threshold)[None])
    marked = np.zeros(len(sizes) + 1, bool)
    marked[labels[0][exceeding]] = True
    return marked[labels[0]]


def split(scores: Scores, mask: NDArray[np.bool_], normals: Scores) -> Instances:
    """Split the scores of a picture into those of its 8-connected instances and those of normal pixels.

    Args:
        scores: (h, w) float32 or float64, no NaN.
        mask: (h, w) bool, true in instances.
        normals: output for the scores of the mask's false pixels in raster order: as many, contiguous, of the
            dtype of scores.

    Raises:
        ValueError: shapes or dtypes do not fit together.

    Equivalent to: `split_ref`.
    """
    if scores.shape != mask.shape or scores.ndim != 2:
        raise ValueError(f"scores and mask must be (h, w) both, got {scores.shape} and {mask.shape}")
    positive_count = np.count_nonzero(mask)
    if normals.shape != (mask.size - positive_count,) or normals.dtype != scores.dtype:
        raise ValueError(
            f"normals must be ({mask.size - positive_count},) {scores.dtype} for the false pixels of mask, "
            f"got {normals.shape} {normals.dtype}"
        )
    if kernels.cpu is None or scores.dtype not in (np.float32, np.float64):
        return split_ref(scores, mask, normals)
    positives = np.empty(positive_count, scores.dtype)
    mask_bytes = np.ascontiguousarray(mask).view(np.uint8)
    sizes, found_at = kernels.cpu.split(kernels.lay_out(scores), mask_bytes, normals, positives)
    return Instances(positives, sizes, found_at)


def split_ref(scores: Scores, mask: NDArray[np.bool_], normals: Scores) -> Instances:
    """The definition of `split`, in numpy."""
    labels, sizes = components_ref(mask[None])
    instances = labels[0][mask]
    by_instance = np.argsort(instances, kind="stable")
    positives = scores[mask][by_instance]
    falling_by_instance = positives[np.lexsort((-positives, instances[by_instance]))]
    middle = np.cumsum(sizes) - sizes + sizes // 2
    normals[:] = scores[~mask]
    return Instances(positives, sizes, falling_by_instance[middle])


def _check(masks: NDArray[np.bool_ | np.uint8], connectivity: int) -> None:
    if not isinstance(masks, np.ndarray) or masks.dtype not in (np.bool_, np.uint8):
        found = f"{masks.dtype} array" if isinstance(masks, np.ndarray) else type(masks).__name__
        raise TypeError(f"masks must be an (n, h, w) array of bool or uint8, got {found}")
    if masks.ndim != 3:
        raise ValueError(f"masks must be (n, h, w), got shape {masks.shape}")
    if connectivity not in (4, 8):
        raise ValueError(f"connectivity must be 4 or 8, got {connectivity!r}")


def _runs(foreground: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the row, the first column and the column after the last of every run, in raster order.

    Rows are numbered over the whole stack. One number is left out after each mask, so that the last row of a
    mask is never next to the first row of the following one.
    """
    n, h, w = foreground.shape
    framed = np.zeros((n, h, w + 2), np.int8)
    framed[:, :, 1:-1] = foreground
    steps = np.diff(framed, axis=2)
    image, row, starts = np.nonzero(steps == 1)
    stops = np.nonzero(steps == -1)[2]
    return image * (h + 1) + row, starts, stops


def _links(
    rows: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64], w: int, reach: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return all pairs (run, run in the row below) that touch; reach is 1 where corners count, else 0."""
    pitch = w + 2  # wide enough that column + reach never meets the next row's columns
    below = (rows + 1) * pitch
    first = np.searchsorted(rows * pitch + stops, below + starts - reach, side="right")
    last = np.searchsorted(rows * pitch + starts, below + stops + reach, side="left")
    counts = last - first
    upper = np.repeat(np.arange(len(rows)), counts)
    place_among_links = np.arange(len(upper)) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, np.repeat(first, counts) + place_among_links


def _roots(count: int, upper: NDArray[np.int64], lower: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return, for each of `count` runs, the first run of its linked group."""
    roots = np.arange(count)
    while True:
        a, b = roots[upper], roots[lower]
        if np.array_equal(a, b):
            return roots
        np.minimum.at(roots, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(shorter := roots[roots], roots):
            roots = shorter
