"""One picture in, pixels out: everything that a user may hold becomes (h, w, 3) uint8."""

import contextlib
import functools
import io
import logging
import os
import re
import sys
import threading
import weakref
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias, TypeGuard

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from destseg.files import as_path
from destseg.pictures.arrays import Tensor, as_array
from destseg.pictures.limit import budget, check_size, decoding, lock_over_forks, without_limit
from destseg.pictures.tiff import check_values, unknown_kind, white_is_zero
from destseg.settings import BIT_DEPTHS


class File(Protocol):
    """A file that is open for reading bytes, or an upload."""

    def read(self) -> bytes:
        """Return the rest of its bytes."""


Bytes: TypeAlias = bytes | bytearray | memoryview
Image: TypeAlias = str | os.PathLike[str] | Bytes | File | PIL.Image.Image | np.ndarray | Tensor
"""Everything that `to_rgb` takes as one picture."""

BYTES = (bytes, bytearray, memoryview)
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")

WIDE_FORMATS = ("PNG", "TIFF")  # which may hold more than 8 bits
WIDE = re.compile(r"RGB[AX]?;16[BLN]")  # how Pillow calls 16-bit colour: big-endian, little-endian or native

logger = logging.getLogger("destseg")
_told: set[tuple[str, int | None]] = set()  # what has been warned of: a camera gives thousands of pictures
_lock = lock_over_forks()  # of the following
_decode_locks: weakref.WeakValueDictionary[int, threading.Lock] = weakref.WeakValueDictionary()


class UnreadableImage(ValueError):  # noqa: N818 - reads better where users catch it
    """A file or byte string is no picture, is damaged, or is too large to be decoded safely."""


def to_rgb(image: Image, name: str | None = None, bit_depth: int | None = None) -> np.ndarray:
    """Turn one picture of any kind into colour pixels.

    Grey is repeated over the three channels. An alpha channel is dropped: colours stay as they are stored,
    also where they are transparent. Floats must lie in [0, 1] and become value * 255, rounded; bool becomes 0
    or 255. 16-bit data of a camera of n bits, 0..2^n - 1, become value * 255 / (2^n - 1), rounded; a larger
    value becomes 255, with a warning for the first such picture. Of a Pillow image of 16-bit colour Pillow
    keeps the upper 8 bits only: pass its file.

    Args:
        image: one of
            a path to, the bytes of, or an open file with, a PNG, JPEG, TIFF, BMP or WebP file, see
            `read_image`; a file is read from its start, if it can be;
            a Pillow image: its current frame, turned as its EXIF orientation says;
            an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of bool, uint8, uint16, float16, float32 or
            float64. Colours are RGB; OpenCV's are BGR: pass `image[..., ::-1]`;
            a tensor of the same shapes and dtypes on any device, or channels first, (1, h, w) or (3, h, w).
            Channels count as first when the first dimension is 1 or 3 and the last is none of 1, 3, 4.
        name: what error messages call the picture; by default its path, where it has one.
        bit_depth: bits of the camera behind 16-bit data, 8 to 16. None: 16, and a warning for the first
            picture that uses less than a quarter of them.

    Returns:
        (h, w, 3) uint8, C-contiguous, in memory of its own.

    Raises:
        FileNotFoundError, IsADirectoryError, UnreadableImage: for paths and bytes.
        ValueError: an array has another shape, dtype or range.
        TypeError: image is anything else.

    Example:
        >>> to_rgb(np.array([[0.0, 1.0]])).tolist()
        [[[0, 0, 0], [255, 255, 255]]]
    """
    with rgb_within_budget(image, name, bit_depth) as pixels:
        return pixels


@contextlib.contextmanager
def rgb_within_budget(
    image: Image, name: str | None = None, bit_depth: int | None = None
) -> Iterator[np.ndarray]:
    """Yield what `to_rgb` returns; what is done with the pixels within is part of the budget of decoding."""
    if isinstance(image, (str, os.PathLike, *BYTES)) or is_file(image):
        name = name or _name_of(image)
        data = _data_of(image)
        with _decoded(data, name) as picture:
            wide = wide_colour(data, name) if picture.format in WIDE_FORMATS else None
            if wide is None:
                yield _from_pillow(picture, name, bit_depth)
            else:
                yield _from_array(wide, name, bit_depth)
    elif isinstance(image, PIL.Image.Image):
        name = name or str(getattr(image, "filename", "") or "Pillow image")
        if bit_depth not in (None, 16) and _is_wide_colour(image):  # known until its pixels are loaded
            reason = "Pillow keeps the upper 8 of 16 bits of a colour: pass the file or its bytes"
            raise ValueError(f"{name}: {reason}")
        with budget.taken(image):
            with _decode_lock(image), _readable(name), decoding(image):
                image = upright(image)
            yield _from_pillow(image, name, bit_depth)
    else:
        yield _from_array(image, name, bit_depth)


