"""Pictures of every kind become the same pixels; everything else gets an error that helps."""

import io
import struct
import warnings

import numpy as np
import PIL.Image
import pytest
import torch
from deep import png_of_16_bit_colour, tiff_of_16_bit_colour

from destseg.pictures import decoding
from destseg.pictures.arrays import as_array
from destseg.pictures.decoding import UnreadableImage, highest_value, read_size, resize, to_rgb

# Grey 0, 128, 255 in one row; a colour picture of 2 x 2 whose four pixels all differ.
GREY = np.array([[0, 128, 255]], np.uint8)
COLOUR = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], np.uint8)


@pytest.fixture(autouse=True)
def untold(monkeypatch):
    """Nothing has been warned of yet."""
    monkeypatch.setattr(decoding, "_told", set())


def grey_rgb(*levels):
    """One row of grey pixels as (1, w, 3) uint8."""
    return np.repeat(np.array(levels, np.uint8)[None, :, None], 3, axis=2)


def encoded(picture, format, **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GREY, grey_rgb(0, 128, 255)),
        (GREY[:, :, None], grey_rgb(0, 128, 255)),
        (np.array([[False, True]]), grey_rgb(0, 255)),
        # 128 / 257 = 0.498 and 129 / 257 = 0.502: the borders between 0 and 1
        (np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16), grey_rgb(0, 0, 1, 1, 128, 255)),
        (np.array([[0, 257, 65535]], ">u2"), grey_rgb(0, 1, 255)),
        (np.array([[0, 0.25, 1]], np.float16), grey_rgb(0, 64, 255)),
        (np.array([[0, 0.25, 1]], np.float32), grey_rgb(0, 64, 255)),
        (np.array([[0, 0.25, 1]], np.float64), grey_rgb(0, 64, 255)),
        (COLOUR, COLOUR),
        (COLOUR[:, ::-1], COLOUR[:, ::-1]),
        (np.dstack([COLOUR, np.zeros((2, 2), np.uint8)]), COLOUR),  # wholly transparent: colours stay
        (torch.from_numpy(GREY), grey_rgb(0, 128, 255)),
        (torch.tensor([[[0, 255, 9, 8, 7]]], dtype=torch.uint8), grey_rgb(0, 255, 9, 8, 7)),
        (torch.from_numpy(COLOUR), COLOUR),
        (torch.from_numpy(COLOUR).permute(2, 0, 1), COLOUR),
        (torch.tensor([[0.0, 1.0]], requires_grad=True), grey_rgb(0, 255)),
    ],
)
def test_arrays_and_tensors(array, expected):
    pixels = to_rgb(array)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_grey_level_survives_as_a_float(dtype):
    levels = np.arange(256, dtype=np.uint8)[None]
    np.testing.assert_array_equal(to_rgb((levels / 255).astype(dtype))[:, :, 0], levels)


def test_result_is_memory_of_its_own():
    camera_buffer = COLOUR.copy()
    pixels = to_rgb(camera_buffer)
    camera_buffer[:] = 7
    np.testing.assert_array_equal(pixels, COLOUR)
    assert to_rgb(PIL.Image.fromarray(COLOUR)).flags.writeable


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "WEBP"])
def test_lossless_files(tmp_path, format):
    path = tmp_path / f"part.{format.lower()}"
    path.write_bytes(encoded(PIL.Image.fromarray(COLOUR), format, lossless=True))
    for image in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), PIL.Image.open(path)):
        np.testing.assert_array_equal(to_rgb(image), COLOUR)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg(mode):
    flat = PIL.Image.new("RGB", (16, 16), (200, 200, 200)).convert(mode)
    pixels = to_rgb(encoded(flat, "JPEG", quality=95))
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels.astype(int) - 200).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_pillow_modes(mode):
    black_and_white = PIL.Image.fromarray(np.array([[0, 255]], np.uint8))
    through = {"HSV": "RGB", "YCbCr": "RGB", "CMYK": "RGB", "RGBa": "RGBA"}.get(mode, mode)
    picture = black_and_white.convert(through).convert(mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(to_rgb(picture), grey_rgb(0, 255))


def test_transparent_palette_keeps_its_colours():
    picture = PIL.Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = to_rgb(encoded(picture, "PNG", transparency=bytes([0, 128])))
    np.testing.assert_array_equal(pixels, [[[10, 20, 30], [40, 50, 60]]])


@pytest.mark.parametrize(
    ("values", "format", "expected"),
    [
        (np.array([[0, 257, 65535]], np.uint16), "PNG", (0, 1, 255)),
        (np.array([[0, 257, 65535]], np.uint16), "TIFF", (0, 1, 255)),
        (np.array([[0, 257, 65535]], np.int32), "TIFF", (0, 1, 255)),
        (np.array([[0, 0.25, 1]], np.float32), "TIFF", (0, 64, 255)),
    ],
)
def test_files_of_more_than_8_bits(values, format, expected):
    np.testing.assert_array_equal(to_rgb(encoded(PIL.Image.fromarray(values), format)), grey_rgb(*expected))


def test_big_endian_16_bit():
    picture = PIL.Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 257, 65535))
    np.testing.assert_array_equal(to_rgb(encoded(picture, "TIFF")), grey_rgb(1, 255))
    np.testing.assert_array_equal(to_rgb(picture), grey_rgb(1, 255))


