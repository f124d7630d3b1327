"""The exact curves of a test set, and the areas under them.

Between two scores of defect pixels only normal pixels change sides, so every curve is a straight line there.
The counts at the m distinct scores of defect pixels therefore determine all curves; ties are merged, nothing
is binned. Sums are numpy's: in a matrix library their order would depend on its threads.
"""

import dataclasses
import functools
import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclasses.dataclass(frozen=True, eq=False)
class Curves:
    """Pixel counts at each distinct score of a defect pixel, highest score first.

    Attributes:
        scores: (m,) the distinct scores, falling.
        positives: (m,) int64, defect pixels with map >= score; the last counts all of them.
        overlap: (m,) float64, the share of an instance's pixels with map >= score, mean over all instances.
        normals_above: (m,) int64, normal pixels with map > score.
        normals: (m,) int64, normal pixels with map >= score.
        found_at: (k,) the score at which each of the k instances is found: the value at index int(0.5 * size)
            of the instance's scores in falling order.
        normal_count: how many normal pixels there are.
    """

    scores: NDArray[np.floating]
    positives: Counts
    overlap: Floats
    normals_above: Counts
    normals: Counts
    found_at: NDArray[np.floating]
    normal_count: int

    @property
    def positive_count(self) -> int:
        """How many defect pixels there are."""
        return int(self.positives[-1]) if self.positives.size else 0

    def roc(self) -> tuple[Floats, Floats]:
        """Return false and true positive rates, rising from (0, 0) to (1, 1); nan where undefined."""
        return self._against_false_positive_rate(self.positives / max(self.positive_count, 1))

    def region_overlap(self) -> tuple[Floats, Floats]:
        """Return false positive rate and mean overlap, rising from (0, 0) to (1, 1); nan where undefined."""
        return self._against_false_positive_rate(self.overlap)

    def precision_recall(self) -> tuple[Floats, Floats]:
        """Return rising recall and its precision, one point per distinct score of a defect pixel."""
        return self.positives / max(self.positive_count, 1), self._precision

    def instance_precision(self) -> tuple[Floats, Floats]:
        """Return rising shares of instances found, 1 / k .. 1, and the precision behind `iap` at each."""
        k = self.found_at.size
        return np.arange(1, k + 1) / max(k, 1), self._instance_precision[::-1]

    def auroc(self) -> float:
        """Compute the area under the ROC curve; nan without defect pixels or without normal ones."""
        if not self.positive_count or not self.normal_count:
            return math.nan
        at_score = np.diff(self.positives, prepend=0)
        # A normal pixel of the same score counts half (the Mann-Whitney statistic).
        ranked_below = self.normal_count - 0.5 * (self.normals_above + self.normals)
        return float((at_score * ranked_below).sum()) / self.positive_count / self.normal_count

    def average_precision(self) -> float:
        """Compute the mean precision at the scores of defect pixels (step-wise); nan without any."""
        if not self.positive_count:
            return math.nan
        return float((np.diff(self.positives, prepend=0) * self._precision).sum()) / self.positive_count

    def pro(self, limit: float = 0.3) -> float:
        """Compute the area under region overlap over false positive rate in [0, limit], divided by limit.

        Linear interpolation cuts the curve at the limit. nan without defect or without normal pixels.
        """
        if not 0 < limit <= 1:
            raise ValueError(f"limit must be a false positive rate in (0, 1], got {limit!r}")
        if not self.positive_count or not self.normal_count:
            return math.nan
        end = limit * self.normal_count
        cut = int(np.searchsorted(self.normals_above, end))
        above, at_or_above = self.normals_above[:cut], self.normals[:cut]
        # Each gain in overlap adds a strip of area, from the middle of its tie to the end.
        width = end - 0.5 * (above + at_or_above)
        if cut and at_or_above[-1] > end:  # the end cuts a tie: only the part before the end counts
            width[-1] = 0.5 * (end - above[-1]) ** 2 / (at_or_above[-1] - above[-1])
        return float((np.diff(self.overlap[:cut], prepend=0) * width).sum()) / end

    def iap(self) -> float:
        """Compute instance average precision (DeSTSeg, arXiv 2211.11317): mean precision over the k recalls.

        nan without instances.
        """
        return float(self._instance_precision.mean()) if self.found_at.size else math.nan

    def iap_at(self, recall: float) -> float:
        """Return the precision at the smallest instance recall of at least `recall` percent.

        nan without instances.
        """
        if not 0 <= recall <= 100:
            raise ValueError(f"recall must be a percentage in [0, 100], got {recall!r}")
        k = self.found_at.size
        if not k:
            return math.nan
        missed = min(math.floor(k * (100 - recall) / 100), k - 1)
        return float(self._instance_precision[missed])

    @property
    def _precision(self) -> Floats:
        return self.positives / (self.positives + self.normals)

    @functools.cached_property
    def _instance_precision(self) -> Floats:
        """Precision with 0, 1, .. k - 1 instances missed, (k,), made non-decreasing."""
        thresholds = np.sort(self.found_at)
        place = len(self.scores) - 1 - np.searchsorted(self.scores[::-1], thresholds)
        return np.maximum.accumulate(self._precision[place])

    def _against_false_positive_rate(self, height: Floats) -> tuple[Floats, Floats]:
        """Return the vertices of a curve: before and after each distinct score, and both ends."""
        normals = np.stack([self.normals_above, self.normals], axis=1).ravel()
        if not self.normal_count or not self.positive_count:
            rate = np.full(len(normals) + 2, math.nan)
        else:
            rate = np.concatenate([[0], normals, [self.normal_count]]) / self.normal_count
        return rate, np.concatenate([[0, 0], np.repeat(height, 2)])
