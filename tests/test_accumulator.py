"""Metrics collected batch by batch, in pieces and by several processes."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from destseg import metrics

MAPS = np.random.default_rng(0).random((4, 9, 11)).astype(np.float32)
MASKS = np.random.default_rng(1).random(MAPS.shape) < 0.1


def values(result: metrics.Metrics) -> list[float]:
    return list(dataclasses.astuple(result))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from([np.float32, np.float64]))
def test_batches_and_merges_give_what_one_call_gives(seed, levels, dtype):
    random = np.random.default_rng(seed)
    masks = random.random((6, 7, 5)) < random.random()
    maps = random.integers(0, levels, masks.shape).astype(dtype)
    whole = metrics.evaluate(maps, masks)
    first, second = metrics.Accumulator(), metrics.Accumulator()
    first.update(maps[:1], masks[:1])
    second.update(maps[1:4], masks[1:4])
    second.update(maps[4:], masks[4:])
    first.merge(second)
    assert values(first.compute()) == pytest.approx(values(whole), abs=1e-12, nan_ok=True)
    assert first.image_scores == pytest.approx([scores.mean() for scores in maps])


def test_a_refused_batch_leaves_the_accumulator_as_it_was():
    accumulator = metrics.Accumulator()
    accumulator.update(MAPS, MASKS)
    with pytest.raises(ValueError, match="map 1"):
        accumulator.update(np.array([[[1.0, 2.0]], [[math.nan, 0.0]]]), np.zeros((2, 1, 2)))
    assert values(accumulator.compute()) == pytest.approx(values(metrics.evaluate(MAPS, MASKS)), nan_ok=True)