COLOUR_16 = np.random.default_rng(0).integers(0, 4096, (5, 7, 3)).astype(np.uint16)


@pytest.mark.parametrize(
    "data",
    [
        png_of_16_bit_colour(COLOUR_16),
        png_of_16_bit_colour(np.dstack([COLOUR_16, np.full((5, 7), 9, np.uint16)])),
        tiff_of_16_bit_colour(COLOUR_16, "<"),
        tiff_of_16_bit_colour(COLOUR_16, ">"),
    ],
    ids=["png", "png with alpha", "tiff", "big-endian tiff"],
)
def test_16_bit_colour_keeps_all_its_bits(data):
    """Pillow gives the upper 8 only: 16 levels of a 12-bit camera."""
    np.testing.assert_array_equal(to_rgb(data, bit_depth=12), np.rint(COLOUR_16 / 4095 * 255))
    np.testing.assert_array_equal(to_rgb(data), np.rint(COLOUR_16 / 65535 * 255))
    assert highest_value(data) == COLOUR_16.max()


def test_16_bit_colour_as_a_pillow_image_is_refused_where_it_would_be_dark():
    data = png_of_16_bit_colour(COLOUR_16)
    np.testing.assert_array_equal(to_rgb(PIL.Image.open(io.BytesIO(data))), COLOUR_16 >> 8)
    words = "Pillow image: Pillow keeps the upper 8 of 16 bits of a colour: pass the file or its bytes"
    with pytest.raises(ValueError, match=words):
        to_rgb(PIL.Image.open(io.BytesIO(data)), bit_depth=12)


def test_16_bit_grey_with_alpha_is_cut_to_8_bits():
    """There is no way to get at the others."""
    data = png_of_16_bit_colour(np.array([[[0x80FF, 0xFFFF], [0x0100, 0]]], np.uint16))
    np.testing.assert_array_equal(to_rgb(data), grey_rgb(0x80, 1))
    assert highest_value(data) is None


def test_16_bit_colour_is_turned_as_its_orientation_says():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    data = png_of_16_bit_colour(COLOUR_16, exif.tobytes()[6:])
    expected = np.rint(np.rot90(COLOUR_16, -1) / 4095 * 255)
    np.testing.assert_array_equal(to_rgb(data, bit_depth=12), expected)


DEEP = np.array([[0, 8, 9, 2048, 4095]], np.uint16)  # 8 * 255 / 4095 = 0.498, 9: 0.560


def deep_forms(values, tmp_path):
    """A picture of 16-bit grey in every form that a user may hold."""
    for ending in ("png", "tif"):
        path = tmp_path / f"deep.{ending}"
        PIL.Image.fromarray(values).save(path)
        yield from (path, path.read_bytes(), PIL.Image.open(path), io.BytesIO(path.read_bytes()))
    yield from (values, values.astype(">u2"), torch.from_numpy(values), values[..., None])


