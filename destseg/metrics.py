"""Exact metrics of anomaly maps against ground truth; usable with any method, no network needed.

Pictures come as one stack (n, h, w) or as a sequence of (h, w) arrays of differing sizes: anything that
numpy.asarray takes. All metrics merge ties (one point of a curve per distinct score) and bin nothing.
A metric that is not defined is nan: without any defect all of them, without any normal pixel (picture) the
pixel AUROC and PRO (the image AUROC).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from destseg.curves import Curves
from destseg.ground_truth import Pictures, Scores, pairs
from destseg.ops.components import components
from destseg.ops.ranking import count_above


@dataclasses.dataclass(frozen=True)
class Metrics:
    """The six metrics, each a share in [0, 1] or nan where undefined, and the number of defects behind them.

    Attributes:
        image_auroc: area under the ROC curve of image scores.
        pixel_auroc: area under the ROC curve of all pixels.
        pixel_ap: average precision of all pixels, step-wise.
        pro: area under per-region overlap over false positive rate in [0, 0.3], divided by 0.3.
        iap: instance average precision (arXiv 2211.11317).
        iap90: pixel precision where 90 % of the instances are found.
        instances: 8-connected components of the ground truth.
    """

    image_auroc: float
    pixel_auroc: float
    pixel_ap: float
    pro: float
    iap: float
    iap90: float
    instances: int


def evaluate(
    maps: Pictures,
    masks: Pictures,
    image_scores: ArrayLike | None = None,
    top: int = 100,
    image_labels: ArrayLike | None = None,
) -> Metrics:
    """Compute all six metrics of a test set.

    Args:
        maps: n anomaly maps (h, w), higher is more anomalous; infinities are allowed, NaN is not.
        masks: n ground-truth masks of the maps' sizes, 0 for normal pixels and one other value for defects.
        image_scores: (n,) score per picture; by default the mean of the `top` largest values of its map.
        top: how many of the largest values the default image score takes.
        image_labels: (n,) whether the picture shows a defect; by default whether its mask does.

    Raises:
        ValueError: a NaN, a mask of another size or with more than two values, an empty picture, or
            numbers of pictures that differ; the message names the picture's index.
    """
    accumulator = Accumulator(top=top)
    accumulator.update(maps, masks, image_scores, image_labels)
    return accumulator.compute()


def curves(maps: Pictures, masks: Pictures) -> Curves:
    """The curves behind the pixel and instance metrics, for plotting; arguments as for `evaluate`."""
    accumulator = Accumulator()
    accumulator.update(maps, masks)
    return accumulator.curves()


def pixel_auroc(maps: Pictures, masks: Pictures) -> float:
    """Area under the ROC curve of all pixels; nan without defect or without normal pixels."""
    return curves(maps, masks).auroc()


def pixel_ap(maps: Pictures, masks: Pictures) -> float:
    """Average precision of all pixels, step-wise as in scikit-learn; nan without defect pixels."""
    return curves(maps, masks).average_precision()


def pro(maps: Pictures, masks: Pictures, limit: float = 0.3) -> float:
    """Area under per-region overlap over false positive rate in [0, limit], divided by limit."""
    return curves(maps, masks).pro(limit)


def iap(maps: Pictures, masks: Pictures) -> float:
    """Instance average precision (DeSTSeg, arXiv 2211.11317).

    An instance is found at threshold t when more than half of its pixels have map >= t. For each possible
    recall, the precision is (defect pixels with map >= t) / (pixels with map >= t) at the highest t that
    reaches it, made non-decreasing in t; the mean over the recalls is returned. nan without instances.
    """
    return curves(maps, masks).iap()


def iap_at(maps: Pictures, masks: Pictures, recall: float = 90) -> float:
    """The precision behind `iap` at the smallest recall that reaches `recall` percent of the instances."""
    return curves(maps, masks).iap_at(recall)


def image_auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve of image scores.

    Args:
        scores: (n,) one score per picture, higher is more anomalous.
        labels: (n,) whether the picture shows a defect.

    Returns:
        The area; nan where all labels agree.
    """
    score, label = np.asarray(scores), np.asarray(labels)
    if score.ndim != 1 or label.shape != score.shape:
        raise ValueError(f"scores and labels must be (n,) both, got {score.shape} and {label.shape}")
    _refuse_nan(score)
    defect = label.astype(bool)
    if not 0 < defect.sum() < len(defect):
        return math.nan
    positives, normals = score[defect], np.sort(score[~defect])
    below = np.searchsorted(normals, positives, "left") + np.searchsorted(normals, positives, "right")
    return 0.5 * float(below.sum()) / len(positives) / len(normals)


