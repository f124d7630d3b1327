"""The sample parts: the same from a seed, masks where the defect is, a data set that can be read."""

import functools
from unittest.mock import Mock

import numpy as np
import PIL.Image
import pytest

from destseg.demo import parts
from destseg.demo.parts import DEFECTS, Part, blur
from destseg.demo.photographs import photograph, shadow, with_noise, write_dataset
from destseg.ops.components import components
from destseg.pictures.dataset import read_mvtec
from destseg.pictures.masks import read_mask

# Least and greatest share of the picture that a defect may cover, in percent.
PLAUSIBLE = {
    "bent_pin": (0.5, 1.2),
    "broken_edge": (0.1, 1.6),
    "missing_print": (0.8, 4.5),
    "scratch": (0.1, 1.0),
    "stain": (0.4, 3.0),
}


SEED = 5
shot = functools.cache(functools.partial(photograph, SEED))  # of part number and defect


def test_the_same_seed_gives_the_same_pictures_and_others_give_others():
    pixels, mask = shot(0, "stain")
    (again, mask_again), *others = (photograph(*key, "stain") for key in ((5, 0), (6, 0), (5, 1)))
    assert np.array_equal(pixels, again) and np.array_equal(mask, mask_again)
    assert pixels.shape == (256, 256, 3) and pixels.dtype == np.uint8
    assert mask.shape == (256, 256) and mask.dtype == bool
    for different, other_mask in others:
        assert np.mean(pixels != different) > 0.5
        assert not np.array_equal(mask, other_mask)


def test_good_parts_have_no_mask():
    _, mask = shot(0, "good")
    assert not mask.any()


@pytest.mark.parametrize("defect", DEFECTS)
def test_masks_lie_where_pictures_differ_from_the_same_part_without_the_defect(defect):
    for number in range(2):
        (flawed, mask), (good, _) = shot(number, defect), shot(number, "good")
        flawed, good = flawed.astype(int), good.astype(int)
        changed = (flawed != good).any(axis=2)
        assert changed[mask].mean() > 0.97  # a level may come out the same by chance
        strongly = np.abs(flawed - good).max(axis=2) > 40
        beyond = blur(mask.astype(np.float32), 3) == 0  # pixels that touch the mask may be half covered
        if defect not in ("bent_pin", "broken_edge"):  # whose shadows move, too
            assert strongly.any() and not (strongly & beyond).any()
        rows, columns = np.nonzero(mask)
        far = np.ones_like(mask)  # shadows reach 20 pixels, and what a point gets from its sky 14
        far[max(0, rows.min() - 36) : rows.max() + 37, max(0, columns.min() - 36) : columns.max() + 37] = (
            False
        )
        assert far.mean() > 0.2 and not changed[far].any()


@pytest.mark.parametrize("defect", DEFECTS)
def test_masks_are_of_plausible_size_and_in_one_piece(defect):
    low, high = PLAUSIBLE[defect]
    for number in range(3):
        _, mask = shot(number, defect)
        assert low <= 100 * mask.mean() <= high
        _, areas = components(mask[None])
        assert areas.max() > 0.9 * mask.sum()


def test_a_bent_pin_is_marked_where_it_is_and_where_it_should_be():
    part = Part(np.random.default_rng(0))
    below_and_fourth = Mock(side_effect=[1, 3])
    part.lay_pins(Mock(uniform=lambda *_: 0.5, choice=lambda _: 1, integers=below_and_fourth))
    foot_y = parts.BODY_Y + parts.PIN_LENGTH - 8
    straight, bent = (_nearest(part, x, foot_y) for x in (0.0, 25 * np.sin(0.5)))
    neighbour, above = _nearest(part, -parts.PITCH, foot_y), _nearest(part, 0.0, -foot_y)
    assert [part.flaw[place] for place in (straight, bent, neighbour, above)] == [1, 1, 0, 0]
    assert all(part.height[place] > 1 for place in (bent, neighbour, above))
    assert part.height[straight] < 0.5  # nothing is left there but the plate