def test_the_depth_of_a_camera_scales_16_bit_data_of_every_form(tmp_path):
    for image in deep_forms(DEEP, tmp_path):
        np.testing.assert_array_equal(to_rgb(image, bit_depth=12), grey_rgb(0, 0, 1, 128, 255))
    for image in (GREY, GREY / 255, GREY > 100, PIL.Image.fromarray(GREY)):  # 8 bits stay as they are
        np.testing.assert_array_equal(to_rgb(image, bit_depth=12), to_rgb(image))


@pytest.mark.parametrize("bit_depth", [8, 10, 12, 14, 16])
def test_every_depth_has_256_levels(bit_depth):
    values = np.arange(1 << bit_depth, dtype=np.uint16)[None]
    found = to_rgb(values, bit_depth=bit_depth)[0, :, 0]
    np.testing.assert_array_equal(found, np.rint(values[0] * 255.0 / ((1 << bit_depth) - 1)))
    assert len(np.unique(found)) == 256


def test_a_picture_beyond_the_depth_is_clipped_and_said_once(caplog):
    found = to_rgb(np.array([[4095, 4096, 65535]], np.uint16), "cam/1.png", bit_depth=12)
    np.testing.assert_array_equal(found, grey_rgb(255, 255, 255))
    to_rgb(np.array([[5000]], np.uint16), "cam/2.png", bit_depth=12)
    assert caplog.messages == [
        "cam/1.png: values reach 65535, but the model's pictures have 12 bits, 0 to 4095: those above are "
        "clipped, here and in all such pictures"
    ]
    to_rgb(np.array([[2000]], np.uint16), "cam/3.png", bit_depth=10)  # another model
    assert len(caplog.messages) == 2


def test_a_fraction_of_16_bits_is_reported_once_where_no_depth_is_known(caplog):
    to_rgb(np.array([[0, 16384]], np.uint16))
    to_rgb(np.array([[0, 255]], np.uint8))
    to_rgb(np.array([[0, 4095]], np.uint16), bit_depth=16)  # by wish
    assert not caplog.messages
    for name in ("cam/1.png", "cam/2.png"):
        to_rgb(np.array([[0, 4095]], np.uint16), name)
    assert caplog.messages == [
        "cam/1.png: values reach 4095 and are read as 16 bits, 0 to 65535: 16 of 256 grey levels are left. "
        "A model with bit_depth=12 tells them apart"
    ]


def test_the_highest_value_is_known_of_16_bit_data_only(tmp_path):
    for image in deep_forms(DEEP, tmp_path):
        assert highest_value(image) == 4095
    for image in (GREY, GREY / 255.0, PIL.Image.fromarray(GREY), encoded(PIL.Image.fromarray(COLOUR), "PNG")):
        assert highest_value(image) is None
    assert highest_value(PIL.Image.new("I", (2, 2), 70000)) is None  # it cannot be read, either
    with pytest.raises(UnreadableImage):
        highest_value(b"no picture")


@pytest.mark.parametrize("kind", [io.BytesIO, bytearray, memoryview, "file", "upload"])
def test_what_can_be_read_is_a_picture(kind, tmp_path):
    data = encoded(PIL.Image.fromarray(COLOUR), "PNG")
    (tmp_path / "part.png").write_bytes(data)
    with open(tmp_path / "part.png", "rb") as file:
        made = {"file": lambda _: file, "upload": Upload}.get(kind, kind)(data)
        np.testing.assert_array_equal(to_rgb(made), COLOUR)
        np.testing.assert_array_equal(to_rgb(made), COLOUR)  # from its start again


class Upload:
    """A file as web frameworks hand it over: it can be read, and little else."""

    filename = "part.png"

    def __init__(self, data):
        self.data, self.place = data, 0

    def read(self):
        place, self.place = self.place, len(self.data)
        return self.data[place:]

    def seek(self, place):
        self.place = place


def test_files_that_give_no_bytes_are_refused(tmp_path):
    (tmp_path / "part.png").write_text("text")
    with open(tmp_path / "part.png") as file, pytest.raises(TypeError, match=r"part\.png: .* in binary mode"):
        to_rgb(file)

    class Later:
        async def read(self):
            return b""

    with pytest.raises(TypeError, match=r"a file must give bytes when it is read.* got coroutine"):
        to_rgb(Later())
    with pytest.raises(UnreadableImage, match=r"^part\.png cannot be read as a picture: it is no PNG"):
        to_rgb(Upload(b"nothing"))
    with pytest.raises(UnreadableImage, match="cannot be read as a picture: it is empty"):
        to_rgb(io.BytesIO())


