"""Masks of defects: which values count, and which masks are doubtful."""

import itertools

import numpy as np
import PIL.Image
import pytest
from deep import png_of_16_bit_colour

from destseg.pictures.masks import read_mask

BLOB = np.hypot(*np.mgrid[-30:34, -40:56]) < 15  # (64, 96), which no grid of 8 x 8 pixels fits
SECOND = np.roll(BLOB, (-20, 38), (0, 1))  # a second defect
BACKGROUND, RED, WHITE, BLACK = [7, 7, 7], [64, 0, 0], [255, 255, 255], [0, 0, 0]


def read(tmp_path, picture, ending=".png", **options):
    path = tmp_path / f"mask{ending}"
    picture = picture if isinstance(picture, PIL.Image.Image) else PIL.Image.fromarray(picture)
    picture.save(path, **options)
    return read_mask(path)


def palette(indices, *colours):
    picture = PIL.Image.fromarray(indices.astype(np.uint8)).convert("P")
    picture = PIL.Image.frombytes("P", picture.size, indices.astype(np.uint8).tobytes())
    picture.putpalette([*itertools.chain(*colours)])
    return picture


def iou(found, true):
    return (found & true).sum() / (found | true).sum()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 1, 127, 255]], np.uint8), [0, 1, 1, 1]),
        (np.array([[0, 1, 1, 0]], np.uint8), [0, 1, 1, 0]),
        (np.array([[0, 0, 0, 0]], np.uint8), [0, 0, 0, 0]),
        (np.array([[0, 100, 100, 0]], np.uint8), [0, 1, 1, 0]),
        (np.array([[False, True]]), [0, 1]),
        (np.array([[0, 1000, 1000, 0]], np.uint16), [0, 1, 1, 0]),
        (np.array([[0, 1, 1, 0]], np.uint16), [0, 1, 1, 0]),
        (np.array([[[0, 0, 0], [64, 0, 0], [0, 0, 64]]], np.uint8), [0, 1, 1]),
    ],
)
def test_masks(tmp_path, values, expected):
    mask = read(tmp_path, values)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, np.array([expected], bool))


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("values", [(1, 1), (1, 2), (1, 3), (3, 1), (100, 255), (1, 255), (127, 128)])
def test_every_class_is_a_defect(tmp_path, ending, values):
    mask = read(tmp_path, (BLOB * values[0] + SECOND * values[1]).astype(np.uint8), ending)
    assert np.array_equal(mask, BLOB | SECOND)


@pytest.mark.parametrize("values", [(4095, 4095), (1000, 65535), (300, 2)])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_every_class_of_16_bits_is_a_defect(tmp_path, ending, values):
    mask = read(tmp_path, (BLOB * values[0] + SECOND * values[1]).astype(np.uint16), ending)
    assert np.array_equal(mask, BLOB | SECOND)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_classes_of_other_types_are_defects(tmp_path, dtype):
    assert np.array_equal(read(tmp_path, (BLOB * dtype(1) + SECOND * dtype(3)), ".tif"), BLOB | SECOND)


