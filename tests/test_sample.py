"""The sample parts: the same from a seed, masks where the defect is, a data set that can be read."""

import functools

import numpy as np
import PIL.Image
import pytest

from destseg.folders import read_mask, read_mvtec
from destseg.ops.components import components
from destseg.sample import chip, flaws
from destseg.sample.pictures import photograph, write_dataset
from destseg.sample.rendering import blurred, shadow, with_noise

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
    first, again, other, next_one = (
        shot(0, "stain"),
        *(photograph(*key, "stain") for key in ((5, 0), (6, 0), (5, 1))),
    )
    assert np.array_equal(first.pixels, again.pixels) and np.array_equal(first.mask, again.mask)
    assert first.pixels.shape == (256, 256, 3) and first.pixels.dtype == np.uint8
    for different in (other, next_one):
        assert np.mean(first.pixels != different.pixels) > 0.5
        assert not np.array_equal(first.mask, different.mask)


def test_good_parts_have_no_mask():
    assert not shot(0, "good").mask.any()


@pytest.mark.parametrize("defect", flaws.DEFECTS)
def test_masks_lie_where_pictures_differ_from_the_same_part_without_the_defect(defect):
    for number in range(2):
        (flawed, mask), (good, _) = shot(number, defect), shot(number, "good")
        flawed, good = flawed.astype(int), good.astype(int)
        changed = (flawed != good).any(axis=2)
        assert changed[mask].mean() > 0.97  # a level may come out the same by chance
        strongly = np.abs(flawed - good).max(axis=2) > 40
        beyond = blurred(mask.astype(np.float32), 3) == 0  # pixels that touch the mask may be half covered
        if defect not in ("bent_pin", "broken_edge"):  # whose shadows move, too
            assert strongly.any() and not (strongly & beyond).any()
        rows, columns = np.nonzero(mask)
        far = np.ones_like(mask)  # shadows reach 20 pixels, and what a point gets from its sky 14
        far[max(0, rows.min() - 36) : rows.max() + 37, max(0, columns.min() - 36) : columns.max() + 37] = (
            False
        )
        assert far.mean() > 0.2 and not changed[far].any()


@pytest.mark.parametrize("defect", flaws.DEFECTS)
def test_masks_are_of_plausible_size_and_in_one_piece(defect):
    low, high = PLAUSIBLE[defect]
    for number in range(3):
        mask = shot(number, defect).mask
        assert low <= 100 * mask.mean() <= high
        _, areas = components(mask[None])
        assert areas.max() > 0.9 * mask.sum()


def test_a_bent_pin_is_marked_where_it_is_and_where_it_should_be():
    part = chip.placed(np.random.default_rng(0))
    chip.lay_pins(part, chip.BentPin(row=1, number=3, turn=0.5))
    foot_y = chip.BODY_Y + chip.PIN_LENGTH - 8
    straight, bent = (part.flaw[_nearest(part, x, foot_y)] for x in (0.0, 25 * np.sin(0.5)))
    neighbour = part.flaw[_nearest(part, -chip.PITCH, foot_y)]
    assert (straight, bent, neighbour) == (1, 1, 0)
    assert part.metal[_nearest(part, 25 * np.sin(0.5), foot_y)] == 1
    assert part.metal[_nearest(part, 0.0, foot_y)] == 0  # nothing is left there


def _nearest(part, x, y):
    return np.unravel_index(np.argmin((part.x - x) ** 2 + (part.y - y) ** 2), part.x.shape)


def test_layers_stay_in_single_precision():
    part, generator = chip.placed(np.random.default_rng(1)), np.random.default_rng(2)
    chip.lay_plate(part, generator)
    chip.lay_pins(part, flaws.draw_bent_pin(generator))
    chip.lay_body(part, generator)
    for change in flaws.CHANGES.values():
        change(part, generator)
    chip.lay_print(part)
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
    assert blurred(spike, 3)[0].tolist() == pytest.approx([0, 1, 2, 3, 2, 1, 0], abs=1e-6)
    assert blurred(np.full((4, 5), 2.5, np.float32), 5).tolist() == np.full((4, 5), 2.5).tolist()


def test_light_places_are_noisier_and_noise_keeps_the_mean():
    dark, light = (
        with_noise(np.full((200, 200, 3), level, np.float32), np.random.default_rng(0)) for level in (30, 200)
    )
    assert dark.std() < light.std() < 5
    assert abs(dark.mean() - 30) < 0.1 and abs(light.mean() - 200) < 0.1


def test_an_unknown_defect_is_named():
    with pytest.raises(ValueError, match=r"must be good or one of bent_pin, .*, stain, got 'rust'"):
        photograph(0, 0, "rust")


def test_data_set_can_be_read_and_does_not_depend_on_threads(tmp_path):
    write_dataset(tmp_path, SEED, train=1, test_good=1, test_defect=1, progress=False, workers=3)
    assert len(list(tmp_path.rglob("*.png"))) == 1 + 1 + 2 * len(flaws.DEFECTS)
    (trained,) = (tmp_path / "train" / "good").iterdir()
    assert np.array_equal(np.asarray(PIL.Image.open(trained)), shot(0, "good").pixels)
    samples = read_mvtec(tmp_path)
    assert [sample.defect for sample in samples] == sorted(("good", *flaws.DEFECTS))
    for sample in samples:
        expected = shot(1 + ("good", *flaws.DEFECTS).index(sample.defect), sample.defect)
        assert np.array_equal(np.asarray(PIL.Image.open(sample.path)), expected.pixels)
        if sample.mask_path is not None:
            assert np.array_equal(read_mask(sample.mask_path), expected.mask)


def test_a_folder_with_other_pictures_is_left_as_it_is(tmp_path):
    (tmp_path / "train" / "good").mkdir(parents=True)
    (tmp_path / "train" / "good" / "mine.png").write_bytes(b"not to be trained on")
    with pytest.raises(ValueError, match=r"mine\.png is no picture of this data set: move it away"):
        write_dataset(tmp_path, train=1, test_good=1, test_defect=1, progress=False)
    assert [path.name for path in tmp_path.rglob("*.png")] == ["mine.png"]


def test_a_folder_without_pictures_yet_is_filled(tmp_path):
    """As a run leaves it that was interrupted before its first picture."""
    (tmp_path / "train" / "good").mkdir(parents=True)
    assert len(write_dataset(tmp_path, train=1, test_good=0, test_defect=0, progress=False)) == 1
    assert [path.name for path in tmp_path.rglob("*.png")] == ["000.png"]
