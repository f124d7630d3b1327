"""Connected components and their scores: drawn cases, references, scipy, the words of the errors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from destseg.ops.components import components, components_ref, mask_of, split, split_ref

INF = math.inf
FLOATS = st.sampled_from([np.float32, np.float64])

both = pytest.mark.parametrize("label", [components, components_ref])
both_splits = pytest.mark.parametrize("parted", [split, split_ref])


def few_values(dtype: type) -> st.SearchStrategy[float]:
    """Scores that often tie, with both zeros, both infinities and the smallest numbers."""
    tiny = float(np.finfo(dtype).smallest_subnormal)
    return st.sampled_from([-INF, -1.5, -tiny, -0.0, 0.0, tiny, 0.25, 0.5, 3.0, INF])


def drawn(*pictures: str) -> np.ndarray:
    """A stack of masks drawn with '#' and '.', or of labels drawn with digits and '.'."""
    rows = [picture.split() for picture in pictures]
    return np.array([[[0 if p == "." else int(p.replace("#", "1")) for p in row] for row in m] for m in rows])


@both
def test_corners_connect_in_eight_and_not_in_four(label):
    masks = drawn("##..# ..#.# #...#").astype(bool)
    eight, eight_sizes = label(masks, 8)
    four, four_sizes = label(masks, 4)
    assert np.array_equal(eight, drawn("11..2 ..1.2 3...2"))
    assert eight_sizes.tolist() == [3, 3, 1]
    assert np.array_equal(four, drawn("11..2 ..3.2 4...2"))
    assert four_sizes.tolist() == [2, 3, 1, 1]
    assert eight.dtype == np.int32 and eight_sizes.dtype == np.int64


@both
def test_numbers_follow_the_first_pixel_even_where_branches_meet_late(label):
    masks = drawn("#.#.# #.#.# #.### ###..", ".#### .#..# ###.# ....#").astype(np.uint8)
    labels, sizes = label(masks, 4)
    assert np.array_equal(labels, drawn("1.1.1 1.1.1 1.111 111..", ".2222 .2..2 222.2 ....2"))
    assert sizes.tolist() == [13, 11]


@both
def test_a_spiral_is_one_component(label):
    masks = drawn("####### ......# #####.# #...#.# #.###.# #.....# #######").astype(bool)
    assert label(masks, 4)[1].tolist() == [int(masks.sum())]


@both
def test_masks_of_a_stack_never_touch_each_other(label):
    masks = np.ones((3, 2, 2), bool)
    labels, sizes = label(masks)
    assert labels[:, 0, 0].tolist() == [1, 2, 3]
    assert sizes.tolist() == [4, 4, 4]


@both
@pytest.mark.parametrize(
    "shape", [(0, 4, 4), (2, 0, 4), (2, 4, 0), (2**40, 0, 0), (3, 1, 1), (1, 1, 9), (1, 9, 1)]
)
@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_one_pixel_masks(label, shape, value):
    labels, sizes = label(np.full(shape, value, np.uint8))
    assert labels.shape == shape
    pixels = shape[1] * shape[2]
    assert sizes.tolist() == ([pixels] * shape[0] if value and pixels else [])


@both
def test_every_value_but_zero_is_foreground_and_strides_do_not_matter(label):
    sparse = np.zeros((2, 8, 10), np.uint8)
    sparse[:, ::2, ::2] = 255
    sparse[:, 0, 4] = 0
    labels, sizes = label(sparse[:, ::2, ::-2])  # every second column, from the right, all background
    assert not labels.any() and sizes.size == 0
    labels, sizes = label(sparse[:, ::2, -2::-2])
    assert np.array_equal(labels[0], drawn("11.11 11111 11111 11111")[0])
    assert sizes.tolist() == [19, 19]


def same_partition(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether two labellings differ in nothing but the numbers."""
    pairs = np.unique(np.stack([ours.ravel(), theirs.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("density", [0.1, 0.45, 0.6, 0.9])
def test_scipy_finds_the_same_components(connectivity, density):
    ndimage = pytest.importorskip("scipy.ndimage")
    masks = np.random.default_rng(0).random((3, 61, 47)) < density
    labels, sizes = components(masks, connectivity)
    structure = np.zeros((3, 3, 3), int)
    structure[1] = ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    expected, count = ndimage.label(masks, structure)
    assert len(sizes) == count
    assert same_partition(labels, expected)
    assert np.array_equal(np.bincount(labels.ravel(), minlength=count + 1)[1:], sizes)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (37, 52), (0, 3)])
@pytest.mark.parametrize("threshold", [0.0, 0.7, 0.99, 1.0])
def test_masks_are_scipy_s_propagation_from_the_threshold_down_to_three_quarters(shape, threshold, dtype):
    ndimage = pytest.importorskip("scipy.ndimage")
    heat = np.random.default_rng(0).random(shape).astype(dtype)
    mask = mask_of(heat, threshold)
    assert mask.dtype == np.bool_ and mask.shape == shape
    if heat.size:
        expected = ndimage.binary_propagation(heat > threshold, np.ones((3, 3)), heat > 0.75 * threshold)
        np.testing.assert_array_equal(mask, expected)


@given(
    hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=9)),
    st.sampled_from([4, 8]),
)
def test_labels_are_numbered_in_raster_order_and_agree_with_the_reference(masks, connectivity):
    labels, sizes = components(masks, connectivity)
    expected_labels, expected_sizes = components_ref(masks, connectivity)
    assert np.array_equal(labels, expected_labels)
    assert np.array_equal(sizes, expected_sizes)
    assert np.array_equal(labels != 0, masks)
    numbers, first = np.unique(labels[labels != 0], return_index=True)
    assert numbers.tolist() == list(range(1, len(sizes) + 1))
    assert np.all(np.diff(first) > 0)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("shape", [(2, 5, 63), (2, 5, 64), (3, 4, 65), (1, 33, 130), (2, 70, 1), (3, 1, 200)])
