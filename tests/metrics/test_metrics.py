"""The six metrics: worked by hand, recorded, against scikit-learn; undefined cases; the errors' words."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from destseg import metrics

NAN = math.nan
INF = math.inf


def values(result: metrics.Metrics) -> list[float]:
    return list(dataclasses.astuple(result))


def area(x: list[float] | np.ndarray, y: list[float] | np.ndarray) -> float:
    """Area under a curve of straight lines."""
    return float(np.diff(x) @ np.add(y[1:], y[:-1])) / 2


# One picture of eight pixels: an instance of three pixels and one of one, four normal pixels.
#   score    9  8  7  6  5  4  3  2
#   pixel    a  a  .  b  .  a  .  .
SCORES = np.array([[[9.0, 8.0, 4.0, 7.0, 6.0, 5.0, 3.0, 2.0]]], np.float32)
DEFECT = np.array([[[1, 1, 1, 0, 1, 0, 0, 0]]], bool)


def test_pixel_metrics_worked_by_hand():
    # Normal pixels below each defect pixel: 4, 4, 3 and 2 of 4.
    assert metrics.pixel_auroc(SCORES, DEFECT) == pytest.approx((4 + 4 + 3 + 2) / 16)
    # Precision at the four defect pixels: 1/1, 2/2, 3/4, 4/6.
    assert metrics.pixel_ap(SCORES, DEFECT) == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)


def test_region_overlap_worked_by_hand():
    # a counts 1/3 a pixel, b 1; the overlap is 1/3 up to a false positive rate of 1/4, 5/6 up to 1/2.
    assert metrics.pro(SCORES, DEFECT, limit=0.25) == pytest.approx(1 / 3)
    assert metrics.pro(SCORES, DEFECT) == pytest.approx((0.25 / 3 + 0.05 * 5 / 6) / 0.3)
    assert metrics.pro(SCORES, DEFECT, limit=1) == pytest.approx((1 / 3 + 5 / 6 + 1 + 1) / 4)


def test_region_overlap_is_interpolated_between_ties():
    scores = np.array([[[1.0, 1.0, 0.0]]])
    mask = np.array([[[1, 0, 0]]])
    # One straight line from (0, 0) to (1/2, 1), then level.
    assert metrics.pro(scores, mask) == pytest.approx(0.5 * 0.6)
    assert metrics.pixel_auroc(scores, mask) == pytest.approx(0.75)


def test_instance_precision_worked_by_hand():
    # a (index 1 of 9, 8, 4) is found at 8, b at 6: precision 2/2 with b missed, 3/4 with none missed.
    assert metrics.iap(SCORES, DEFECT) == pytest.approx((1 + 3 / 4) / 2)
    assert metrics.iap_at(SCORES, DEFECT, 100) == pytest.approx(3 / 4)
    assert metrics.iap_at(SCORES, DEFECT, 51) == pytest.approx(3 / 4)
    assert metrics.iap_at(SCORES, DEFECT, 50) == pytest.approx(1)


def test_more_than_half_of_an_instance_must_be_positive():
    scores = np.array([[[9.0, 5.0, 7.0]]])
    mask = np.array([[[1, 1, 0]]])
    # Half of two pixels is not enough: the instance is found at 5, where a normal pixel is positive as well.
    assert metrics.iap(scores, mask) == pytest.approx(2 / 3)


def test_instance_precision_never_falls_with_the_threshold():
    scores = np.array([[[9.0, 0.0, 8.0, 7.0, 6.0, 5.0]]])
    mask = np.array([[[0, 0, 1, 0, 0, 1]]])
    # Precision is 2/5 where both are found and 1/2 where one is; raising the first to 9.5 makes it 1.
    assert metrics.iap(scores, mask) == pytest.approx((2 / 5 + 1 / 2) / 2)
    falling = np.array([[[9.0, 0.0, 8.0, 0.0, 0.0, 7.0]]])
    # 2/3 with none missed, 1/2 with one missed: the running maximum lifts the second to 2/3.
    assert metrics.iap(falling, mask) == pytest.approx(2 / 3)


def test_image_auroc_worked_by_hand():
    assert metrics.image_auroc([3, 2, 2, 1], [1, 1, 0, 0]) == pytest.approx((2 + 1.5) / 4)
    assert metrics.image_auroc([-INF, INF], [0, 1]) == 1
    assert math.isnan(metrics.image_auroc([1, 2], [1, 1]))
    assert math.isnan(metrics.image_auroc([], []))


def test_image_score_is_the_mean_of_the_largest_values():
    maps = np.zeros((2, 10, 20))
    maps[0].flat[:100] = 1  # 100 ones: mean of the 100 largest 1, of the 200 largest 0.5
    maps[1].flat[:150] = 0.75  # 0.75, and 0.5625
    masks = np.zeros((2, 10, 20), int)
    masks[0, 0, 0] = 1
    assert metrics.evaluate(maps, masks).image_auroc == 1
    assert metrics.evaluate(maps, masks, top=200).image_auroc == 0
    assert metrics.evaluate(maps, masks, top=10**6).image_auroc == 0
    assert metrics.evaluate(maps, masks, image_scores=[1, 2]).image_auroc == 0
    assert metrics.evaluate(maps, masks, image_labels=[0, 1]).image_auroc == 0


@pytest.mark.parametrize("case", ["smooth", "ties", "small", "single"])
def test_recorded_values(golden, case):
    recorded = np.load(golden / "metrics.npz")
    maps, masks = recorded[f"{case}_maps"], recorded[f"{case}_masks"]
    expected, names = recorded[f"{case}_values"], recorded["value_names"].tolist()
    for found in (
        metrics.evaluate(maps, masks),
        metrics.evaluate(maps, masks, recorded[f"{case}_image_scores"]),
    ):
        assert [getattr(found, name) for name in names] == pytest.approx(expected, abs=1e-6)
    single = [metrics.pixel_auroc, metrics.pixel_ap, metrics.pro, metrics.iap, metrics.iap_at]
    assert [metric(maps, masks) for metric in single] == pytest.approx(expected[1:6], abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [2, 7, 10**9])
def test_scikit_learn_agrees_also_with_ties(dtype, levels):
    rivals = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(levels)
    masks = random.random((5, 40, 30)) < 0.1
    maps = np.floor(levels * (random.random(masks.shape) + 0.3 * masks)).astype(dtype)
    maps -= levels // 2  # negative scores and zeros as well
    result = metrics.evaluate(maps, masks)
    assert result.pixel_auroc == pytest.approx(rivals.roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    expected = rivals.average_precision_score(masks.ravel(), maps.ravel())
    assert result.pixel_ap == pytest.approx(expected, abs=1e-12)
    scores, labels = random.integers(0, 5, 50), random.random(50) < 0.4
    assert metrics.image_auroc(scores, labels) == pytest.approx(rivals.roc_auc_score(labels, scores))


def slow_pro(maps: np.ndarray, masks: np.ndarray, instances: np.ndarray, limit: float) -> float:
    """PRO by its definition, one threshold after the other."""
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        positive = maps >= threshold
        rates.append(positive[~masks].mean())
        overlaps.append(np.mean([positive[instances == i].mean() for i in np.unique(instances[masks])]))
    inside = [rate for rate in rates if rate < limit]
    heights = [*overlaps[: len(inside)], np.interp(limit, rates, overlaps)]
    return area([*inside, limit], heights) / limit


def slow_iap(maps: np.ndarray, masks: np.ndarray, instances: np.ndarray) -> float:
    """IAP by its definition: the precision at the highest threshold that finds each instance."""
    regions = [instances == i for i in np.unique(instances[masks])]
    thresholds = [max(t for t in np.unique(maps) if (maps[r] >= t).mean() > 0.5) for r in regions]
    precision = [(maps[masks] >= t).sum() / (maps >= t).sum() for t in sorted(thresholds)]
    return float(np.mean([max(precision[: i + 1]) for i in range(len(precision))]))


@pytest.mark.parametrize("decimals", [0, 1, 2, 8])
@pytest.mark.parametrize("seed", range(3))
def test_region_and_instance_metrics_follow_their_definitions(seed, decimals):
    ndimage = pytest.importorskip("scipy.ndimage")
    random = np.random.default_rng(seed)
    masks = random.random((2, 12, 12)) < 0.2
    one_picture_each = np.zeros((3, 3, 3))
    one_picture_each[1] = 1
    instances, count = ndimage.label(masks, one_picture_each)
    maps = np.round(random.random(masks.shape) + 0.3 * masks, decimals)
    result = metrics.evaluate(maps, masks)
    assert result.instances == count
    assert result.pro == pytest.approx(slow_pro(maps, masks, instances, 0.3), abs=1e-12)
    assert result.iap == pytest.approx(slow_iap(maps, masks, instances), abs=1e-12)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (np.zeros((2, 3, 3)), [NAN, NAN, NAN, NAN, NAN, NAN, 0]),
        (np.ones((2, 3, 3)), [NAN, NAN, 1, NAN, 1, 1, 2]),
        (np.zeros((0, 3, 3)), [NAN, NAN, NAN, NAN, NAN, NAN, 0]),
        (np.array([[[1]], [[0]]]), [0.5, 0.5, 0.5, 0.5 * 0.3, 0.5, 0.5, 1]),
    ],
    ids=["no anomaly", "only anomalies", "no picture", "one pixel each"],
)
def test_undefined_metrics_are_nan_without_warning(masks, expected):
    assert values(metrics.evaluate(np.zeros(masks.shape), masks)) == pytest.approx(expected, nan_ok=True)
    assert not math.isnan(metrics.pro(np.zeros((1, 1, 2)), [[[1, 0]]]))


def test_an_instance_at_the_first_pixel_counts():
    maps, masks = np.zeros((1, 4, 4)), np.zeros((1, 4, 4), bool)
    maps[0, 0, 0] = masks[0, 0, 0] = 1
    assert values(metrics.evaluate(maps, masks)) == pytest.approx([NAN, 1, 1, 1, 1, 1, 1], nan_ok=True)


def test_infinities_rank_as_the_ends():
    maps = np.array([[[INF, 1.0, 0.0, -INF]], [[INF, 2.0, -1.0, -INF]]])
    masks = np.array([[[1, 0, 0, 0]], [[0, 1, 0, 1]]])
    finite = np.clip(maps, -10, 10)
    result = metrics.evaluate(maps, masks, image_scores=[0, 1])
    assert values(result) == values(metrics.evaluate(finite, masks, image_scores=[0, 1]))


def test_negative_zero_ties_with_zero():
    maps = np.array([[[0.0, -0.0, -1.0]]], np.float32)
    assert metrics.pixel_auroc(maps, [[[1, 0, 0]]]) == 0.75
    assert metrics.pixel_auroc(maps, [[[0, 1, 0]]]) == 0.75


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.int64, np.uint16, np.float32, np.float64])
def test_masks_of_any_type_with_two_levels(dtype):
    result = metrics.evaluate(SCORES, DEFECT.astype(dtype))
    assert values(result) == values(metrics.evaluate(SCORES, DEFECT))
    if dtype is np.uint8:
        assert values(result) == values(metrics.evaluate(SCORES, DEFECT.astype(dtype) * 255))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, np.int16, np.int64])
def test_maps_of_any_type(dtype):
    found, expected = (metrics.evaluate(scores, DEFECT) for scores in (SCORES.astype(dtype), SCORES))
    assert values(found) == values(expected)


def test_strides_do_not_matter_and_nothing_is_changed():
    random = np.random.default_rng(0)
    maps = random.random((4, 30, 40)).astype(np.float32)
    masks = random.random((4, 30, 40)) < 0.2
    kept = maps.copy(), masks.copy()
    sliced = metrics.evaluate(maps[::-2, ::3, ::-1], masks[::-2, ::3, ::-1])
    assert np.array_equal(maps, kept[0]) and np.array_equal(masks, kept[1])
    whole = metrics.evaluate(maps[::-2, ::3, ::-1].copy(), masks[::-2, ::3, ::-1].copy())
    assert values(sliced) == values(whole)


def test_pictures_of_differing_sizes_and_tensors():
    random = np.random.default_rng(1)
    maps = [random.random(shape) for shape in [(5, 9), (8, 3), (4, 4)]]
    masks = [random.random(scores.shape) < 0.3 for scores in maps]
    result = metrics.evaluate(maps, masks)
    pixels, defects = (np.concatenate([p.ravel() for p in part]) for part in (maps, masks))
    assert result.pixel_ap == metrics.pixel_ap(pixels[None, None], defects[None, None])
    tensors = [torch.from_numpy(scores) for scores in maps], [torch.from_numpy(mask) for mask in masks]
    assert values(metrics.evaluate(*tensors)) == values(result)


def random_pictures(n, h, w, levels, density, seed):
    """Maps of so many distinct values in a unit, higher in defects, and masks."""
    random = np.random.default_rng(seed)
    masks = random.random((n, h, w)) < density
    maps = random.normal(size=(n, h, w)) + masks
    return (np.round(maps * levels) / levels).astype(np.float32), masks


def tensors_of(*arrays):
    return [torch.from_numpy(array) for array in arrays]


@given(
    *(st.integers(1, 4), st.integers(1, 20), st.integers(1, 30)),
    st.sampled_from([1, 3, 1000]),
    st.sampled_from([0.0, 0.05, 0.3, 0.6, 1.0]),
    st.integers(0, 1000),
)
@settings(deadline=None)
def test_tensors_have_the_metrics_of_arrays(n, h, w, levels, density, seed):
    maps, masks = random_pictures(n, h, w, levels, density, seed)
    expected = pytest.approx(values(metrics.evaluate(maps, masks)), rel=1e-9, abs=1e-12, nan_ok=True)
    assert values(metrics.evaluate(*tensors_of(maps, masks))) == expected
    double = maps.astype(np.float64), masks.astype(np.uint8) * 255
    given_scores = {"image_scores": np.linspace(0, 1, n), "image_labels": np.arange(n) % 2}
    expected = values(metrics.evaluate(*double, **given_scores))
    found = values(metrics.evaluate(*tensors_of(*double), **given_scores))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)


def test_infinities_in_tensors_are_scores_like_others():
    maps, masks = random_pictures(3, 9, 8, 2, 0.3, 0)
    maps[0, :3], maps[1, 2:5] = INF, -INF
    scores, labels = [0.0, 1.0, 2.0], [0, 1, 1]
    expected = metrics.evaluate(maps, masks, scores, image_labels=labels)
    found = metrics.evaluate(
        *tensors_of(maps, masks), torch.tensor(scores), image_labels=torch.tensor(labels)
    )
    assert found == expected and not any(map(math.isnan, values(found)))
    assert metrics.evaluate(torch.from_numpy(maps), masks, scores, image_labels=labels) == expected


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda maps, masks: (maps[0], masks), r"maps must be \(n, h, w\) or .*, got shape \(4, 5\)"),
        (
            lambda maps, masks: (maps.index_put((torch.tensor(1),), torch.tensor(NAN)), masks),
            "NaN in map 1 at row 0",
        ),
        (
            lambda maps, masks: (maps, masks * 2 + torch.arange(5).byte()),
            "0 for normal pixels and one other, positive value",
        ),
    ],
)
def test_words_about_wrong_tensors(spoil, words):
    with pytest.raises(ValueError, match=words):
        metrics.evaluate(*spoil(torch.rand(2, 4, 5), torch.ones(2, 4, 5, dtype=torch.uint8)))
    with pytest.raises(ValueError, match="top must be at least 1"):
        metrics.evaluate(torch.rand(2, 4, 5), torch.ones(2, 4, 5), top=0)


def test_curves_run_from_corner_to_corner():
    curves = metrics.curves(SCORES, DEFECT)
    rate, hits = curves.roc()
    assert (rate[0], hits[0], rate[-1], hits[-1]) == (0, 0, 1, 1)
    assert area(rate, hits) == pytest.approx(curves.auroc())
    rate, overlap = curves.region_overlap()
    assert area(rate, overlap) == pytest.approx(curves.pro(1))
    recall, precision = curves.precision_recall()
    assert recall.tolist() == [0.25, 0.5, 0.75, 1]
    assert precision.tolist() == [1, 1, 3 / 4, 4 / 6]
    with np.errstate(all="raise"):
        assert np.isnan(metrics.curves(SCORES, ~DEFECT | DEFECT).roc()[0]).all()
        assert metrics.curves(SCORES, DEFECT & ~DEFECT).roc()[1].tolist() == [0, 0]


def test_errors_name_the_picture_and_what_is_allowed():
    maps, masks = np.zeros((3, 4, 5)), np.zeros((3, 4, 5))
    broken = maps.copy()
    broken[1, 2, 3] = NAN
    with pytest.raises(ValueError, match="must not hold NaN, got NaN in map 1 at row 2, column 3"):
        metrics.evaluate(broken, masks)
    with pytest.raises(ValueError, match=r"mask 0 must have the size of its map, \(4, 5\), got \(5, 4\)"):
        metrics.evaluate(maps, masks.transpose(0, 2, 1))
    with pytest.raises(ValueError, match="equally many, got 3 maps and 2 masks"):
        metrics.evaluate(maps, masks[:2])
    with pytest.raises(ValueError, match=r"maps must be \(n, h, w\).*got shape \(4, 5\)"):
        metrics.evaluate(maps[0], masks[0])
    with pytest.raises(ValueError, match=r"masks must be \(n, h, w\).*got \(5,\) at 1"):
        metrics.evaluate(list(maps), [masks[0], masks[0][0], masks[0]])
    with pytest.raises(ValueError, match=r"map 0 must have at least one pixel, got shape \(0, 5\)"):
        metrics.evaluate(maps[:, :0], masks[:, :0])
    with pytest.raises(TypeError, match="maps must be bool, integer or float, got complex64 at 0"):
        metrics.evaluate(maps.astype(np.complex64), masks)
    grey = masks.copy()
    grey[2, 0, :3] = [1, 127, 255]
    with pytest.raises(
        ValueError, match=r"one other, positive value for defects, got .*\[0.0, 1.0, 127.0\] in mask 2"
    ):
        metrics.evaluate(maps, grey)
    with pytest.raises(ValueError, match=r"image_scores must be \(3,\), one per picture, got shape \(2,\)"):
        metrics.evaluate(maps, masks, image_scores=[1, 2])
    with pytest.raises(ValueError, match="image_scores must be numbers, got <U1"):
        metrics.evaluate(maps, masks, image_scores=["a", "b", "c"])
    with pytest.raises(ValueError, match="image scores must be numbers, got NaN for picture 2"):
        metrics.evaluate(maps, masks, image_scores=[1, 2, NAN])
    both = maps.copy()
    both[1].flat[:2] = INF, -INF
    with pytest.raises(ValueError, match=r"got NaN for picture 1 .*both infinities"):
        metrics.evaluate(both, masks)
    with pytest.raises(ValueError, match="top must be at least 1 pixel, got 0"):
        metrics.evaluate(maps, masks, top=0)
    with pytest.raises(ValueError, match=r"limit must be a false positive rate in \(0, 1\], got 30"):
        metrics.pro(maps, masks, limit=30)
    with pytest.raises(ValueError, match=r"recall must be a percentage in \[0, 100\], got 101"):
        metrics.iap_at(maps, masks, 101)
    with pytest.raises(ValueError, match=r"scores and labels must be \(n,\) both, got \(2,\) and \(3,\)"):
        metrics.image_auroc([1, 2], [1, 0, 1])


@pytest.mark.parametrize("form", [lambda stack: stack, list], ids=["stack", "list"])
def test_masked_values_are_refused(form):
    """Without a word they would count like all others."""
    plain = np.zeros((2, 3, 4))
    masked = np.ma.masked_array(plain, np.arange(24).reshape(2, 3, 4) > 20)
    with pytest.raises(ValueError, match="maps must have no masked values, got some at 1"):
        metrics.evaluate(form(masked), form(plain))
    with pytest.raises(ValueError, match="masks must have no masked values, got some at 1"):
        metrics.evaluate(form(plain), form(masked))
    assert metrics.evaluate(form(masked[:1]), form(plain[:1])).instances == 0  # nothing is masked there


@pytest.mark.parametrize("labels", [[-1, 1], [1, -1], [0, 1, 2], ["good", "crack"], [None, 1], [0, NAN]])
def test_labels_that_are_no_truth_are_refused(labels):
    """With -1 for normal pictures all of them would count as defective."""
    scores = np.linspace(0, 1, len(labels))
    words = r"must be bool, or 0 for normal and one other, positive value for defects, got .*"
    with pytest.raises(ValueError, match="labels " + words):
        metrics.image_auroc(scores, labels)
    maps, masks = np.zeros((len(labels), 1, 2)), np.zeros((len(labels), 1, 2), bool)
    with pytest.raises(ValueError, match="image_labels " + words):
        metrics.evaluate(maps, masks, image_labels=labels)


@pytest.mark.parametrize("labels", [[0, 1], [False, True], [0.0, 255.0], torch.tensor([0, 1])])
def test_labels_of_every_kind(labels):
    assert metrics.image_auroc([0.1, 0.2], labels) == 1
    assert metrics.evaluate(np.zeros((2, 1, 2)), np.zeros((2, 1, 2)), [0.1, 0.2], image_labels=labels)


def test_masks_and_regions_of_minus_one_and_one_are_refused():
    maps, normal = np.zeros((1, 1, 2)), np.full((1, 1, 2), -1)
    with pytest.raises(
        ValueError, match=r"masks must hold 0 .*positive.* got values such as \[-1\] in mask 0"
    ):
        metrics.evaluate(maps, normal)  # nothing but normal pixels
    with pytest.raises(
        ValueError, match=r"regions must hold 0 outside.* got values such as \[-1, 1\] in region 0"
    ):
        metrics.Accumulator().update(maps, np.zeros((1, 1, 2)), regions=[[[-1, 1]]])
    with pytest.raises(ValueError, match=r"regions must hold 0 outside.* got values such as \[1\.0, nan\]"):
        metrics.Accumulator().update(maps, np.zeros((1, 1, 2)), regions=[[[NAN, 1]]])
