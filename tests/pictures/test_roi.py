"""Regions of interest: masks and polygons of every form, drawn by hand, at other sizes, their errors."""

import numpy as np
import PIL.Image
import pytest
import torch

from destseg.pictures.roi import RegionOfInterest, shrink_mask

TRIANGLE = [(1, 1), (5, 1), (1, 5)]
DRAWN = """
    . . . . . . .
    . # # # # # .
    . # # # # . .
    . # # # . . .
    . # # . . . .
    . # . . . . .
"""


def drawing(text=DRAWN):
    return np.array([[cell == "#" for cell in line.split()] for line in text.strip().splitlines()])


def test_a_polygon_by_hand():
    assert np.array_equal(RegionOfInterest(TRIANGLE).mask((6, 7)), drawing())


@pytest.mark.parametrize("kind", [tuple, np.array, torch.tensor, lambda points: np.array(points, np.float32)])
def test_every_form_of_a_polygon(kind):
    assert np.array_equal(RegionOfInterest(kind(TRIANGLE)).mask((6, 7)), drawing())


def test_every_form_of_a_mask(tmp_path):
    mask = drawing()
    PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "mask.png")
    PIL.Image.fromarray(mask.astype(np.uint8)).save(tmp_path / "ones.png")
    forms = [mask, mask.astype(np.uint8), mask * 255.0, torch.from_numpy(mask), PIL.Image.fromarray(mask)]
    forms += [tmp_path / "mask.png", str(tmp_path / "ones.png"), RegionOfInterest(mask)]
    for form in forms:
        found = RegionOfInterest(form).mask((6, 7))
        assert found.dtype == bool and np.array_equal(found, mask)


def test_a_narrow_mask_of_bool_is_no_polygon():
    mask = np.array([[True, False], [True, False], [False, False]])
    assert np.array_equal(RegionOfInterest(mask).mask((3, 2)), mask)


def test_masks_are_stretched_and_polygons_are_not():
    left = np.zeros((4, 4), bool)
    left[:, :2] = True
    assert np.array_equal(RegionOfInterest(left).mask((8, 6)), np.arange(6) < np.full((8, 1), 3))
    larger = RegionOfInterest(TRIANGLE).mask((9, 9))
    assert np.array_equal(larger[:6, :7], drawing()) and larger.sum() == drawing().sum()


def test_at_another_size_half_a_pixel_is_inside():
    square = RegionOfInterest([(4, 4), (11, 4), (11, 11), (4, 11)])  # 8 x 8 pixels, outline included
    expected = np.zeros((4, 4), bool)
    expected[1:3, 1:3] = True
    assert np.array_equal(square.mask((16, 16), (4, 4)), expected)


def test_shrinking_agrees_with_the_share_covered():
    mask = np.random.default_rng(0).random((40, 60)) < 0.5
    mask = np.kron(mask[:5, :6], np.ones((8, 10), bool)).astype(bool)
    assert np.array_equal(shrink_mask(mask, (5, 6)), mask[4::8, 5::10])
    assert shrink_mask(mask, (40, 60)) is mask


def test_the_last_masks_are_kept_and_cannot_be_changed():
    region = RegionOfInterest(TRIANGLE)
    first = region.mask((6, 7))
    assert region.mask((6, 7)) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = True
    for side in range(10, 20):
        region.mask((side, side))
    assert len(region._masks) <= 4


@pytest.mark.parametrize("roi", [TRIANGLE, drawing()])
def test_what_is_stored_makes_the_same_region_again(roi):
    region = RegionOfInterest(roi)
    again = RegionOfInterest(region.stored())
    assert np.array_equal(again.mask((6, 7)), drawing())
    assert again.checksum == region.checksum != RegionOfInterest([(0, 0), (3, 0), (0, 3)]).checksum
    assert repr(again) == repr(region) in ("polygon of 3 points", "mask of 6 x 7 pixels")


@pytest.mark.parametrize(
    ("roi", "words"),
    [
        (
            [(0, 0), (1, 1)],
            r"a polygon of at least three points \(x, y\), or a mask, got int64 of shape \(2, 2\)",
        ),
        ([(0, 0), (1, 1), (2,)], "a polygon of at least three points"),
        ([], "a polygon of at least three points"),
        ([(0, 0), (1, 1), (np.nan, 2)], "points of roi must be finite, got NaN or infinity"),
        (np.zeros((4, 5, 3)), r"a mask \(h, w\) of bool or numbers, .* got float64 of shape \(4, 5, 3\)"),
        (np.zeros((4, 5)), "at least one pixel, got a mask without any"),
        (np.where(drawing(), 1, np.nan), "a mask must hold numbers, got NaN or infinity"),
        (np.ma.masked_array(np.ones((4, 5)), np.eye(4, 5)), "roi must have no masked values"),
    ],
)
def test_words_about_bad_regions(roi, words):
    with pytest.raises(ValueError, match=words):
        RegionOfInterest(roi)