def _from_array(image: Any, name: str | None, bit_depth: int | None) -> np.ndarray:
    """Return the pixels of an array or a tensor."""
    pixels = as_array(image, name)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    elif pixels.dtype == np.uint16:
        _warn_of_depth(int(pixels.max()), bit_depth, name or "image")
        pixels = _grey_levels(bit_depth or 16)[pixels]
    elif pixels.dtype != np.uint8:
        # a product in float16 would lose the last grey levels
        scaled = pixels.astype(np.promote_types(pixels.dtype, np.float32)) * 255
        pixels = np.rint(scaled).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 1:
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return np.array(pixels[:, :, :3], order="C")


def highest_value(image: Image) -> int | None:
    """Return the highest value of a picture of 16-bit data; None for all others, which are not decoded.

    Arguments and errors are as for `to_rgb`.
    """
    if isinstance(image, (str, os.PathLike, *BYTES)) or is_file(image):
        name = _name_of(image)
        data = _data_of(image)
        with _readable(name):
            picture = _open(io.BytesIO(data))
        with budget.taken(picture):
            wide = wide_colour(data, name) if picture.format in WIDE_FORMATS else None
        if wide is not None:
            return int(wide.max())
        image = picture
    if not isinstance(image, PIL.Image.Image):
        pixels = as_array(image)
        return int(pixels.max()) if pixels.dtype == np.uint16 else None
    if not _is_wide_grey(image):
        return None
    name = str(getattr(image, "filename", "") or "Pillow image")
    with budget.taken(image), _decode_lock(image), _readable(name), decoding(image):
        highest = int(np.asarray(upright(image)).max())
    return highest if highest < 1 << 16 else None  # 32-bit data, which `to_rgb` refuses


def depth_of(highest: int) -> int:
    """Return the smallest of BIT_DEPTHS that can hold a value of 0..65535."""
    return next(depth for depth in BIT_DEPTHS if highest < 1 << depth)


def is_file(value: Any) -> TypeGuard[File]:
    """Whether this is an open file, an upload or the like: anything else that can be read."""
    return callable(getattr(value, "read", None)) and not isinstance(value, os.PathLike)


def read_file(file: File) -> bytes:
    """Return all bytes of an open file, from its start if it can go there.

    Raises ValueError if it cannot be read, and TypeError if it gives no bytes.
    """
    label = f"{file_name(file)}: " if file_name(file) else ""
    wanted = "a file must give bytes when it is read: open it in binary mode, or pass what it holds"
    seek = getattr(file, "seek", None)
    try:
        if seek is not None:
            with contextlib.suppress(OSError):  # a pipe or an answer of the network
                seek(0)
        data = file.read()
    except ValueError as error:  # it is closed, or open for writing
        raise ValueError(f"{label}{wanted}: {error}") from error
    if not isinstance(data, BYTES):
        if isinstance(data, Coroutine):
            data.close()
        raise TypeError(f"{label}{wanted}, got {type(data).__name__}")
    return bytes(data)


def file_name(file: File) -> str:
    """Return the name of an open file or upload; "" if it has none."""
    names = [getattr(file, attribute, None) for attribute in ("filename", "name")]
    return next((name for name in names if isinstance(name, str)), "")  # an unnamed one has a number


def read_image(image: str | os.PathLike[str] | Bytes | File, name: str | None = None) -> PIL.Image.Image:
    """Decode a picture file, given by path, as bytes or open.

    Takes the first frame or page, of a TIFF with a warning for the first such file, and turns it as its EXIF
    orientation says. It may have twice
    `PIL.Image.MAX_IMAGE_PIXELS`, 179 megapixels unless changed, or as many megapixels as the environment
    variable DESTSEG_MAX_MEGAPIXELS says.

    Raises:
        FileNotFoundError, IsADirectoryError: the path leads to no file.
        UnreadableImage: the file is no such picture, damaged or too large; the message gives the reason.
    """
    with _decoded(_data_of(image), name or _name_of(image)) as picture:
        return picture


