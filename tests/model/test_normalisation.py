"""Pixels as a network takes them: by hand, every kind of memory, and what is refused."""

import numpy as np
import pytest
import torch

from destseg.model.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise, row_of_constants


def test_normalise():
    pixels = np.array([[[[255, 0, 51]]], [[[0, 255, 0]]]], np.uint8)
    expected = [[(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]]
    expected += [[-0.485 / 0.229, (1 - 0.456) / 0.224, -0.406 / 0.225]]
    frozen = pixels.copy()
    frozen.flags.writeable = False
    for batch in (pixels, torch.from_numpy(pixels), frozen):
        result = normalise(batch)
        assert result.shape == (2, 3, 1, 1)
        assert result.dtype == torch.float32
        np.testing.assert_allclose(result[:, :, 0, 0], expected, rtol=1e-5)
    assert normalise(np.zeros((2, 5, 6, 3), np.uint8)).is_contiguous(memory_format=torch.channels_last)
    assert normalise(np.zeros((0, 5, 6, 3), np.uint8)).shape == (0, 3, 5, 6)


def test_normalise_takes_views_and_leaves_them_alone():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 10, 14, 3), dtype=np.uint8)
    before = pixels.copy()
    view = pixels[:, ::2, ::-1]
    mean, std = (np.array(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (view.transpose(0, 3, 1, 2) / 255 - mean) / std
    for batch in (view, torch.from_numpy(view.copy())):
        np.testing.assert_allclose(normalise(batch), expected, atol=1e-5)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize(
    "batch", [np.zeros((2, 5, 6, 3)), np.zeros((5, 6, 3), np.uint8), torch.zeros(1, 3, 5, 6)]
)
def test_normalise_refuses(batch):
    with pytest.raises(ValueError, match=r"pixels must be \(n, h, w, 3\) uint8, got .* of shape \("):
        normalise(batch)


def test_constants_first_asked_for_in_inference_mode_can_be_trained_with():
    row_of_constants.cache_clear()
    with torch.inference_mode():
        mean, std = row_of_constants(5, torch.device("cpu"))
    assert not mean.is_inference() and not std.is_inference()
    assert mean.tolist() == pytest.approx([255 * value for value in IMAGENET_MEAN] * 5)
    assert std.tolist() == pytest.approx([255 * value for value in IMAGENET_STD] * 5)