def _nearest(part, x, y):
    return np.unravel_index(np.argmin((part.x - x) ** 2 + (part.y - y) ** 2), part.x.shape)


def test_layers_stay_in_single_precision():
    part, generator = Part(np.random.default_rng(1)), np.random.default_rng(2)
    part.lay_pins(generator)
    part.lay_body(generator)
    for defect in DEFECTS[1:]:
        getattr(part, defect)(generator)
    part.lay_print()
    assert {name: layer.dtype for name, layer in vars(part).items() if layer.dtype != np.float32} == {}


def test_shadow_of_a_wall_falls_away_from_the_lamp_as_far_as_the_lamp_is_low():
    height = np.zeros((60, 80), np.float32)
    height[:, 30] = 12
    hidden = shadow(height, (-1.0, 0.0, 1.0))  # from the left, at 45 degrees
    assert (hidden[:, :25] == 0).all()
    assert (hidden[:, 34:36] > 0.3).all()
    assert (hidden[:, 30 + 12 + 6 :] == 0).all()


def test_blurred_by_hand():
    spike = np.zeros((1, 7), np.float32)
    spike[0, 3] = 9
    assert blur(spike, 3)[0].tolist() == pytest.approx([0, 1, 2, 3, 2, 1, 0], abs=1e-6)
    assert blur(np.full((4, 5), 2.5, np.float32), 5).tolist() == np.full((4, 5), 2.5).tolist()


def test_light_places_are_noisier_and_noise_keeps_the_mean():
    dark, light = (
        with_noise(np.full((200, 200, 3), level, np.float32), np.random.default_rng(0)) for level in (30, 200)
    )
    assert dark.std() < light.std() < 5
    assert abs(dark.mean() - 30) < 0.1 and abs(light.mean() - 200) < 0.1


def test_an_unknown_defect_is_named():
    with pytest.raises(ValueError, match=r"must be good or one of bent_pin, .*, stain, got 'rust'"):
        photograph(0, 0, "rust")


def test_data_set_can_be_read_and_holds_what_one_thread_makes(tmp_path):
    write_dataset(tmp_path, SEED, train=1, good=1, flawed=1, progress=False)
    assert len(list(tmp_path.rglob("*.png"))) == 1 + 1 + 2 * len(DEFECTS)
    (trained,) = (tmp_path / "train" / "good").iterdir()
    assert np.array_equal(np.asarray(PIL.Image.open(trained)), shot(0, "good")[0])
    samples = read_mvtec(tmp_path)
    assert [sample.defect for sample in samples] == sorted(("good", *DEFECTS))
    for sample in samples:
        pixels, mask = shot(1 + ("good", *DEFECTS).index(sample.defect), sample.defect)
        assert np.array_equal(np.asarray(PIL.Image.open(sample.path)), pixels)
        if sample.mask_path is not None:
            assert np.array_equal(read_mask(sample.mask_path), mask)


def test_a_folder_with_other_pictures_is_left_as_it_is(tmp_path):
    (tmp_path / "train" / "good").mkdir(parents=True)
    (tmp_path / "train" / "good" / "mine.png").write_bytes(b"not to be trained on")
    with pytest.raises(ValueError, match=r"mine\.png is no picture of this data set: move it away"):
        write_dataset(tmp_path, 0, train=1, good=1, flawed=1, progress=False)
    assert [path.name for path in tmp_path.rglob("*.png")] == ["mine.png"]


def test_a_folder_without_pictures_yet_is_filled(tmp_path):
    """As a run leaves it that was interrupted before its first picture."""
    (tmp_path / "train" / "good").mkdir(parents=True)
    write_dataset(tmp_path, 0, train=1, good=0, flawed=0, progress=False)
    assert [path.name for path in tmp_path.rglob("*.png")] == ["000.png"]
