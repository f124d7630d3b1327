"""Masks of defects: which values count, and which masks are doubtful."""

import numpy as np
import PIL.Image
import pytest

from destseg.pictures.masks import read_mask


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 127, 128, 255]], np.uint8), [0, 0, 1, 1]),
        (np.array([[0, 1, 1, 0]], np.uint8), [0, 1, 1, 0]),
        (np.array([[0, 0, 0, 0]], np.uint8), [0, 0, 0, 0]),
        (np.array([[0, 2, 200, 0]], np.uint8), [0, 0, 1, 0]),
        (np.array([[False, True]]), [0, 1]),
        (np.array([[0, 32767, 32768, 65535]], np.uint16), [0, 0, 1, 1]),
        (np.array([[0, 1, 1, 0]], np.uint16), [0, 1, 1, 0]),
        (np.array([[[0, 0, 0], [255, 0, 0], [0, 0, 200]]], np.uint8), [0, 1, 1]),
    ],
)
def test_masks(tmp_path, values, expected):
    path = tmp_path / "mask.png"
    PIL.Image.fromarray(values).save(path)
    mask = read_mask(path)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, np.array([expected], bool))
