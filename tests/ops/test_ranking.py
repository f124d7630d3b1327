"""Ranks, counts and the largest of scores: by hand, kernels against references, the errors' words."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from destseg.ops.ranking import count_above, count_above_ref, largest, rank, rank_ref

INF = math.inf
FLOATS = st.sampled_from([np.float32, np.float64])


def few_values(dtype: type) -> st.SearchStrategy[float]:
    """Scores that often tie, with both zeros, both infinities and the smallest numbers."""
    tiny = float(np.finfo(dtype).smallest_subnormal)
    return st.sampled_from([-INF, -1.5, -tiny, -0.0, 0.0, tiny, 0.25, 0.5, 3.0, INF])


both_ranks = pytest.mark.parametrize("ranked", [rank, rank_ref])
both_counts = pytest.mark.parametrize("counted", [count_above, count_above_ref])


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
    above, at_or_above = counted(rising, np.array([1, 1, 0, -0.0], np.float32))  # twice the same
    assert (above.tolist(), at_or_above.tolist()) == ([1, 1, 3, 3], [3, 3, 4, 4])
    assert [part.tolist() for part in counted(rising, rising[:0])] == [[], []]
    assert [part.tolist() for part in counted(rising[:0], rising[:1])] == [[0], [0]]


@given(st.data(), FLOATS, FLOATS)
def test_counts_agree_with_the_reference(data, dtype, threshold_dtype):
    rising = np.sort(data.draw(hnp.arrays(dtype, st.integers(0, 20), elements=few_values(dtype))))
    limits = data.draw(hnp.arrays(threshold_dtype, st.integers(0, 8), elements=few_values(threshold_dtype)))
    thresholds = np.sort(limits)[::-1]
    for ours, expected in zip(
        count_above(rising, thresholds), count_above_ref(rising, thresholds), strict=True
    ):
        assert np.array_equal(ours, expected)


def test_ranks_of_too_many_scores_are_refused():
    with pytest.raises(ValueError, match=r"positives must be \(3,\) as the sizes say, got \(4,\)"):
        rank(np.zeros(4, np.float32), np.array([1, 2]))


@both_ranks
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sizes_whose_sum_overflows_or_that_are_below_zero_are_refused(ranked, dtype):
    with pytest.raises(ValueError, match=r"positives must be \(18446744073709551616,\) as .*, got \(0,\)"):
        ranked(np.empty(0, dtype), np.full(4, 2**62))
    with pytest.raises(ValueError, match=r"sizes must be 0 or more, got -1"):
        ranked(np.zeros(2, dtype), np.array([3, -1]))


def test_the_largest_values_by_hand():
    values = np.array([[2, 7, 7], [1, 7, 5]], np.float32)
    assert largest(values, 1).tolist() == [7]
    assert largest(values, 2).tolist() == [7, 7]  # of three that tie
    assert largest(values, 5).tolist() == [2, 5, 7, 7, 7]
    assert largest(np.array([0.5, -INF, INF]), 2).tolist() == [0.5, INF]
    assert largest(values, 2).dtype == np.float64
    assert values.tolist() == [[2, 7, 7], [1, 7, 5]]  # nothing was sorted in place


@pytest.mark.parametrize("count", [4, 5, 10**9])
def test_fewer_values_than_wanted_are_all_of_them(count):
    assert largest(np.array([3.0, -1.0, 3.0, 0.0]), count).tolist() == [-1, 0, 3, 3]


@given(st.data(), FLOATS, st.integers(1, 60))
def test_torch_finds_the_same_largest_values(data, dtype, count):
    shape = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=9)
    values = data.draw(hnp.arrays(dtype, shape, elements=few_values(dtype)))
    flat = torch.from_numpy(values).flatten()
    expected = torch.topk(flat, min(count, len(flat))).values.flip(0)
    assert np.array_equal(largest(values, count), expected.double().numpy())


def test_the_largest_of_sliced_values():
    values = np.random.default_rng(0).random((40, 150)).astype(np.float32)[::-2, 1::3]
    expected = torch.topk(torch.from_numpy(values.copy()).flatten(), 100).values.flip(0)
    assert np.array_equal(largest(values, 100), expected.double().numpy())