def test_rows_of_any_width_agree_with_the_reference(shape, connectivity):
    random = np.random.default_rng(shape[2])
    for density in (0.05, 0.5, 0.95):
        masks = np.repeat(random.random(shape) < density, 2, axis=2)  # also runs across words of 64 pixels
        labels, sizes = components(masks, connectivity)
        expected_labels, expected_sizes = components_ref(masks, connectivity)
        assert np.array_equal(labels, expected_labels)
        assert np.array_equal(sizes, expected_sizes)


@both
def test_errors_say_what_is_allowed_and_what_came(label):
    with pytest.raises(ValueError, match=r"masks must be \(n, h, w\), got shape \(4, 4\)"):
        label(np.zeros((4, 4), bool))
    with pytest.raises(TypeError, match="array of bool or uint8, got float64 array"):
        label(np.zeros((1, 4, 4)))
    with pytest.raises(TypeError, match="array of bool or uint8, got list"):
        label([[[1]]])
    with pytest.raises(ValueError, match="connectivity must be 4 or 8, got 6"):
        label(np.zeros((1, 4, 4), bool), 6)


@both_splits
def test_a_picture_split_by_hand(parted):
    scores = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    mask = np.array([[0, 1, 0, 1], [1, 0, 0, 1]], bool)
    normals = np.empty(4, np.float32)
    instances = parted(scores, mask, normals)
    assert normals.tolist() == [1, 3, 6, 7]
    assert instances.positives.tolist() == [2, 5, 4, 8]
    assert instances.sizes.tolist() == [2, 2]
    assert instances.found_at.tolist() == [2, 4]  # index 1 of (5, 2) and of (8, 4)


@given(st.data(), FLOATS)
def test_splits_agree_with_the_reference(data, dtype):
    shape = data.draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12))
    mask = data.draw(hnp.arrays(bool, shape))
    scores = data.draw(hnp.arrays(dtype, shape, elements=few_values(dtype)))
    ours, expected = np.empty((~mask).sum(), dtype), np.empty((~mask).sum(), dtype)
    for part, reference in zip(split(scores, mask, ours), split_ref(scores, mask, expected), strict=True):
        assert np.array_equal(part, reference)
    assert np.array_equal(ours, expected)


@both_splits
def test_nan_counts_as_the_lowest_score_of_an_instance(parted):
    random = np.random.default_rng(0)
    for size in range(1, 200):
        scores = random.permutation(np.arange(size, dtype=np.float32))
        middle = size - 1 - size // 2  # the score at index size // 2 in falling order
        scores[scores < middle] = np.nan
        instances = parted(scores[None], np.ones((1, size), bool), np.empty(0, np.float32))
        assert instances.found_at == middle


def test_sliced_pictures_split_alike():
    random = np.random.default_rng(0)
    scores, mask = random.random((40, 150)), random.random((40, 150)) < 0.3
    scores, mask = scores[::-2, 1::2], mask[::-2, 1::2]
    normals = np.empty((~mask).sum())
    assert np.array_equal(split(scores, mask, normals).positives, split_ref(scores, mask, normals).positives)
    assert np.array_equal(normals, scores[~mask])


def test_scores_that_do_not_fit_the_mask_are_refused():
    with pytest.raises(ValueError, match=r"must be \(h, w\) both, got \(2, 3\) and \(3, 2\)"):
        split(np.zeros((2, 3)), np.zeros((3, 2), bool), np.empty(6))
    with pytest.raises(ValueError, match=r"normals must be \(6,\) float64 .*, got \(6,\) float32"):
        split(np.zeros((2, 3)), np.zeros((2, 3), bool), np.empty(6, np.float32))
    with pytest.raises(ValueError, match=r"normals must be \(5,\) float64 .*, got \(6,\) float64"):
        split(np.zeros((2, 3)), np.eye(2, 3, 2, dtype=bool), np.empty(6))
