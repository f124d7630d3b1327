"""Metrics by torch where the maps lie: equal to the CPU's own, with ties, without defects."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from destseg import metrics, tensor_curves
from destseg.metrics import evaluate, evaluate_tensors
from destseg.ops.components import components

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def pictures(n, h, w, levels, density, seed):
    """Maps of so many distinct values, higher in defects, and masks."""
    random = np.random.default_rng(seed)
    masks = random.random((n, h, w)) < density
    maps = random.normal(size=(n, h, w)) + masks
    return (np.round(maps * levels) / levels).astype(np.float32), masks


def on_device(*arrays):
    return [torch.from_numpy(array).to(DEVICE) for array in arrays]


def assert_same(found, expected):
    for field in dataclasses.fields(expected):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12, nan_ok=True), field.name


@given(
    *(st.integers(1, 4), st.integers(1, 20), st.integers(1, 30)),
    st.sampled_from([1, 3, 1000]),
    st.sampled_from([0.0, 0.05, 0.3, 0.6, 1.0]),
    st.integers(0, 1000),
)
@settings(deadline=None)
def test_the_metrics_are_those_of_the_cpu(n, h, w, levels, density, seed):
    maps, masks = pictures(n, h, w, levels, density, seed)
    assert_same(evaluate_tensors(*on_device(maps, masks)), evaluate(maps, masks))
    labels, scores = np.arange(n) % 2, np.linspace(0, 1, n)
    given = {"image_scores": scores, "image_labels": labels}
    double = maps.astype(np.float64), masks.astype(np.uint8) * 255
    assert_same(evaluate_tensors(*on_device(*double), **given), evaluate(*double, **given))


@given(
    *(st.integers(1, 3), st.integers(1, 12), st.integers(1, 40)),
    st.sampled_from([0.1, 0.4, 0.6, 0.9]),
    st.integers(0, 1000),
)
@settings(deadline=None)
def test_components_are_those_of_the_kernel(n, h, w, density, seed):
    masks = np.random.default_rng(seed).random((n, h, w)) < density
    labels, sizes = tensor_curves.components(*on_device(masks))
    expected, expected_sizes = components(masks)
    assert (labels.cpu().numpy() == expected[masks] - 1).all()
    assert (sizes.cpu().numpy() == expected_sizes).all()


def test_a_spiral_is_one_component():
    drawn = [
        "#########",
        "........#",
        "#######.#",
        "#.....#.#",
        "#.###.#.#",
        "#.#...#.#",
        "#.#####.#",
        "#.......#",
    ]
    mask = np.array([[[pixel == "#" for pixel in row] for row in [*drawn, "#########"]]])
    assert len(tensor_curves.components(*on_device(mask))[1]) == 1


def test_infinities_are_scores_like_others():
    maps, masks = pictures(3, 9, 8, 2, 0.3, 0)
    maps[0, :3], maps[1, 2:5] = np.inf, -np.inf
    given = {"image_scores": [0.0, 1.0, 2.0]}
    assert_same(evaluate_tensors(*on_device(maps, masks), **given), evaluate(maps, masks, **given))


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
def test_tensors_on_a_gpu_stay_there(monkeypatch):
    maps, masks = pictures(3, 20, 30, 100, 0.1, 0)
    expected = evaluate(maps, masks)
    monkeypatch.setattr(metrics, "Accumulator", lambda *_: pytest.fail("they left the GPU"))
    assert_same(evaluate(*on_device(maps, masks)), expected)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda maps, masks: (maps[0], masks),
            r"must be tensors \(n, h, w\) of one size, got \(4, 5\) and \(2, 4, 5\)",
        ),
        (lambda maps, masks: (maps, masks.numpy()), "must be tensors"),
        (
            lambda maps, masks: (maps.index_put((torch.tensor(1),), torch.tensor(np.nan)), masks),
            "NaN in map 1 at row 0",
        ),
        (
            lambda maps, masks: (maps, masks * 2 + torch.arange(5).byte()),
            "0 for normal pixels and one other value",
        ),
    ],
)
def test_words_about_wrong_tensors(spoil, words):
    with pytest.raises(ValueError, match=words):
        evaluate_tensors(*spoil(torch.rand(2, 4, 5), torch.ones(2, 4, 5, dtype=torch.uint8)))
    with pytest.raises(ValueError, match="top must be at least 1"):
        evaluate_tensors(torch.rand(2, 4, 5), torch.ones(2, 4, 5), top=0)
