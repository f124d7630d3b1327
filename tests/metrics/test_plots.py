"""The curves that a report keeps: a case worked by hand, scikit-learn's, and thinning."""

import numpy as np
import pytest

from destseg import metrics
from destseg.metrics.plots import POINTS, plots


def test_a_case_worked_by_hand():
    # Two instances, of one and of two pixels; the normal pixel of score 0.7 ranks second.
    pixels = metrics.curves([[[0.9, 0.7, 0.1, 0.6, 0.2]]], [[[1, 0, 0, 1, 1]]])
    found = plots(pixels, [0.8, 0.5, 0.3], [True, False, True])
    curve = found["pixel_roc"]
    assert curve.x.tolist() == [0, 0, 0, 0.5, 0.5, 0.5, 0.5, 1]
    np.testing.assert_allclose(curve.y, [0, 0, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 1])
    np.testing.assert_allclose(curve.threshold, [np.inf, 0.9, 0.9, 0.6, 0.6, 0.2, 0.2, -np.inf])
    np.testing.assert_allclose(found["region_overlap"].y[2::2], [0.5, 0.75, 1])
    np.testing.assert_allclose(found["pixel_precision_recall"].y, [1, 2 / 3, 3 / 4])
    # The second instance is found where more than half of its two pixels are, at 0.2.
    assert found["instance_precision"].x.tolist() == [0.5, 1]
    np.testing.assert_allclose(found["instance_precision"].y, [1, 3 / 4])
    np.testing.assert_allclose(found["instance_precision"].threshold, [0.9, 0.2])
    assert found["image_precision_recall"].y.tolist() == [1, 2 / 3]
    assert found["image_roc"].x.tolist() == [0, 0, 0, 1, 1, 1]


def test_curves_are_those_of_sklearn_and_have_the_areas_of_the_metrics():
    rivals, generator = pytest.importorskip("sklearn.metrics"), np.random.default_rng(0)
    labels = generator.random(300) < 0.4
    scores = (generator.normal(labels, 1.0)).round(1)  # with ties
    found = plots(metrics.curves(scores[None, None], labels[None, None]), scores, labels)
    rate, recall, _ = rivals.roc_curve(labels, scores, drop_intermediate=False)
    precision, back, thresholds = rivals.precision_recall_curve(labels, scores)
    for kind in ("image", "pixel"):
        roc, curve = found[f"{kind}_roc"], found[f"{kind}_precision_recall"]
        assert rivals.auc(roc.x, roc.y) == pytest.approx(rivals.auc(rate, recall))
        at = np.searchsorted(thresholds, curve.threshold)
        np.testing.assert_allclose(curve.x, back[at])
        np.testing.assert_allclose(curve.y, precision[at])
    assert {"region_overlap", "instance_precision"} < found.keys() and len(found) == 6


def test_long_curves_are_thinned_and_keep_their_ends_and_areas():
    generator = np.random.default_rng(1)
    labels = generator.random((3, 100, 100)) < 0.5
    maps = generator.normal(labels, 1.5).astype(np.float32)
    pixels = metrics.curves(maps, labels)
    found = plots(pixels, [0.1, 0.9], [False, True])
    x, y, threshold = found["pixel_roc"]
    assert POINTS / 2 < len(x) <= POINTS
    assert (x[0], y[0], threshold[0]) == (0, 0, np.inf) and (x[-1], y[-1], threshold[-1]) == (1, 1, -np.inf)
    assert (np.diff(x) * (y[1:] + y[:-1]) / 2).sum() == pytest.approx(pixels.auroc(), abs=1e-4)
    assert (np.diff(threshold) <= 0).all()


@pytest.mark.parametrize(
    ("mask", "labels", "names"),
    [
        ([0, 0], [False, False], set()),
        ([1, 1], [True, True], {"image_precision_recall", "pixel_precision_recall", "instance_precision"}),
        ([0, 0], [True, False], {"image_roc", "image_precision_recall"}),  # without masks
    ],
)
def test_undefined_curves_are_left_out(mask, labels, names):
    assert plots(metrics.curves([[[0.1, 0.2]]], [[mask]]), [0.4, 0.6], labels).keys() == names
