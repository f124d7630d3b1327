"""The curves of a test set as a report keeps and draws them: some hundred points each, with thresholds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from destseg.metrics.accumulator import Accumulator
from destseg.metrics.exact_curves import Curves, Floats

POINTS = 500  # of a curve, at most


class Curve(NamedTuple):
    """A curve, three arrays (k,) of floats.

    `threshold` is the score at which a point is reached, falling; at the ends of curves over the false
    positive rate it is inf and -inf.
    """

    x: Floats
    y: Floats
    threshold: NDArray[np.floating]


def plots(pixels: Curves, scores: Sequence[float], labels: Sequence[bool]) -> dict[str, Curve]:
    """Return those curves of a test set that are defined, by name.

    `image_roc` and `pixel_roc`: true over false positive rate. `image_precision_recall` and
    `pixel_precision_recall`: precision over recall. `region_overlap`: mean overlap over the false positive
    rate of pixels, behind PRO. `instance_precision`: precision over the share of instances found, behind IAP.
    A curve of more than POINTS points is thinned, evenly along its length, its ends kept.

    Args:
        pixels: the exact curves of all pixels.
        scores: (n,) of each picture.
        labels: (n,) whether it counts as anomalous.
    """
    accumulator = Accumulator()  # for which a picture is a pixel
    accumulator.update(np.reshape(scores, (-1, 1, 1)), np.reshape(labels, (-1, 1, 1)).astype(bool))
    pictures = accumulator.curves()
    found = {
        "image_roc": _over_rate(pictures.roc(), pictures),
        "image_precision_recall": Curve(*pictures.precision_recall(), pictures.scores),
        "pixel_roc": _over_rate(pixels.roc(), pixels),
        "pixel_precision_recall": Curve(*pixels.precision_recall(), pixels.scores),
        "region_overlap": _over_rate(pixels.region_overlap(), pixels),
        "instance_precision": Curve(*pixels.instance_precision(), np.sort(pixels.found_at)[::-1]),
    }
    return {
        name: _thinned(curve) for name, curve in found.items() if np.isfinite(curve.x).all() and curve.x.size
    }


def _over_rate(vertices: tuple[Floats, Floats], curves: Curves) -> Curve:
    return Curve(*vertices, np.concatenate([[np.inf], np.repeat(curves.scores, 2), [-np.inf]]))


def _thinned(curve: Curve) -> Curve:
    x, y, threshold = (np.asarray(values, np.float64) for values in curve)
    if x.size > POINTS:
        length = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
        even = np.searchsorted(length, np.linspace(0, length[-1], POINTS - 1))
        kept = np.unique(np.append(even, x.size - 1))
        x, y, threshold = x[kept], y[kept], threshold[kept]
    return Curve(x, y, threshold)
