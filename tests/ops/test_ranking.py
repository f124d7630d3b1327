"""Ranks and counts of scores: tiny cases by hand, kernels against references, the words of the errors."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from destseg.ops.components import split, split_ref
from destseg.ops.ranking import count_above, count_above_ref, rank, rank_ref

INF = math.inf
FLOATS = st.sampled_from([np.float32, np.float64])


def few_values(dtype: type) -> st.SearchStrategy[float]:
    """Scores that often tie, with both zeros, both infinities and the smallest numbers."""
    tiny = float(np.finfo(dtype).smallest_subnormal)
    return st.sampled_from([-INF, -1.5, -tiny, -0.0, 0.0, tiny, 0.25, 0.5, 3.0, INF])


both_ranks = pytest.mark.parametrize("ranked", [rank, rank_ref])
both_counts = pytest.mark.parametrize("counted", [count_above, count_above_ref])
both_splits = pytest.mark.parametrize("parted", [split, split_ref])


@both_ranks
def test_two_instances_ranked_by_hand(ranked):
    # The first instance has scores 5, 3, 3 and 1, the second 3.
    scores, positives, overlap = ranked(np.array([3, 5, 1, 3, 3], np.float32), np.array([4, 1]))
    assert scores.tolist() == [5, 3, 1]
    assert positives.tolist() == [1, 4, 5]
    assert overlap.tolist() == [1 / 8, 3 / 8 + 1 / 2, 1]
    assert (scores.dtype, positives.dtype, overlap.dtype) == (np.float32, np.int64, np.float64)


@both_ranks
def test_no_instance_and_signed_zeros(ranked):
    assert [part.size for part in ranked(np.empty(0, np.float32), np.empty(0, np.int64))] == [0, 0, 0]
    scores, positives, _ = ranked(np.array([-0.0, INF, 0.0, -INF, -2], np.float32), np.array([5]))
    assert scores.tolist() == [INF, 0, -2, -INF]
    assert positives.tolist() == [1, 3, 4, 5]


@given(st.data(), FLOATS)
def test_ranks_agree_with_the_reference(data, dtype):
    sizes = data.draw(hnp.arrays(np.int64, st.integers(0, 6), elements=st.integers(1, 7)))
    positives = data.draw(hnp.arrays(dtype, int(sizes.sum()), elements=few_values(dtype)))
    for ours, expected in zip(rank(positives, sizes), rank_ref(positives, sizes), strict=True):
        assert np.array_equal(ours, expected)


def test_many_scores_rank_as_in_the_reference_to_the_last_bit():
    random = np.random.default_rng(0)
    positives = random.normal(size=20_000).astype(np.float32)
    positives[::3] = np.round(positives[::3], 2)
    for part in (positives, np.abs(positives), positives[::2], np.full(500, 0.5, np.float32)):
        sizes = np.array([len(part) // 4, len(part) - len(part) // 4])
        for ours, expected in zip(rank(part, sizes), rank_ref(part, sizes), strict=True):
            assert np.array_equal(ours, expected)


@both_counts
def test_scores_counted_by_hand(counted):
    rising = np.array([-INF, 0, 1, 1, 2], np.float32)
    above, at_or_above = counted(rising, np.array([INF, 2, 1, 0.5, -0.0, -INF], np.float32))
    assert above.tolist() == [0, 0, 1, 3, 3, 4]
    assert at_or_above.tolist() == [0, 1, 3, 3, 4, 5]
    assert [part.tolist() for part in counted(rising, rising[:0])] == [[], []]
    assert [part.tolist() for part in counted(rising[:0], rising[:1])] == [[0], [0]]


@given(st.data(), FLOATS, FLOATS)
def test_counts_agree_with_the_reference(data, dtype, threshold_dtype):
    rising = np.sort(data.draw(hnp.arrays(dtype, st.integers(0, 20), elements=few_values(dtype))))
    limits = data.draw(hnp.arrays(threshold_dtype, st.integers(0, 8), elements=few_values(threshold_dtype)))
    thresholds = np.unique(limits)[::-1]
    for ours, expected in zip(
        count_above(rising, thresholds), count_above_ref(rising, thresholds), strict=True
    ):
        assert np.array_equal(ours, expected)


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


def test_sliced_pictures_split_alike():
    random = np.random.default_rng(0)
    scores, mask = random.random((40, 150)), random.random((40, 150)) < 0.3
    scores, mask = scores[::-2, 1::2], mask[::-2, 1::2]
    normals = np.empty((~mask).sum())
    assert np.array_equal(split(scores, mask, normals).positives, split_ref(scores, mask, normals).positives)
    assert np.array_equal(normals, scores[~mask])


def test_errors_say_what_is_allowed_and_what_came():
    with pytest.raises(ValueError, match=r"positives must be \(3,\) as the sizes say, got \(4,\)"):
        rank(np.zeros(4, np.float32), np.array([1, 2]))
    with pytest.raises(ValueError, match=r"must be \(h, w\) both, got \(2, 3\) and \(3, 2\)"):
        split(np.zeros((2, 3)), np.zeros((3, 2), bool), np.empty(6))
    with pytest.raises(ValueError, match=r"normals must be \(6,\) float64 .*, got \(6,\) float32"):
        split(np.zeros((2, 3)), np.zeros((2, 3), bool), np.empty(6, np.float32))
    with pytest.raises(ValueError, match=r"normals must be \(5,\) float64 .*, got \(6,\) float64"):
        split(np.zeros((2, 3)), np.eye(2, 3, 2, dtype=bool), np.empty(6))