def test_what_is_no_region_at_all(tmp_path):
    with pytest.raises(TypeError, match=r"roi must be a mask .* or a polygon .* got int"):
        RegionOfInterest(3)
    with pytest.raises(FileNotFoundError):
        RegionOfInterest(tmp_path / "missing.png")


def test_a_region_outside_of_the_picture_is_refused():
    region = RegionOfInterest([(50, 50), (60, 50), (60, 60)])
    assert region.mask((100, 100)).any()
    with pytest.raises(ValueError, match=r"none in a picture of 20 x 30 pixels \(height x width\)$"):
        region.mask((20, 30))
    with pytest.raises(ValueError, match=r"none in a picture of 100 x 100 pixels .*, seen as 4 x 4"):
        RegionOfInterest([(50, 50), (51, 50), (50, 51)]).mask((100, 100), (4, 4))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 100], np.uint8),
        ([0, 1], np.uint8),
        ([0, 255], np.uint8),
        ([0, 100], np.uint16),
        ([0, 65535], np.uint16),
    ],
)
@pytest.mark.parametrize("colour", [False, True])
def test_a_mask_is_the_same_as_path_image_and_array(tmp_path, values, kind, colour):
    mask = drawing()
    levels = np.array(values, kind)[mask.astype(int)]
    if colour and kind == np.uint8:
        levels = np.dstack([levels, 0 * levels, 0 * levels])  # red
    path = tmp_path / "mask.png"
    PIL.Image.fromarray(levels).save(path)
    forms = [path, str(path), PIL.Image.open(path), PIL.Image.fromarray(levels)]
    forms += [levels] if levels.ndim == 2 else []
    for form in forms:
        assert np.array_equal(RegionOfInterest(form).mask((6, 7)), mask)


@pytest.mark.parametrize("ending", ["jpg", "webp"])
def test_the_noise_of_a_lossy_picture_is_outside(tmp_path, ending):
    levels, path = np.zeros((32, 32), np.uint8), tmp_path / f"mask.{ending}"
    levels[9:21, 9:21] = 100
    PIL.Image.fromarray(levels).save(path, quality=60)
    decoded = np.asarray(PIL.Image.open(path).convert("L"))
    assert ((decoded > 0) & (levels == 0)).any()
    for form in (path, PIL.Image.open(path)):
        assert np.array_equal(RegionOfInterest(form).mask((32, 32)), levels > 0)


def test_every_class_of_a_lossless_webp_is_inside(tmp_path):
    levels, path = drawing() + 2 * (drawing() & (np.arange(7) < 3)), tmp_path / "mask.webp"
    PIL.Image.fromarray(levels.astype(np.uint8)).save(path, lossless=True)
    assert np.array_equal(RegionOfInterest(path).mask((6, 7)), drawing())


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_or_the_ground_of_a_palette_is_outside(tmp_path, mode):
    """As in the masks of defects."""
    mask = drawing()
    picture = PIL.Image.new(mode, (7, 6), {"RGBA": (255, 255, 255, 0), "LA": (255, 0), "P": 0}[mode])
    if mode == "P":
        picture.putpalette([0, 80, 0, 255, 0, 0])
        picture.paste(1, mask=PIL.Image.fromarray(mask))
    else:
        picture.putalpha(PIL.Image.fromarray(mask.astype(np.uint8) * 255))
    picture.save(tmp_path / "mask.png")
    for form in (tmp_path / "mask.png", PIL.Image.open(tmp_path / "mask.png"), picture):
        assert np.array_equal(RegionOfInterest(form).mask((6, 7)), mask)


def test_a_mask_lies_as_its_orientation_says(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    mask = drawing()
    lying = PIL.Image.fromarray(np.rot90(mask).astype(np.uint8) * 255)
    lying.save(tmp_path / "mask.png", exif=exif)
    for form in (tmp_path / "mask.png", PIL.Image.open(tmp_path / "mask.png")):
        assert np.array_equal(RegionOfInterest(form).mask(mask.shape), mask)
