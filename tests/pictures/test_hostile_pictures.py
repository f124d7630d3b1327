"""A table of broken, odd and hostile pictures: the right pixels, or an error with the file and the reason."""

import io
import os
import pathlib
import socket
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from destseg.pictures.decoding import read_size, to_rgb
from destseg.pictures.folders import as_pictures
from destseg.pictures.framing import Framing
from destseg.pictures.masks import read_mask
from destseg.pictures.store import PictureStore

LEVELS = np.arange(0, 256, 4, np.uint8).reshape(8, 8)  # 0 to 252
COLOURS = np.stack([LEVELS, LEVELS.T, LEVELS[::-1]], axis=2)
NOISE = PIL.Image.effect_noise((64, 64), 50)


def encoded(picture, format, **options):
    file = io.BytesIO()
    (PIL.Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(
        file, format, **options
    )
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, levels=b"", interlaced=False):
    """A grey PNG file; `levels` are its rows, each behind a zero."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlaced)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(levels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def interlaced(levels):
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    rows = [row for top, left, down, right in passes for row in levels[top::down, left::right]]
    return png(8, 8, b"".join(b"\0" + row.tobytes() for row in rows), interlaced=True)


def white_is_zero(picture):
    """A TIFF file of grey levels, of which the lowest is white."""
    data, black, white = encoded(picture, "TIFF"), *(struct.pack("<HHIH", 262, 3, 1, k) for k in (1, 0))
    assert data.count(black) == 1
    return data.replace(black, white)


def float_colours():
    """A TIFF file that says that its colours are floats."""
    data = encoded(COLOURS, "TIFF", tiffinfo={339: (3, 3, 3)})
    return data.replace(struct.pack("<3H", 8, 8, 8), struct.pack("<3H", 32, 32, 32))


def paletted():
    picture = PIL.Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    return encoded(picture, "PNG", transparency=bytes([0, 128]))


def turned(picture):
    """The file of a picture that says: turn me by a quarter."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encoded(picture, "PNG", exif=exif)


def grey(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=2)


first = PIL.Image.fromarray(COLOURS)
more = {"save_all": True, "append_images": [PIL.Image.new("RGB", (8, 8), "red")]}
wide = np.array([[0, 257, 65535]], np.uint16)
deep = PIL.Image.frombytes("I;16B", (3, 1), wide.astype(">u2").tobytes())

READ = {
    "wrong ending": (encoded(LEVELS, "BMP"), grey(LEVELS)),
    "animated": (encoded(first, "PNG", **more), COLOURS),
    "animated WebP": (encoded(first, "WEBP", lossless=True, **more), COLOURS),
    "several pages": (encoded(first, "TIFF", **more), COLOURS),
    "CMYK": (encoded(PIL.Image.new("CMYK", (8, 8), (0, 0, 0, 255)), "JPEG"), np.zeros((8, 8, 3), np.uint8)),
    "palette with transparency": (paletted(), [[[10, 20, 30], [40, 50, 60]]]),
    "1 bit": (encoded(PIL.Image.fromarray(LEVELS > 100), "PNG"), grey((LEVELS > 100) * 255)),
    "16 bits": (encoded(wide, "PNG"), grey([[0, 1, 255]])),
    "floats": (encoded(np.array([[0, 0.25, 1]], np.float32), "TIFF"), grey([[0, 64, 255]])),
    "big-endian": (encoded(deep, "TIFF"), grey([[0, 1, 255]])),
    "white is zero": (white_is_zero(LEVELS), 255 - grey(LEVELS)),
    "white is zero in 16 bits": (white_is_zero(wide), grey([[255, 254, 0]])),
    "turned": (turned(LEVELS), grey(np.rot90(LEVELS, -1))),
    "interlaced": (interlaced(LEVELS), grey(LEVELS)),
}
TIFF = "it is a TIFF file that is damaged, or of a kind that Pillow does not know"
REFUSED = {
    "empty": (b"", "it is empty"),
    "text": (b"not a picture", "it is no PNG, JPEG, TIFF, BMP or WebP file"),
    "truncated PNG": (encoded(NOISE, "PNG")[:1000], ".*trunc"),
    "truncated JPEG": (encoded(NOISE, "JPEG")[:1000], ".*trunc"),
    "truncated TIFF": (encoded(NOISE, "TIFF")[:1000], "."),
    "truncated WebP": (encoded(NOISE, "WEBP")[:1000], "."),
    "signature alone": (b"\x89PNG\r\n\x1a\n", "."),
    "no tags": (b"II*\0\x08\0\0\0", f"{TIFF}$"),
    "signed bytes": (encoded(LEVELS, "TIFF", tiffinfo={339: 2}), "its values are signed integers of 8 bits"),
    "floats in colour": (float_colours(), f"{TIFF}, 3 x 32 bits, floats"),
    "white is zero in floats": (
        white_is_zero(LEVELS.astype(np.float32) / 255),
        "its values are floats of which 0 is white",
    ),
    "huge": (png(100_000, 100_000), "it has 10000 megapixels"),
    "of no width": (png(0, 5), "."),
}


