"""Other light, shifts and turns: tiny cases by hand, edges, and masks that stay on their pictures."""

import numpy as np
import PIL.Image
import pytest

from destseg.pictures.changes import relight, shift, turn


def grey(*values):
    """A picture of one row."""
    return np.array(values, np.uint8).repeat(3).reshape(1, -1, 3)


def values_of(picture):
    assert picture.dtype == np.uint8 and (picture == picture[..., :1]).all()
    return picture[0, :, 0].tolist()


def test_a_brightness_is_a_factor_and_ends_at_white():
    assert values_of(relight(grey(0, 1, 100, 128, 250), gain=0.8)) == [0, 1, 80, 102, 200]
    assert values_of(relight(grey(0, 1, 100, 128, 250), gain=1.2)) == [0, 1, 120, 154, 255]


def test_contrast_is_about_the_mean():
    assert values_of(relight(grey(80, 100, 120), contrast=0.5)) == [90, 100, 110]
    assert values_of(relight(grey(0, 100, 200), contrast=1.5)) == [0, 100, 250]  # cut off at black


def test_gamma_leaves_black_and_white_and_brightens_below_one():
    assert values_of(relight(grey(0, 64, 255), gamma=0.5)) == [0, round(255 * (64 / 255) ** 0.5), 255]
    assert values_of(relight(grey(0, 64, 255), gamma=2)) == [0, 16, 255]


def test_first_gamma_then_contrast_then_gain():
    # squared 0, 10.2 and 255, whose mean is 88.4; half the contrast: 44.2, 49.3 and 171.7; times 1.1
    assert values_of(relight(grey(0, 51, 255), gain=1.1, contrast=0.5, gamma=2)) == [49, 54, 189]


def test_no_change_of_light_changes_nothing_and_none_writes_into_the_picture():
    picture = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    before = picture.copy()
    assert np.array_equal(relight(picture), picture)
    relight(picture, 0.5, 0.9, 1.1)
    assert np.array_equal(picture, before)


def test_colours_change_alike():
    picture = np.array([[[10, 100, 200]]], np.uint8)
    assert relight(picture, gain=0.5).tolist() == [[[5, 50, 100]]]


@pytest.mark.parametrize("dtype", [np.uint8, bool])
def test_shifts_repeat_the_edge(dtype):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    down = shift(values, 1, 2)
    assert down.dtype == dtype
    assert np.array_equal(down[1:, 2:], values[:-1, :-2])
    assert np.array_equal(down[0], down[1]) and (down[:, :2] == down[:, 2:3]).all()
    up = shift(values, -2, -1)
    assert np.array_equal(up[:1, :3], values[2:, 1:]) and np.array_equal(up[2], up[0])
    assert np.array_equal(shift(values, 0, 0), values)
    assert (shift(values, 0, 99) == values[:, :1]).all()


def test_pictures_shift_in_all_channels():
    picture = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    assert np.array_equal(shift(picture, 1, 2)[1:, 2:], picture[:-1, :-2])


def test_a_turn_is_that_of_pillow_where_nothing_comes_in():
    picture = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    expected = np.asarray(PIL.Image.fromarray(picture).rotate(3, PIL.Image.Resampling.BILINEAR))
    found = turn(picture, 3)
    assert found.shape == picture.shape and found.dtype == np.uint8
    assert np.array_equal(found[5:-5, 5:-5], expected[5:-5, 5:-5])


@pytest.mark.parametrize("degrees", [3, -3, 10])
@pytest.mark.parametrize("size", [(40, 60), (61, 33), (1, 9)])
def test_a_turn_brings_in_nothing_but_the_edge(size, degrees):
    assert (turn(np.full((*size, 3), 200, np.uint8), degrees) == 200).all()
    assert turn(np.ones(size, bool), degrees).all()


def test_a_turn_is_against_the_clock():
    mask = np.zeros((101, 101), bool)
    mask[50, 90] = True  # on the right: it moves up
    assert [index.tolist() for index in turn(mask, 3).nonzero()] == [[48], [90]]


@pytest.mark.parametrize("degrees", [3, -7])
@pytest.mark.parametrize("size", [(64, 96), (75, 50)])
def test_a_mask_stays_on_its_picture(size, degrees):
    mask = np.zeros(size, bool)
    mask[10:30, 20:40] = mask[:5, :7] = True  # one touches the corner
    picture = np.where(mask[..., None], 255, 0).repeat(3, axis=2).astype(np.uint8)
    turned, shown = turn(mask, degrees), turn(picture, degrees)[..., 0]
    assert turned.dtype == bool and not np.array_equal(turned, mask)
    assert ((shown > 127) != turned).mean() < 0.01  # along the outline
    assert not turned[shown == 0].any() and turned[shown == 255].all()
