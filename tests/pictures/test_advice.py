"""Advice on folders of normal pictures."""

import numpy as np
import pytest

from destseg.pictures.advice import advice_on, name_some
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.store import PictureStore


def store_of(sizes, framing=None):
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    return PictureStore(as_pictures(pictures), framing or Framing((64, 64)), progress=False)


def test_a_usual_folder_gets_none():
    assert advice_on(store_of([(256, 256)] * 20)) == []


def test_few_pictures():
    (sentence,) = advice_on(store_of([(64, 64)] * 19))
    assert sentence.startswith("only 19 normal pictures: the model knows little") and "rotate=" in sentence


def test_details_that_vanish():
    (sentence,) = advice_on(store_of([(320, 640)] * 20))
    assert (
        "pictures of 320 x 640 pixels shrink to 64 x 64: a defect 10 pixels wide becomes a single one"
        in sentence
    )
    assert "tile=128" in sentence
    assert advice_on(store_of([(320, 640)] * 20, Framing((64, 64), tile=(128, 128)))) == []


def test_one_large_picture_among_many_does_not_count_as_vanishing():
    assert not any("shrink" in sentence for sentence in advice_on(store_of([(64, 64)] * 20 + [(640, 640)])))


def test_other_sizes_and_other_shapes():
    (sizes,) = advice_on(store_of([(64, 64)] * 20 + [(200, 200)]))
    assert "pictures differ in size, from 64 x 64 to 200 x 200 pixels" in sizes and "crop them alike" in sizes
    (shapes,) = advice_on(store_of([(64, 64)] * 20 + [(64, 110)]))
    assert "differ in shape" in shapes and "keep_aspect=True" in shapes
    assert advice_on(store_of([(64, 64)] * 20 + [(64, 110)], Framing((64, 64), keep_aspect=True))) == []
    (both,) = advice_on(store_of([(64, 64)] * 20 + [(64, 200)]))
    assert "differ in size and shape" in both


def test_pictures_of_one_colour_are_named():
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    noise[3] = 7
    noise[5] = (1, 2, 3)
    (sentence,) = advice_on(PictureStore(as_pictures(noise), Framing((64, 64)), progress=False))
    assert sentence.endswith("picture 3, picture 5")


def store_of_values(low, high, odd, bit_depth):
    """Pictures of values from low to high, of which the 16-bit ones have a broken pixel that is `odd`."""
    values = np.random.default_rng(0).integers(low, high + 1, (20, 64, 64, 3))
    values[:, 5, 5] = odd
    pictures = values.astype(np.uint8 if bit_depth is None else np.uint16)
    return PictureStore(as_pictures(pictures), Framing((64, 64), bit_depth=bit_depth), progress=False)


@pytest.mark.parametrize(
    ("low", "high", "odd", "bit_depth", "levels"),
    [
        (0, 40, 40, None, "0 to 40"),
        (0, 4095, 4095, 16, "0 to 16"),
        (0, 4095, 65535, 16, "0 to 16"),  # a broken pixel makes a 12-bit camera one of 16 bits
        (3000, 3500, 3000, 14, "47 to 54"),  # heat, X-rays: dark is not 0
    ],
)
def test_pictures_that_use_a_fraction_of_their_range(low, high, odd, bit_depth, levels):
    (sentence,) = advice_on(store_of_values(low, high, odd, bit_depth))
    assert f"use a fraction of their range: nearly all values lie in {levels} of 0 to 255" in sentence
    assert ("fewer bits than" in sentence) == (bit_depth is not None)


@pytest.mark.parametrize(("low", "high", "bit_depth"), [(0, 4095, 12), (1000, 2500, 12), (100, 140, None)])
def test_pictures_that_use_enough_of_their_range(low, high, bit_depth):
    """Of 8 bits all levels are left, whatever they are."""
    assert advice_on(store_of_values(low, high, low, bit_depth)) == []


def test_a_subset_keeps_its_own_sizes_and_flat_pictures():
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    noise[1:3] = 7
    store = PictureStore(as_pictures(noise), Framing((64, 64)), progress=False)
    part = store.subset([0, 2])
    assert part.sizes == [(64, 64)] * 2 and part.flat == [store.sources[2]]


@pytest.mark.parametrize(("count", "text"), [(1, "a"), (3, "a, b, c"), (5, "a, b, c and 2 more")])
def test_only_the_first_names_are_given(count, text):
    assert name_some("abcde"[:count]) == text
