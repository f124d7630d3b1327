"""Collects maps and masks and computes their metrics, exactly and within a bound of memory."""

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from destseg.files import as_path
from destseg.metrics.exact_curves import Curves
from destseg.metrics.ground_truth import Pair, Pictures, Scores, labels_of, pairs, per_picture, refuse_nan
from destseg.metrics.normal_scores import BLOCK, NormalScores, divide, in_threads
from destseg.ops.components import Instances, split
from destseg.ops.kernels import thread_count
from destseg.ops.ranking import largest, rank

MEMORY = 2**32  # bytes of normal pixels' scores that are kept in memory


@dataclasses.dataclass(frozen=True)
class Metrics:
    """The metrics, each a share in [0, 1] or nan where undefined, and the number of defects behind them.

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


class Accumulator:
    """Collects pictures batch by batch, in any number of processes, and computes the same exact metrics.

    A score takes four bytes (eight for float64 maps). Scores of normal pixels beyond `memory` bytes lie in
    unnamed temporary files. While pictures are added, 128 MiB per thread come on top, and while metrics are
    computed, some 80 bytes per defect pixel. A pickled accumulator holds all scores, also those on disk.

    Args:
        top: as for `evaluate`.
        memory: bytes that the scores of normal pixels may take.
        folder: folder of the temporary files; None: the system's.
    """

    def __init__(
        self, top: int = 100, memory: int = MEMORY, folder: str | os.PathLike[str] | None = None
    ) -> None:
        if top < 1:
            raise ValueError(f"top must be at least 1 pixel, got {top!r}")
        self.top = top
        self.image_scores: list[float] = []
        self.image_labels: list[bool] = []
        self._normals = NormalScores(memory, None if folder is None else as_path(folder))
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

        Args:
            regions: regions of interest in the form of the masks: 0 does not count, positive values do. By
                default all pixels do.
        """
        added = Accumulator(self.top, self._normals.memory, self._normals.folder)
        top = None if image_scores is not None else self.top
        for batch in _batches(pairs(maps, masks, regions)):
            groups = divide(batch, lambda picture: picture[0].size)
            parts = in_threads(lambda pictures: gather(pictures, top), groups)
            added._normals.add([part.normals for part in parts])
            for part in parts:
                added._instances += part.instances
                added.image_scores += part.image_scores
        count = len(added._instances)
        added.image_labels = [instances.sizes.size > 0 for instances in added._instances]
        if image_scores is not None:
            added.image_scores = per_picture(image_scores, count, "image_scores")
        if image_labels is not None:
            labels = labels_of(image_labels, "image_labels")
            added.image_labels = per_picture(labels, count, "image_labels")
        refuse_nan(np.array(added.image_scores))
        self.merge(added)

    def merge(self, other: "Accumulator") -> None:
        """Add all pictures of another accumulator, for example one filled by another process."""
        self.image_scores += other.image_scores
        self.image_labels += other.image_labels
        self._normals.merge(other._normals)
        self._instances += other._instances

    def compute(self) -> Metrics:
        """Compute the metrics of all pictures so far."""
        return metrics_of(self.curves(), self.image_scores, self.image_labels)

    def curves(self) -> Curves:
        """Return the curves of all pixels so far."""
        sizes = _join([part.sizes for part in self._instances]).astype(np.int64)
        ranking = rank(_join([part.positives for part in self._instances]), sizes)
        normals_above, normals = self._normals.count_above(ranking.scores)
        return Curves(
            *ranking,
            normals_above=normals_above,
            normals=normals,
            found_at=_join([part.found_at for part in self._instances]),
            normal_count=self._normals.size,
        )


def _join(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0)


def metrics_of(pixels: Curves, scores: Sequence[float], labels: Sequence[bool]) -> Metrics:
    """Return the metrics from the pixels' curves, and from each picture's score and label."""
    return Metrics(
        image_auroc=image_auroc(scores, labels),
        pixel_auroc=pixels.auroc(),
        pixel_ap=pixels.average_precision(),
        pro=pixels.pro(),
        iap=pixels.iap(),
        iap90=pixels.iap_at(90),
        instances=len(pixels.found_at),
    )


def image_auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Compute the area under the ROC curve of image scores; nan where all labels agree.

    Args:
        scores: (n,) one score per picture, higher is more anomalous.
        labels: (n,) whether the picture shows a defect: bool, or 0 for normal and one positive value.
    """
    score, defect = np.asarray(scores), labels_of(labels, "labels")
    if score.ndim != 1 or defect.shape != score.shape:
        raise ValueError(f"scores and labels must be (n,) both, got {score.shape} and {defect.shape}")
    refuse_nan(score)
    if not 0 < defect.sum() < len(defect):
        return math.nan
    positives, normals = score[defect], np.sort(score[~defect])
    below = np.searchsorted(normals, positives, "left") + np.searchsorted(normals, positives, "right")
    return 0.5 * float(below.sum()) / len(positives) / len(normals)


class GroupScores(NamedTuple):
    """The scores of a group of pictures."""

    normals: Scores  # of all of them
    instances: list[Instances]  # of each picture
    image_scores: list[float]  # of each picture; empty if the user gave them


def gather(pictures: Sequence[Pair], top: int | None) -> GroupScores:
    """Divide the scores of pictures; `top` largest values make an image score, None makes no image scores."""
    dtype = np.result_type(np.float32, *(picture.scores for picture in pictures))
    counts = [int(picture.mask.size - np.count_nonzero(picture.mask)) for picture in pictures]
    normals = np.empty(sum(counts), dtype)
    instances = [
        split(scores.astype(dtype, copy=False), mask, normals[end - count : end])
        for (scores, mask, _), count, end in zip(pictures, counts, itertools.accumulate(counts), strict=True)
    ]
    if any(roi is not None for _, _, roi in pictures):
        inside = [(~mask if roi is None else roi)[~mask] for _, mask, roi in pictures]
        normals = normals[np.concatenate(inside)]
    image_scores = [] if top is None else [mean_of_largest(_scores_inside(pair), top) for pair in pictures]
    return GroupScores(normals, instances, image_scores)


def _scores_inside(picture: Pair) -> Scores:
    """Return the scores of the pixels that count."""
    return picture.scores if picture.roi is None else picture.scores[picture.roi]


def _batches(pictures: Iterator[Pair]) -> Iterator[list[Pair]]:
    """Yield lists of pictures that fill a block for each thread."""
    batch: list[Pair] = []
    size = 0
    for picture in pictures:
        batch.append(picture)
        size += picture[0].size
        if size >= BLOCK * thread_count():
            yield batch
            batch, size = [], 0
    yield batch


def mean_of_largest(scores: Scores, top: int) -> float:
    """Return the mean of the `top` largest scores, or of all if there are fewer."""
    with np.errstate(invalid="ignore"):  # the mean of both infinities is NaN, which is refused later
        return float(largest(scores, top).mean())