def test_an_empty_path_is_refused():
    with pytest.raises(ValueError, match="a path must not be empty"):
        to_rgb("")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation(format):
    picture = PIL.Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 16, axis=0)).resize((32, 16), 0)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # stored lying: shown after a quarter turn clockwise, left becomes top
    data = encoded(picture.convert("RGB"), format, exif=exif)
    for image in (data, PIL.Image.open(io.BytesIO(data))):
        pixels = to_rgb(image)
        assert pixels.shape == (32, 16, 3)
        assert pixels[:12].max() < 20
        assert pixels[-12:].min() > 235


@pytest.mark.parametrize("format", ["TIFF", "WEBP", "PNG"])
def test_first_frame_counts(format):
    frames = [PIL.Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    pixels = to_rgb(encoded(frames[0], format, save_all=True, append_images=frames[1:], lossless=True))
    np.testing.assert_array_equal(pixels[0, 0], [255, 0, 0])


def test_pages_that_are_not_read_are_reported_once(tmp_path, caplog):
    page = PIL.Image.new("L", (2, 2))
    for name, pages in (("one.tif", 0), ("several.tif", 4), ("again.tif", 1)):
        page.save(tmp_path / name, save_all=True, append_images=[page] * pages)
        to_rgb(tmp_path / name)
    (message,) = caplog.messages
    assert "several.tif: holds 5 pages, of which only the first is read" in message
    assert "PIL.ImageSequence.Iterator" in message


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is empty"),
        (b"not a picture", "it is no PNG, JPEG, TIFF, BMP or WebP file"),
        (encoded(PIL.Image.new("L", (2, 2)), "GIF"), "it is no PNG, JPEG, TIFF, BMP or WebP file"),
        (encoded(PIL.Image.effect_noise((64, 64), 50), "PNG")[:1000], "trunc"),
        (encoded(PIL.Image.effect_noise((64, 64), 50), "JPEG")[:1000], "trunc"),
    ],
)
def test_unreadable_files(tmp_path, data, reason):
    path = tmp_path / "part.png"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=rf"part\.png cannot be read as a picture: .*{reason}"):
        to_rgb(path)
    with pytest.raises(UnreadableImage, match=rf"^bytes cannot be read as a picture: .*{reason}"):
        to_rgb(data)
    with pytest.raises(UnreadableImage, match=rf"^camera 2 cannot be read as a picture: .*{reason}"):
        to_rgb(data, name="camera 2")


def test_closed_files_are_named(tmp_path):
    path = tmp_path / "part.png"
    PIL.Image.new("L", (2, 2)).save(path)
    with PIL.Image.open(path) as picture, path.open("rb") as file:
        pass
    with pytest.raises(UnreadableImage, match=r"part\.png cannot be read as a picture: its file is closed"):
        to_rgb(picture)
    with pytest.raises(ValueError, match=r"part\.png: .*must give bytes .*: seek of closed"):
        to_rgb(file)
    with path.open("wb") as file, pytest.raises(ValueError, match=r"part\.png: .*must give bytes"):
        to_rgb(file)