class Accumulator:
    """Collects pictures batch by batch and computes the same exact metrics at any time."""

    def __init__(self, top: int = 100) -> None:
        if top < 1:
            raise ValueError(f"top must be at least 1 pixel, got {top!r}")
        self.top = top
        self.image_scores: list[float] = []
        self.image_labels: list[bool] = []
        self._positives: list[Scores] = []
        self._weights: list[NDArray[np.float64]] = []
        self._found_at: list[Scores] = []
        self._normals: list[Scores] = []

    def update(
        self,
        maps: Pictures,
        masks: Pictures,
        image_scores: ArrayLike | None = None,
        image_labels: ArrayLike | None = None,
    ) -> None:
        """Add pictures; arguments as for `evaluate`. After an error none of the batch counts."""
        batch = Accumulator(self.top)
        for scores, mask in pairs(maps, masks):
            batch._add(scores, mask)
        if image_scores is not None:
            batch.image_scores = _per_picture(image_scores, len(batch.image_scores), "image_scores")
        if image_labels is not None:
            given = _per_picture(image_labels, len(batch.image_labels), "image_labels")
            batch.image_labels = [bool(label) for label in given]
        _refuse_nan(np.array(batch.image_scores))
        self.merge(batch)

    def merge(self, other: "Accumulator") -> None:
        """Add all pictures of another accumulator, for example one filled by another process."""
        self.image_scores += other.image_scores
        self.image_labels += other.image_labels
        self._positives += other._positives
        self._weights += other._weights
        self._found_at += other._found_at
        self._normals += other._normals

    def compute(self) -> Metrics:
        """The six metrics of all pictures so far."""
        pixels = self.curves()
        return Metrics(
            image_auroc=image_auroc(self.image_scores, self.image_labels),
            pixel_auroc=pixels.auroc(),
            pixel_ap=pixels.average_precision(),
            pro=pixels.pro(),
            iap=pixels.iap(),
            iap90=pixels.iap_at(90),
            instances=pixels.found_at.size,
        )

    def curves(self) -> Curves:
        """The curves of all pixels so far."""
        found_at, positives = _joined(self._found_at), _joined(self._positives)
        falling = np.argsort(positives)[::-1]
        scores = positives[falling]
        last_of_score = np.flatnonzero(np.append(scores[1:] != scores[:-1], scores.size > 0))
        weights = np.cumsum(_joined(self._weights)[falling])[last_of_score]
        normals_above = np.zeros(len(last_of_score), np.int64)
        normals = np.zeros(len(last_of_score), np.int64)
        for block in self._normals:
            above, at_or_above = count_above(block, scores[last_of_score])
            normals_above += above
            normals += at_or_above
        return Curves(
            scores=scores[last_of_score],
            positives=last_of_score + 1,
            normals_above=normals_above,
            normals=normals,
            overlap=weights / max(found_at.size, 1),
            found_at=found_at,
            normal_count=sum(block.size for block in self._normals),
        )

    def _add(self, scores: Scores, mask: NDArray[np.bool_]) -> None:
        self.image_scores.append(_mean_of_largest(scores, self.top))
        self.image_labels.append(bool(mask.any()))
        labels, sizes = components(mask[None])
        positives, instances = scores[mask], labels[0][mask] - 1
        by_instance = np.lexsort((-positives, instances))
        middle = np.cumsum(sizes) - sizes + sizes // 2
        self._positives.append(positives)
        self._weights.append(1 / sizes[instances])
        self._found_at.append(positives[by_instance][middle])
        self._normals.append(scores[~mask])


def _joined(parts: Sequence[NDArray[np.floating]]) -> NDArray[np.floating]:
    return np.concatenate(parts) if parts else np.empty(0)


def _mean_of_largest(scores: Scores, top: int) -> float:
    largest = np.partition(scores.ravel(), -min(top, scores.size))[-min(top, scores.size) :]
    with np.errstate(invalid="ignore"):  # the mean of both infinities is NaN, which is refused later
        return float(largest.mean(dtype=np.float64))


def _per_picture(values: ArrayLike, count: int, name: str) -> list[float]:
    array = np.asarray(values)
    if array.shape != (count,):
        raise ValueError(f"{name} must be ({count},), one per picture, got shape {array.shape}")
    return array.tolist()


def _refuse_nan(image_scores: NDArray) -> None:
    for index in np.flatnonzero(image_scores != image_scores):
        raise ValueError(
            f"image scores must be numbers, got NaN for picture {index} "
            "(the mean of the largest values of a map is NaN where they hold both infinities)"
        )
