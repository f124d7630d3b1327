"""The counts behind every point of an exact curve (ROC, precision-recall, PRO).

Letters: k instances, m distinct scores of their pixels.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from destseg.ops import kernels

Counts = NDArray[np.int64]
Scores = NDArray[np.floating]


class Ranking(NamedTuple):
    """The distinct scores of defect pixels in falling order, and how much reaches each of them."""

    scores: Scores  # (m,)
    positives: Counts  # (m,) how many defect pixels are >= score
    overlap: NDArray[np.float64]  # (m,) the share of an instance's pixels >= score, mean over all instances


def rank(positives: Scores, sizes: Counts) -> Ranking:
    """Rank the scores of defect pixels.

    Args:
        positives: (sizes.sum(),) float, no NaN: the scores of the first instance, then of the second ..
        sizes: (k,) int64, how many pixels each instance has.

    Raises:
        ValueError: the number of scores is not the sum of the sizes, or a size is below zero.

    Equivalent to: `rank_ref`.
    """
    _check(positives, sizes)
    if kernels.cpu is None or positives.dtype != np.float32:
        return rank_ref(positives, sizes)
    scores = np.empty_like(positives)
    counts, overlap = np.empty(len(positives), np.int64), np.empty(len(positives))
    m = kernels.cpu.rank(kernels.lay_out(positives), kernels.lay_out(sizes), scores, counts, overlap)
    return Ranking(scores[:m], counts[:m], overlap[:m])


def rank_ref(positives: Scores, sizes: Counts) -> Ranking:
    """The definition of `rank`, in numpy."""
    _check(positives, sizes)
    falling = np.argsort(-positives, kind="stable")
    scores = positives[falling]
    share = np.repeat(1 / sizes, sizes)  # each pixel's share of its instance
    overlap = np.cumsum(share[falling]) / max(len(sizes), 1)
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], scores.size > 0))  # of each distinct score
    return Ranking(scores[last], last + 1, overlap[last])


def count_above(rising: Scores, thresholds: Scores) -> tuple[Counts, Counts]:
    """Count the scores above each threshold, and the scores at or above it.

    Args:
        rising: (count,) float32 or float64 in rising order, no NaN.
        thresholds: (m,) float in falling order, no NaN.

    Returns:
        above: (m,) int64, scores > threshold.
        at_or_above: (m,) int64, scores >= threshold.

    Equivalent to: `count_above_ref`.
    """
    same_dtype = rising.dtype == thresholds.dtype and rising.dtype in (np.float32, np.float64)
    if kernels.cpu is None or not same_dtype:
        return count_above_ref(rising, thresholds)
    above, at_or_above = np.empty(len(thresholds), np.int64), np.empty(len(thresholds), np.int64)
    kernels.cpu.count_above(kernels.lay_out(rising), kernels.lay_out(thresholds), above, at_or_above)
    return above, at_or_above


def count_above_ref(rising: Scores, thresholds: Scores) -> tuple[Counts, Counts]:
    """The definition of `count_above`, in numpy."""
    above = len(rising) - np.searchsorted(rising, thresholds, side="right")
    at_or_above = len(rising) - np.searchsorted(rising, thresholds, side="left")
    return above, at_or_above


def largest(values: Scores, count: int) -> NDArray[np.float64]:
    """Return the `count` largest values, or all if there are fewer, in rising order and double precision.

    Args:
        values: float of any shape; NaN counts as the largest.
        count: at least 1.
    """
    flat = values.ravel()
    return np.sort(np.partition(flat, -min(count, flat.size))[-min(count, flat.size) :].astype(np.float64))


def _check(positives: Scores, sizes: Counts) -> None:
    if (sizes < 0).any():
        raise ValueError(f"sizes must be 0 or more, got {sizes.min()}")
    total = sizes.sum(dtype=np.float64)  # exact where memory suffices; a sum of integers could overflow
    if positives.shape != (total,):
        raise ValueError(f"positives must be ({total:.0f},) as the sizes say, got {positives.shape}")