def test_truncated_pillow_image():
    data = encoded(PIL.Image.effect_noise((64, 64), 50), "PNG")[:1000]
    with pytest.raises(UnreadableImage, match=r"^Pillow image cannot be read as a picture: .*trunc"):
        to_rgb(PIL.Image.open(io.BytesIO(data)))


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no picture file .*gone\.png"):
        to_rgb(tmp_path / "gone.png")
    with pytest.raises(IsADirectoryError, match="is a directory; a picture file is wanted"):
        to_rgb(tmp_path)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((3, 8, 9)), r"\(h, w, 3\).*got float64 of shape \(3, 8, 9\); move the channels last"),
        (torch.zeros(4, 8, 9), r"got float32 of shape \(4, 8, 9\); move .* with image\.permute\(1, 2, 0\)$"),
        (np.zeros((8, 9, 2), np.uint8), r"\(h, w, 4\), got uint8 of shape \(8, 9, 2\)$"),
        (np.zeros((1, 8, 9, 3), np.uint8), r"got uint8 of shape \(1, 8, 9, 3\)"),
        (np.zeros((0, 9), np.uint8), r"at least one pixel, got uint8 of shape \(0, 9\)"),
        (np.zeros((8, 9), np.int64), r"must be bool, uint8, uint16, float16.*got int64"),
        (np.zeros((8, 9), object), "must be bool, uint8.*got object"),
        (torch.zeros(8, 9, dtype=torch.bfloat16), r"a dense tensor of bool, uint8.*got torch\.bfloat16"),
        (torch.zeros(8, 9).to_sparse(), r"a dense tensor of .*got torch\.float32, torch\.sparse_coo on cpu"),
        (torch.zeros(8, 9, device="meta"), r"a dense tensor of .*torch\.strided on meta"),
        (np.ma.masked_array([[0.5, np.nan]], [[False, True]]), r"no masked values: .*image\.filled\(0\)"),
        (np.array([[0.5, np.nan]]), r"must lie in \[0, 1\], got NaN or infinity"),
        (np.array([[0.5, np.inf]]), r"must lie in \[0, 1\], got NaN or infinity"),
        (np.array([[-0.5, 1]]), "got values from -0.5 to 1$"),
        (np.array([[0.0, 200]]), r"got values from 0 to 200; .*numpy\.uint8"),
        (torch.tensor([[0.0, 200]]), r"got values from 0 to 200; .*image\.to\(torch\.uint8\)$"),
        (np.array([[0.0, 4000]]), r"got values from 0 to 4000; .*numpy\.uint16"),
        (PIL.Image.new("I", (2, 2), 70000), r"integer pixels must lie in 0\.\.65535, got 70000\.\.70000"),
        (PIL.Image.new("RGB", (0, 2)), "at least one pixel"),
    ],
)
def test_errors_say_what_is_allowed_and_what_came(array, words):
    with pytest.raises(ValueError, match=words):
        to_rgb(array)
    with pytest.raises(ValueError, match=f"^camera 2: .*{words}"):
        to_rgb(array, name="camera 2")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_an_encoded_file_in_an_array_is_no_column_of_pixels(format, shape):
    """OpenCV's imencode gives such arrays, numpy's fromfile too."""
    array = np.frombuffer(encoded(PIL.Image.new("RGB", (9, 8)), format), np.uint8).reshape(shape)
    with pytest.raises(ValueError, match=r"a file in an array: pass its bytes, image\.tobytes\(\)"):
        as_array(array)
    np.testing.assert_array_equal(to_rgb(array.tobytes()), to_rgb(np.zeros((8, 9), np.uint8)))


def test_other_types():
    with pytest.raises(TypeError, match=r"must be a path, bytes, an open file, a Pillow image.*got list"):
        to_rgb([[1, 2]])


def test_as_array_shares_memory():
    assert np.shares_memory(as_array(COLOUR), COLOUR)


def test_resize():
    # a white column among three black ones, halved: Pillow's triangle of radius 2 weighs 1, 3, 3, 1 over 8,
    # without the left neighbour at the border 3, 3, 1 over 7: 255 * 3 / 7 = 109.3, and 255 / 7 = 36.4 beyond
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, 1] = 255
    np.testing.assert_array_equal(resize(pixels, (4, 2))[0, :, 0], [109, 36])
    assert resize(pixels, (4, 4)) is pixels
    assert resize(pixels, (5, 7)).shape == (5, 7, 3)
    with pytest.raises(ValueError, match=r"pixels must be \(h, w, 3\) uint8, got float64 of shape \(4, 4\)"):
        resize(np.zeros((4, 4)), (2, 2))
    with pytest.raises(ValueError, match=r"size must be .*got \(0, 2\)"):
        resize(pixels, (0, 2))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
def test_the_size_of_a_file_is_that_of_its_pixels(tmp_path, ending, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"wide.{ending}"
    PIL.Image.new("RGB", (9, 5)).save(path, exif=exif)
    assert read_size(path) == to_rgb(path).shape[:2]


def test_sizes_of_what_is_no_picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(UnreadableImage, match=r"a\.png cannot be read"):
        read_size(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="no picture file"):
        read_size(tmp_path / "b.png")
