"""Exact metrics of anomaly maps against ground truth; usable with any method, no network needed.

Pictures come as one stack (n, h, w) or as a sequence of (h, w) arrays of differing sizes: anything that
numpy.asarray takes. All metrics merge ties (one point of a curve per distinct score) and bin nothing.
A metric that is not defined is nan: without any defect all of them, without any normal pixel (picture) the
pixel AUROC and PRO (the image AUROC).
"""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from destseg import tensor_curves
from destseg.curves import Curves
from destseg.gathering import batches, gathered
from destseg.ground_truth import Pictures, pairs, per_picture, refuse_nan
from destseg.normal_scores import NormalScores, divided, in_threads
from destseg.ops.components import Instances
from destseg.ops.ranking import rank
from destseg.tensor_curves import TensorCurves

MEMORY = 2**32  # bytes of normal pixels' scores that are held in memory


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
        maps: n anomaly maps (h, w), higher is more anomalous; infinities are allowed, NaN is not. A tensor
            on a GPU, with masks beside it, does not leave it.
        masks: n ground-truth masks of the maps' sizes, 0 for normal pixels and one other value for defects.
        image_scores: (n,) score per picture; by default the mean of the `top` largest values of its map.
        top: how many of the largest values the default image score takes.
        image_labels: (n,) whether the picture shows a defect; by default whether its mask does.

    Raises:
        ValueError: a NaN, a mask of another size or with more than two values, an empty picture, or
            numbers of pictures that differ; the message names the picture's index.
    """
    if isinstance(maps, torch.Tensor) and not maps.is_cpu:
        return evaluate_tensors(maps, masks, image_scores, top, image_labels)
    accumulator = Accumulator(top=top)
    accumulator.update(maps, masks, image_scores, image_labels)
    return accumulator.compute()


def evaluate_tensors(
    maps: torch.Tensor,
    masks: Any,
    image_scores: ArrayLike | None = None,
    top: int = 100,
    image_labels: ArrayLike | None = None,
) -> Metrics:
    """As `evaluate`, of tensors (n, h, w) both, where they lie: a GPU's do not leave it, only results do."""
    if top < 1:
        raise ValueError(f"top must be at least 1 pixel, got {top!r}")
    maps, masks = tensor_curves.checked(maps, masks)
    if image_scores is None:
        image_scores = tensor_curves.image_scores(maps, top)
    if image_labels is None:
        image_labels = masks.flatten(1).any(dim=1).tolist()
    scores = per_picture(image_scores, len(maps), "image_scores")
    refuse_nan(np.array(scores))
    labels = [bool(label) for label in per_picture(image_labels, len(maps), "image_labels")]
    return _metrics(tensor_curves.curves(maps, masks), scores, labels)


def _metrics(pixels: Curves | TensorCurves, scores: Sequence[float], labels: Sequence[bool]) -> Metrics:
    return Metrics(
        image_auroc=image_auroc(scores, labels),
        pixel_auroc=pixels.auroc(),
        pixel_ap=pixels.average_precision(),
        pro=pixels.pro(),
        iap=pixels.iap(),
        iap90=pixels.iap_at(90),
        instances=len(pixels.found_at),
    )


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
    refuse_nan(score)
    defect = label.astype(bool)
    if not 0 < defect.sum() < len(defect):
        return math.nan
    positives, normals = score[defect], np.sort(score[~defect])
    below = np.searchsorted(normals, positives, "left") + np.searchsorted(normals, positives, "right")
    return 0.5 * float(below.sum()) / len(positives) / len(normals)


class Accumulator:
    """Collects pictures batch by batch, in any number of processes, and computes the same exact metrics.

    Held in memory are four bytes a pixel (eight of float64 maps); of normal pixels up to `memory` bytes, the
    rest in unnamed temporary files. While pictures are added, 128 MiB a thread come on top, and while metrics
    are computed, some 80 bytes a defect pixel. A pickled accumulator holds all scores, on disk or not.

    Args:
        top: as for `evaluate`.
        memory: bytes that the scores of normal pixels may take.
        folder: for the temporary files; None for the system's.
    """

    def __init__(
        self, top: int = 100, memory: int = MEMORY, folder: str | os.PathLike[str] | None = None
    ) -> None:
        if top < 1:
            raise ValueError(f"top must be at least 1 pixel, got {top!r}")
        self.top = top
        self.image_scores: list[float] = []
        self.image_labels: list[bool] = []
        self._normals = NormalScores(memory, folder)
        self._instances: list[Instances] = []  # of each picture

    def update(
        self,
        maps: Pictures,
        masks: Pictures,
        image_scores: ArrayLike | None = None,
        image_labels: ArrayLike | None = None,
        regions: Pictures | None = None,
    ) -> None:
        """Add pictures; arguments as for `evaluate`. After an error none of these pictures counts.

        regions: the form of the masks; pixels of 0 do not count, as if there were none. All do by default.
        """
        added = Accumulator(self.top, self._normals.memory, self._normals.folder)
        top = None if image_scores is not None else self.top
        for batch in batches(pairs(maps, masks, regions)):
            groups = divided(batch, lambda picture: picture[0].size)
            parts = in_threads(lambda pictures: gathered(pictures, top), groups)
            added._normals.add([part.normals for part in parts])
            for part in parts:
                added._instances += part.instances
                added.image_scores += part.image_scores
        count = len(added._instances)
        added.image_labels = [instances.sizes.size > 0 for instances in added._instances]
        if image_scores is not None:
            added.image_scores = per_picture(image_scores, count, "image_scores")
        if image_labels is not None:
            given = per_picture(image_labels, count, "image_labels")
            added.image_labels = [bool(label) for label in given]
        refuse_nan(np.array(added.image_scores))
        self.merge(added)

    def merge(self, other: "Accumulator") -> None:
        """Add all pictures of another accumulator, for example one filled by another process."""
        self.image_scores += other.image_scores
        self.image_labels += other.image_labels
        self._normals.merge(other._normals)
        self._instances += other._instances

    def compute(self) -> Metrics:
        """The six metrics of all pictures so far."""
        return _metrics(self.curves(), self.image_scores, self.image_labels)

    def curves(self) -> Curves:
        """The curves of all pixels so far."""
        sizes = _joined([part.sizes for part in self._instances]).astype(np.int64)
        ranking = rank(_joined([part.positives for part in self._instances]), sizes)
        normals_above, normals = self._normals.count_above(ranking.scores)
        return Curves(
            *ranking,
            normals_above=normals_above,
            normals=normals,
            found_at=_joined([part.found_at for part in self._instances]),
            normal_count=self._normals.size,
        )


def _joined(parts: Sequence[NDArray]) -> NDArray:
    return np.concatenate(parts) if parts else np.empty(0)
