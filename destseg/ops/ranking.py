"""Where the scores of normal pixels fall among the scores of defect pixels."""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]


def count_above(normals: NDArray[np.floating], thresholds: NDArray[np.floating]) -> tuple[Counts, Counts]:
    """Count the normal scores above, and the normal scores not below, each threshold.

    Args:
        normals: (count,) float, any order, no NaN.
        thresholds: (m,) float, strictly falling, no NaN.

    Returns:
        above: (m,) int64, normal scores > threshold.
        at_or_above: (m,) int64, normal scores >= threshold.

    Equivalent to: count_above_ref.
    """
    return count_above_ref(normals, thresholds)


def count_above_ref(normals: NDArray[np.floating], thresholds: NDArray[np.floating]) -> tuple[Counts, Counts]:
    """The definition of `count_above`, in numpy."""
    rising = np.sort(normals)
    above = len(rising) - np.searchsorted(rising, thresholds, side="right")
    at_or_above = len(rising) - np.searchsorted(rising, thresholds, side="left")
    return above, at_or_above