@pytest.mark.parametrize("kind", READ)
def test_odd_pictures_are_read_as_everybody_sees_them(tmp_path, kind):
    data, pixels = READ[kind]
    path = tmp_path / "x.png"
    path.write_bytes(data)
    np.testing.assert_array_equal(to_rgb(path), pixels)
    assert read_size(path) == np.shape(pixels)[:2]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # so Pillow calls a TIFF file without tags
@pytest.mark.parametrize("kind", REFUSED)
def test_broken_pictures_are_refused_by_name_and_reason(tmp_path, kind):
    data, reason = REFUSED[kind]
    path = tmp_path / "x.png"
    path.write_bytes(data)
    for read in (to_rgb, read_mask):
        with pytest.raises(ValueError, match=rf"x\.png cannot be read as a picture: {reason}"):
            read(path)


def pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as here:
        here.bind(os.path.relpath(path))  # a short name: its length is limited


def device(path):
    path.symlink_to(os.devnull)


def dangling_link(path):
    path.symlink_to("gone.png")


NO_FILE = "is a pipe, a socket or a device"
SPECIAL = {
    pipe: NO_FILE,
    unix_socket: NO_FILE,
    device: NO_FILE,
    dangling_link: "there is no picture file",
    pathlib.Path.mkdir: "is a directory",
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX only")
@pytest.mark.parametrize("make", SPECIAL)
def test_what_is_no_file_is_never_opened(tmp_path, make):
    path = tmp_path / "x.png"
    make(path)
    for read in (to_rgb, read_mask, read_size):
        with pytest.raises((OSError, ValueError), match=rf"x\.png.* {SPECIAL[make]}|{SPECIAL[make]}.*x\.png"):
            read(path)
    with pytest.raises((OSError, ValueError), match=r"x\.png"):
        as_pictures(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX only")
def test_a_folder_of_them_gives_its_pictures_and_names_all_others(tmp_path, caplog):
    for make in SPECIAL:
        make(tmp_path / f"{make.__name__}.png")
    for kind, (data, _) in (READ | REFUSED).items():
        (tmp_path / f"{kind}.png").write_bytes(data)
    locked = tmp_path / "locked.png"
    locked.touch(mode=0)
    sources = as_pictures(tmp_path)
    assert len(sources) == len(SPECIAL) - 1 + len(READ) + len(REFUSED) + 1  # all but the directory
    store = PictureStore(sources, Framing((8, 8)), progress=False)
    assert {pathlib.Path(source.name).stem for source in store.sources} == set(READ)
    named = [record.getMessage() for record in caplog.records if record.getMessage().startswith("left out: ")]
    for name in [*REFUSED, "pipe", "unix_socket", "device", "dangling_link", "locked"]:
        assert sum(f"{name}.png" in message for message in named) == 1, name
    with pytest.raises((OSError, ValueError), match=r"\.png"):
        PictureStore(sources, Framing((8, 8)), strict=True, progress=False)
