"""Changes of pictures in training: each kind alone, their ranges, and regions that move alike."""

import numpy as np
import pytest

from destseg.pictures.changes import relight, shift
from destseg.training.augmentation import (
    CONTRAST,
    FILL,
    GAIN,
    GAMMA,
    SHIFT,
    Augmentation,
    augment_picture,
    augment_roi,
    draw_augmentation,
)

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def draws(count, size=(40, 60), rotate=0, flip="", augment="", seed=0):
    generator = np.random.default_rng(seed)
    return [draw_augmentation(generator, size, rotate, flip, augment) for _ in range(count)]


def test_nothing_is_drawn_where_nothing_is_wanted():
    generator = np.random.default_rng(0)
    changes = draw_augmentation(generator, (40, 60), 0, "", "")
    assert changes == Augmentation() and np.array_equal(augment_picture(NOISE, changes), NOISE)
    assert generator.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_turns_and_flips_come_first_so_that_light_leaves_them_as_they_are():
    options = {"rotate": "90", "flip": "both"}
    (plain,), (light,) = draws(1, **options), draws(1, **options, augment="light")
    assert plain[5:] == light[5:] and plain[:5] != light[:5]


def test_a_generator_of_the_same_seed_draws_the_same():
    assert draws(5, augment="light") == draws(5, augment="light")
    assert draws(5, augment="light") != draws(5, augment="light", seed=1)


@pytest.mark.parametrize(("flip", "variants"), [("", 1), ("horizontal", 2), ("vertical", 2), ("both", 4)])
def test_flips_mirror_half_of_the_pictures(flip, variants):
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    mirrored = {"horizontal": picture[:, ::-1], "vertical": picture[::-1], "both": picture[::-1, ::-1]}
    expected = {picture.tobytes()} | {mirrored[name].tobytes() for name in mirrored if flip in (name, "both")}
    found = [augment_picture(picture, changes).tobytes() for changes in draws(400, flip=flip)]
    assert set(found) == expected and len(expected) == variants
    for variant in expected:  # equally often, within four standard deviations
        assert found.count(variant) == pytest.approx(400 / variants, abs=40)


def test_rotation_by_a_quarter_against_the_clock():
    square = NOISE[:, :40]
    assert np.array_equal(augment_picture(square, Augmentation(turn=90)), np.rot90(square))


def test_rotation_fills_what_comes_from_outside():
    turned = augment_picture(np.full((40, 40, 3), 255, np.uint8), Augmentation(turn=45))
    assert tuple(turned[0, 0]) == tuple(turned[-1, -1]) == FILL == (114, 114, 114)
    assert tuple(turned[20, 20]) == (255, 255, 255)


@pytest.mark.parametrize("degrees", [5, "20", 90.0])
def test_rotation_lies_within_its_bound_either_way(degrees):
    turns = [changes.turn for changes in draws(400, rotate=degrees)]
    assert -float(degrees) <= min(turns) < -0.97 * float(degrees)
    assert 0.97 * float(degrees) < max(turns) <= float(degrees)


@pytest.mark.parametrize(
    ("size", "sides"), [((40, 40), {"left", "right", "top", "bottom"}), ((40, 60), {"left", "right"})]
)
def test_quarter_turns_of_squares_and_half_turns_of_oblongs(size, sides):
    height, width = size
    picture = np.zeros((*size, 3), np.uint8)
    picture[15:25, -10:] = 255  # a mark in the middle of the right side
    found, distinct = [], set()
    for changes in draws(200, size, rotate="90"):
        turned = augment_picture(picture, changes)[..., 0].astype(int)
        middle_row, middle_column = turned[height // 2], turned[:, width // 2]
        brightness = {
            "left": middle_row[5],
            "right": middle_row[-6],
            "top": middle_column[5],
            "bottom": middle_column[-6],
        }
        found.append(max(brightness, key=brightness.get))
        distinct.add(turned.tobytes())
    assert set(found) == sides
    assert all(found.count(side) > 200 / len(sides) - 30 for side in sides)
    assert len(distinct) > 100  # a few degrees are added


def test_light_draws_from_its_whole_ranges():
    found = draws(2000, size=(40, 61), augment="light")
    for place, (low, high) in enumerate((GAIN, CONTRAST, GAMMA)):
        values = [changes[place] for changes in found]
        assert low <= min(values) < low + 0.01 and high - 0.01 < max(values) <= high
    logarithms = np.log([changes.gamma for changes in found])
    assert np.median(logarithms) == pytest.approx((np.log(GAMMA[0]) + np.log(GAMMA[1])) / 2, abs=0.01)
    assert SHIFT * 40 == 2 and {changes.down for changes in found} == {-2, -1, 0, 1, 2}
    assert {changes.right for changes in found} == {-3, -2, -1, 0, 1, 2, 3}  # 5 % are 3.05
    assert {changes[5:] for changes in found} == {(0.0, ())}


def test_light_covers_the_changes_that_evaluation_makes():
    assert GAIN[0] < 0.8 and GAIN[1] > 1.2 and SHIFT > 0.04


def test_light_and_shift_are_those_of_the_named_operations():
    (changes,) = draws(1, augment="light", seed=3)
    assert changes.down and changes.right
    expected = shift(relight(NOISE, *changes[:3]), changes.down, changes.right)
    assert np.array_equal(augment_picture(NOISE, changes), expected)


def test_regions_shift_with_their_pictures_and_what_comes_in_does_not_count():
    region = np.zeros((4, 5), bool)
    region[0, 0] = region[1, 3] = True
    moved = augment_roi(region, Augmentation(down=1, right=1, gain=1.2))
    assert np.argwhere(moved).tolist() == [[1, 1], [2, 4]]
    assert augment_roi(region, Augmentation(right=-1, down=-1)).nonzero() == ([0], [2])
    everything = augment_roi(np.ones((4, 5), bool), Augmentation(down=-1, right=2))
    assert everything[:3, 2:].all() and everything.sum() == 9


def test_regions_stay_on_their_pictures_under_all_changes_at_once():
    region = np.zeros((64, 64), bool)
    region[10:30, 20:50] = True
    picture = np.where(region[..., None], 255, 0).repeat(3, axis=2).astype(np.uint8)
    for changes in draws(20, (64, 64), rotate="90", flip="both", augment="light"):
        shown = augment_picture(picture, changes)[..., 0]
        moved = augment_roi(region, changes)
        middle = (int(shown[shown != FILL[0]].min()) + int(shown.max())) / 2
        inside = shown > middle
        inside[shown == FILL[0]] = False
        assert (inside != moved).mean() < 0.001 and moved.any()