@contextlib.contextmanager
def _decoded(data: Bytes, name: str) -> Iterator[PIL.Image.Image]:
    """Decode a file as `read_image` does; what is done with its pixels within is part of the budget."""
    if not data:
        raise UnreadableImage(f"{name} cannot be read as a picture: it is empty")
    with _readable(name):
        picture = _open(io.BytesIO(data))
    with budget.taken(picture):
        with _readable(name):
            if picture.format == "TIFF" and (pages := pages_of(_open(io.BytesIO(data)))) > 1:
                text = "pages, of which only the first is read; PIL.ImageSequence.Iterator(image) gives all"
                _warn_once(("pages", None), f"{name}: holds {pages} {text}")
            with decoding(picture):
                picture = upright(picture, in_place=True)
        yield picture


def upright(picture: PIL.Image.Image, in_place: bool = False) -> PIL.Image.Image:
    """Return a copy of a picture, turned as its EXIF orientation says, in which 0 is black.

    With `in_place` the picture itself is turned, and returned where possible; this saves memory.
    """
    turned = picture
    if in_place:
        PIL.ImageOps.exif_transpose(picture, in_place=True)
    else:
        turned = PIL.ImageOps.exif_transpose(picture)
    if turned.mode == "I;16" and white_is_zero(picture):
        turned = PIL.Image.fromarray(np.invert(np.asarray(turned)))
    turned.format = picture.format
    return turned


