"""Thumbnails: what their layers tell about map and ground truth."""

import io

import numpy as np
import PIL.Image
import pytest

from destseg.ops.components import mask_of
from destseg.page.gallery import MANY, SIDE, Gallery


def decoded(data):
    return np.asarray(PIL.Image.open(io.BytesIO(data)))


def blocks(values, size):
    """Whether any value of each block is True, as it is defined."""
    (height, width), (wide, high) = values.shape, size
    rows, columns = np.arange(high + 1) * height // high, np.arange(wide + 1) * width // wide
    return np.array(
        [
            [values[rows[i] : rows[i + 1], columns[k] : columns[k + 1]].any() for k in range(wide)]
            for i in range(high)
        ]
    )


@pytest.mark.parametrize("size", [(60, 90), (700, 300), (256, 256)])
def test_the_layers_are_the_map_s_levels_the_truth_and_the_mask(size):
    generator, threshold = np.random.default_rng(0), 0.0683421
    heat = (generator.random(size) ** 3).astype(np.float32)
    heat[3, 4] = threshold  # which does not exceed it
    pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
    gallery = Gallery(threshold)
    truth = np.zeros(size, bool)
    truth[-1, -1] = True  # a single pixel is not lost
    gallery.add("part", "part.png", pixels, heat, truth)
    thumbnail = gallery.thumbnails["part"]
    layers = decoded(thumbnail.layers)
    assert max(thumbnail.size) == min(SIDE, max(size))
    assert decoded(thumbnail.picture).shape == (*thumbnail.size[::-1], 3) == layers.shape
    (place,) = np.flatnonzero(gallery.edges == np.float32(threshold))
    np.testing.assert_array_equal(layers[..., 0] > place, blocks(heat > threshold, thumbnail.size))
    np.testing.assert_array_equal(layers[..., 1] > 127, blocks(truth, thumbnail.size))
    mask = blocks(mask_of(heat, threshold), thumbnail.size)
    np.testing.assert_array_equal(layers[..., 2] > 127, mask)
    assert 0 < mask.mean() < 1 and (mask != (layers[..., 0] > place)).any()


def test_levels_cover_all_values():
    gallery = Gallery(None)
    gallery.add("part", "part.png", np.zeros((1, 3, 3), np.uint8), np.array([[0, 1e-9, 1]], np.float32))
    assert decoded(gallery.thumbnails["part"].layers)[0, :, 0].tolist() == [0, 1, 255]


def test_a_map_may_be_smaller_than_its_picture():
    gallery = Gallery(0.5)
    gallery.add("part", "part.png", np.zeros((80, 40, 3), np.uint8), np.eye(8, dtype=np.float32))
    assert decoded(gallery.thumbnails["part"].layers).shape == (8, 8, 3)


def test_many_pictures_get_smaller_thumbnails():
    assert [Gallery(0.5, count).side for count in (1000, MANY)] == [SIDE, SIDE // 2]
