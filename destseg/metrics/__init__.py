"""Exact metrics of anomaly maps against ground truth, for any method; no network is needed.

Maps and masks come as one stack (n, h, w) or as a sequence of (h, w) arrays of different sizes, anything that
numpy.asarray takes. All metrics merge ties (one point of a curve per distinct score) and bin nothing.
A metric that is not defined is nan: all metrics without any defect, pixel AUROC and PRO without any normal
pixel, image AUROC without any normal picture.
"""

from numpy.typing import ArrayLike

from destseg.metrics.accumulator import Accumulator, Metrics, image_auroc
from destseg.metrics.exact_curves import Curves
from destseg.metrics.ground_truth import Pictures

__all__ = [
    "Accumulator",
    "Curves",
    "Metrics",
    "curves",
    "evaluate",
    "iap",
    "iap_at",
    "image_auroc",
    "pixel_ap",
    "pixel_auroc",
    "pro",
]


def evaluate(
    maps: Pictures,
    masks: Pictures,
    image_scores: ArrayLike | None = None,
    top: int = 100,
    image_labels: ArrayLike | None = None,
) -> Metrics:
    """Compute all metrics of a test set.

    Args:
        maps: n anomaly maps (h, w), higher is more anomalous; infinities are allowed, NaN is not.
        masks: n ground-truth masks of the maps' sizes, 0 for normal pixels, one positive value for defects.
        image_scores: (n,) score per picture; by default the mean of the `top` largest values of its map.
        top: how many of the largest values the default image score takes.
        image_labels: (n,) whether the picture shows a defect, bool or 0 and one positive value; by default
            whether its mask does.

    Raises:
        ValueError: a NaN, a mask of another size, with more than two values or with a negative one, an empty
            picture, or different numbers of maps and masks; the message names the picture's index.

    Example:
        Two pictures of 1 x 3 pixels. Of the three highest pixels, the second is normal.

        >>> from destseg import metrics
        >>> maps = [[[0.9, 0.8, 0.1]], [[0.2, 0.7, 0.3]]]
        >>> masks = [[[1, 0, 0]], [[0, 1, 0]]]
        >>> round(metrics.evaluate(maps, masks).pixel_ap, 4), metrics.evaluate(maps, masks).instances
        (0.8333, 2)
    """
    accumulator = Accumulator(top=top)
    accumulator.update(maps, masks, image_scores, image_labels)
    return accumulator.compute()


def curves(maps: Pictures, masks: Pictures) -> Curves:
    """Return the curves behind the pixel and instance metrics, for plotting; arguments as for `evaluate`."""
    accumulator = Accumulator()
    accumulator.update(maps, masks)
    return accumulator.curves()


def pixel_auroc(maps: Pictures, masks: Pictures) -> float:
    """Compute the area under the ROC curve of all pixels; nan without defect or without normal pixels."""
    return curves(maps, masks).auroc()


def pixel_ap(maps: Pictures, masks: Pictures) -> float:
    """Compute average precision of all pixels, step-wise as in scikit-learn; nan without defect pixels."""
    return curves(maps, masks).average_precision()


def pro(maps: Pictures, masks: Pictures, limit: float = 0.3) -> float:
    """Compute the area under per-region overlap over false positive rate in [0, limit], divided by limit."""
    return curves(maps, masks).pro(limit)


def iap(maps: Pictures, masks: Pictures) -> float:
    """Compute instance average precision (DeSTSeg, arXiv 2211.11317); nan without instances.

    An instance is found at threshold t when more than half of its pixels have map >= t. For each possible
    recall, the precision is (defect pixels with map >= t) / (pixels with map >= t) at the highest t that
    reaches this recall, made non-decreasing in t. The metric is the mean precision over all recalls.
    """
    return curves(maps, masks).iap()


def iap_at(maps: Pictures, masks: Pictures, recall: float = 90) -> float:
    """Return the precision behind `iap` at the smallest instance recall of at least `recall` percent."""
    return curves(maps, masks).iap_at(recall)