def pages_of(picture: PIL.Image.Image) -> int:
    """Return how many pages or frames a picture has; it may show another one then."""
    with contextlib.suppress(Exception):  # where the file is damaged behind the first, or closed
        return int(getattr(picture, "n_frames", 1))
    return 1


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the height and width of a picture file, turned as its EXIF orientation says, from its header.

    Raises:
        FileNotFoundError, IsADirectoryError, UnreadableImage: as `read_image`, as far as the header tells.
    """
    path = check_file(Path(path))
    with _readable(str(path)), open(path, "rb") as file:
        picture = _open(file)
        turned = picture.getexif().get(PIL.ExifTags.Base.Orientation, 1) != 1
        width, height = picture.size
    if turned:  # rare: versions of Pillow differ in what the size is before decoding
        width, height = read_image(path).size
    return height, width


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale (h, w, 3) uint8 pixels to size = (height, width), bilinear with antialiasing (Pillow's BILINEAR).

    The width is scaled first, then the height; values are rounded after each.

    Returns (height, width, 3) uint8; `pixels` itself where it has that size already.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"pixels must be (h, w, 3) uint8, got {pixels.dtype} of shape {pixels.shape}")
    height, width = size
    if height < 1 or width < 1:
        raise ValueError(f"size must be (height, width) of at least 1 pixel each, got {size}")
    if pixels.shape[:2] == (height, width):
        return pixels
    # Pillow rounds in between, and from version 13 on the picture's shape decides which side comes first.
    image = PIL.Image.fromarray(pixels).resize((width, pixels.shape[0]), PIL.Image.Resampling.BILINEAR)
    return np.array(image.resize((width, height), PIL.Image.Resampling.BILINEAR))


def _open(file: BinaryIO) -> PIL.Image.Image:
    """Open a picture; nothing is decoded yet."""
    try:
        with without_limit() as limit:
            picture = PIL.Image.open(file, formats=FORMATS)
    except PIL.UnidentifiedImageError:
        raise ValueError(unknown_kind(file) or "it is no PNG, JPEG, TIFF, BMP or WebP file") from None
    check_size(picture, limit)
    check_values(picture)
    return picture


def wide_colour(data: Bytes, name: str) -> np.ndarray | None:
    """Return a file of 16-bit colour as (h, w, 3) uint16; None for any other.

    Pillow keeps the upper byte of each value. Told that the bytes lie the other way round, it takes the lower
    one for it. So the picture is decoded twice. It knows no other way round for grey with alpha.
    """
    with _readable(name):
        upper: Any = _open(io.BytesIO(data))
        if not _is_wide_colour(upper):
            return None
        lower: Any = _open(io.BytesIO(data))
        lower.tile = [_with_bytes_swapped(tile) for tile in lower.tile]
        with decoding(upper):
            high, low = (np.asarray(PIL.ImageOps.exif_transpose(half))[..., :3] for half in (upper, lower))
        return (high.astype(np.uint16) << 8) | low


def _is_wide_colour(picture: PIL.Image.Image) -> bool:
    """Whether a picture that is not loaded yet has 16-bit colour."""
    tiles: Any = getattr(picture, "tile", None) if picture.format in WIDE_FORMATS else None
    return bool(tiles) and all(WIDE.fullmatch(_raw_mode(tile)) for tile in tiles)


def _raw_mode(tile: Any) -> str:
    """Return how Pillow says that the values of a part of a picture lie in its file, such as "RGB;16B"."""
    return tile[3] if isinstance(tile[3], str) else str(tile[3][0])


def _with_bytes_swapped(tile: Any) -> tuple[Any, ...]:
    raw, native = _raw_mode(tile), "L" if sys.byteorder == "little" else "B"
    order = native if raw[-1] == "N" else raw[-1]
    raw = raw[:-1] + {"L": "B", "B": "L"}[order]
    return (*tile[:3], raw if isinstance(tile[3], str) else (raw, *tile[3][1:]))


def _is_wide_grey(picture: PIL.Image.Image) -> bool:
    return picture.mode == "I" or picture.mode.startswith("I;16")


@functools.cache
def _grey_levels(bit_depth: int) -> np.ndarray:
    """Return what each value of 16-bit data becomes, (65536,) uint8."""
    top = (1 << bit_depth) - 1
    values = np.arange(65536).clip(max=top)
    return ((values * 255 + top // 2) // top).astype(np.uint8)  # top is odd: nothing lies half-way


def _warn_of_depth(highest: int, bit_depth: int | None, name: str) -> None:
    """Warn, once for each depth, of values that are clipped, or that use little of a range not chosen."""
    if bit_depth is not None and highest >= 1 << bit_depth:
        text = (
            f"{name}: values reach {highest}, but the model's pictures have {bit_depth} bits, 0 to "
            f"{(1 << bit_depth) - 1}: those above are clipped, here and in all such pictures"
        )
        _warn_once(("clipped", bit_depth), text)
    elif bit_depth is None and (depth := depth_of(highest)) < BIT_DEPTHS[-1]:
        levels = int(_grey_levels(16)[highest])
        text = (
            f"{name}: values reach {highest} and are read as 16 bits, 0 to 65535: {levels} of 256 grey "
            f"levels are left. A model with bit_depth={depth} tells them apart"
        )
        _warn_once(("unknown", None), text)


def _warn_once(reason: tuple[str, int | None], text: str) -> None:
    if reason not in _told:
        _told.add(reason)
        logger.warning(text)


def _decode_lock(image: PIL.Image.Image) -> threading.Lock:
    """Return the lock of one Pillow image: reading decodes it in place, and threads may share it.

    Each image has a lock of its own, so that different images are decoded at the same time.
    """
    with _lock:
        return _decode_locks.setdefault(id(image), threading.Lock())


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a damaged picture into UnreadableImage."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # OSError, SyntaxError, KeyError, struct.error, zlib.error, ...
        reason = str(error) or "its file is closed"  # which Pillow merely asserts
        raise UnreadableImage(f"{name} cannot be read as a picture: {reason}") from error


def _from_pillow(picture: PIL.Image.Image, name: str, bit_depth: int | None) -> np.ndarray:
    """Return the pixels of a decoded Pillow image of any mode."""
    if 0 in picture.size:
        raise ValueError(f"{name}: image must have at least one pixel, got width and height {picture.size}")
    with _readable(name):
        if picture.mode == "F" or _is_wide_grey(picture):
            values = np.array(picture)
        else:
            # palettes: straight to RGB, Pillow warns of transparency; premultiplied colours need dividing
            detour = {"P": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}.get(picture.mode)
            picture = picture.convert(detour) if detour else picture
            return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))
    if picture.mode == "I":  # 32-bit integers: older Pillow returns 16-bit grey as these
        low, high = values.min(), values.max()
        if low < 0 or high > 65535:
            raise ValueError(f"{name}: integer pixels must lie in 0..65535, got {low}..{high}")
        values = values.astype(np.uint16)
    return _from_array(values, name, bit_depth)


def check_file(path: Path) -> Path:
    """Return the path of a regular file, or of a link to one; reading a pipe or a device may never end.

    Raises FileNotFoundError, IsADirectoryError, or UnreadableImage for a pipe, a socket or a device.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; a picture file is wanted")
    if not path.exists():
        raise FileNotFoundError(f"there is no picture file {path}")
    if not path.is_file():
        raise UnreadableImage(f"{path} cannot be read as a picture: it is a pipe, a socket or a device")
    return path


def _data_of(image: str | os.PathLike[str] | Bytes | File) -> Bytes:
    if isinstance(image, (str, os.PathLike)):
        return check_file(as_path(image)).read_bytes()
    return image if isinstance(image, BYTES) else read_file(image)


def _name_of(image: str | os.PathLike[str] | Bytes | File) -> str:
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    return "bytes" if isinstance(image, BYTES) else file_name(image) or "file"