def test_forty_defects_with_a_number_each_all_count(tmp_path):
    numbers = np.zeros((120, 160), np.uint8)
    for k in range(40):
        numbers[15 * (k // 8) : 15 * (k // 8) + 6, 20 * (k % 8) : 20 * (k % 8) + 9] = k + 1
    assert np.array_equal(read(tmp_path, numbers), numbers > 0)


def test_lines_one_pixel_wide_count_whatever_their_number(tmp_path):
    lines = (np.eye(60) * 1 + np.eye(60, k=12) * 2 + np.eye(60, k=-25) * 3).astype(np.uint8)
    assert np.array_equal(read(tmp_path, lines), lines > 0)


@pytest.mark.parametrize(
    ("colours", "indices"),
    [
        ((BLACK, RED, WHITE), (1, 2)),
        ((WHITE, RED, BLACK), (0, 1)),  # black is the background, wherever it stands
        ((WHITE, RED, RED), (1, 2)),  # without black it is the first colour
        ((BACKGROUND, RED, [0, 9, 0]), (1, 2)),
        ((BLACK, BLACK, BLACK), (1, 2)),  # numbers without colours
    ],
)
def test_palettes(tmp_path, colours, indices):
    background = ({0, 1, 2} - {*indices}).pop()
    numbers = np.where(BLOB, indices[0], np.where(SECOND, indices[1], background))
    assert np.array_equal(read(tmp_path, palette(numbers, *colours)), BLOB | SECOND)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_background(tmp_path, mode):
    colour = np.full((*BLOB.shape, 4 if mode == "RGBA" else 2), 255, np.uint8)
    colour[..., -1] = 255 * BLOB
    assert np.array_equal(read(tmp_path, PIL.Image.fromarray(colour, mode)), BLOB)


def test_a_transparent_colour_of_a_palette_is_background(tmp_path):
    picture = palette(BLOB * 1, WHITE, RED)
    assert np.array_equal(read(tmp_path, picture, transparency=0), BLOB)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("quality", [75, 90, 95, 98, 100])
@pytest.mark.parametrize("values", [(255, 255), (100, 100), (100, 255)])
def test_noise_of_jpeg_is_no_defect(tmp_path, values, quality, again):
    """Neither in the JPEG file itself nor when it was saved as PNG."""
    path = tmp_path / "noisy.jpg"
    levels = (BLOB * values[0] + SECOND * values[1]).astype(np.uint8)
    PIL.Image.fromarray(levels).save(path, quality=quality)
    found = read(tmp_path, PIL.Image.open(path)) if again else read_mask(path)
    assert iou(found, BLOB | SECOND) > 0.97


@pytest.mark.parametrize("quality", [10, 50, 80, 95])
@pytest.mark.parametrize("extended", [False, True])
def test_noise_of_webp_is_no_defect(tmp_path, quality, extended):
    exif = PIL.Image.Exif()
    if extended:  # another kind of file, with the picture in it
        exif[0x0112] = 1
    square = np.zeros(BLOB.shape, bool)
    square[20:40, 30:50] = True
    for true in (BLOB, square):
        for levels in (true * np.uint8(255), true * np.uint8(100)):
            assert iou(read(tmp_path, levels, ".webp", quality=quality, exif=exif), true) > 0.9
    classes = (BLOB * 1 + SECOND * 3).astype(np.uint8)
    assert np.array_equal(read(tmp_path, classes, ".webp", lossless=True, exif=exif), BLOB | SECOND)


def test_every_class_of_16_bit_colour_is_a_defect(tmp_path):
    """Pillow gives the upper 8 bits only, in which 100 of 65535 is nothing."""
    values = (BLOB * 100 + SECOND * 4095).astype(np.uint16)
    (tmp_path / "mask.png").write_bytes(png_of_16_bit_colour(np.dstack([values, 0 * values, 0 * values])))
    assert np.array_equal(read_mask(tmp_path / "mask.png"), BLOB | SECOND)


def test_a_mask_of_nan_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"mask\.tif: a mask must hold numbers, got NaN or infinity"):
        read(tmp_path, np.where(BLOB, 1, np.nan).astype(np.float32), ".tif")


def test_a_jpeg_of_almost_nothing_is_empty(tmp_path):
    assert not read(tmp_path, (BLOB * 3).astype(np.uint8), ".jpg", quality=75).any()


@pytest.mark.parametrize("values", [(255, 255), (85, 255)])
@pytest.mark.parametrize("factor", [0.5, 3])
def test_soft_edges_end_half_way(tmp_path, values, factor):
    size = (int(96 * factor), int(64 * factor))
    levels = PIL.Image.fromarray((BLOB * values[0] + SECOND * values[1]).astype(np.uint8))
    true = np.asarray(PIL.Image.fromarray(BLOB | SECOND).resize(size, PIL.Image.Resampling.NEAREST))
    assert iou(read(tmp_path, levels.resize(size, PIL.Image.Resampling.BILINEAR)), true) > 0.9
