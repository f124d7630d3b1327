"""One picture in, pixels out: everything that a user may hold becomes (h, w, 3) uint8."""

import contextlib
import io
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

if TYPE_CHECKING:
    import torch

    Tensor: TypeAlias = torch.Tensor
else:
    Tensor = Any  # torch is not imported for a type's name

Image: TypeAlias = str | os.PathLike[str] | bytes | bytearray | PIL.Image.Image | np.ndarray | Tensor
"""Everything that `to_rgb` takes as one picture."""

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")

_DTYPES = (np.bool_, np.uint8, np.uint16, np.float16, np.float32, np.float64)
_DTYPE_NAMES = "bool, uint8, uint16, float16, float32 or float64"
_open_lock = threading.Lock()
_decode_locks: weakref.WeakValueDictionary[int, threading.Lock] = weakref.WeakValueDictionary()


class UnreadableImage(ValueError):  # noqa: N818 - reads better where users catch it
    """A file or byte string is no picture, is damaged, or is too large to be decoded safely."""


def to_rgb(image: Image, name: str | None = None) -> np.ndarray:
    """Turn one picture of any kind into colour pixels.

    Grey is repeated over the three channels. An alpha channel is dropped: colours stay as they are stored,
    also where they are transparent. The full range is kept: uint16 0..65535 becomes value * 255 / 65535,
    rounded; floats must lie in [0, 1] and become value * 255, rounded; bool becomes 0 or 255.
    Pillow cuts files of 16-bit colour down to 8 bits; 16-bit grey keeps all.

    Args:
        image: one of
            a path to, or the bytes of, a PNG, JPEG, TIFF, BMP or WebP file, see `read_image`;
            a Pillow image: its current frame, turned as its EXIF orientation says;
            an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of bool, uint8, uint16, float16, float32 or
            float64;
            a tensor of the same shapes and dtypes on any device, or channels first, (1, h, w) or (3, h, w).
            Channels count as first when the first dimension is 1 or 3 and the last is none of 1, 3, 4.
        name: what error messages call the picture; by default its path, where it has one.

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
    if isinstance(image, (str, os.PathLike, bytes, bytearray)):
        name = name or _name_of(image)
        return _from_pillow(read_image(image, name), name)
    if isinstance(image, PIL.Image.Image):
        name = name or str(getattr(image, "filename", "") or "Pillow image")
        with _decode_lock(image), _readable(name):
            image = PIL.ImageOps.exif_transpose(image)  # always a copy
        return _from_pillow(image, name)
    pixels = as_array(image, name)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    elif pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    elif pixels.dtype != np.uint8:
        # a product in float16 would lose the last grey levels
        scaled = pixels.astype(np.promote_types(pixels.dtype, np.float32)) * 255
        pixels = np.rint(scaled).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 1:
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return np.array(pixels[:, :, :3], order="C")


def as_array(image: np.ndarray | Tensor, name: str | None = None) -> np.ndarray:
    """Check that an array or tensor is one picture, without converting its values.

    Args:
        image: as `to_rgb` takes it.
        name: what error messages call the picture.

    Returns:
        (h, w) or (h, w, 1 | 3 | 4) of the same dtype in native byte order, sharing memory where it can.

    Raises:
        ValueError: another shape, dtype or range.
        TypeError: neither array nor tensor.
    """
    label = f"{name}: image" if name else "image"
    if is_tensor(image):
        if str(image.dtype) == "torch.bfloat16":
            raise ValueError(f"{label} must be {_DTYPE_NAMES}, got bfloat16")
        pixels = image.detach().cpu().numpy()
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3, 4):
            pixels = pixels.transpose(1, 2, 0)
    elif isinstance(image, np.ndarray):
        pixels = image
    else:
        kinds = "a path, bytes, a Pillow image, a numpy array or a torch tensor"
        raise TypeError(f"{label} must be {kinds}, got {type(image).__name__}")
    got = f"got {pixels.dtype} of shape {pixels.shape}"
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        hint = ""
        if pixels.ndim == 3 and pixels.shape[0] in (1, 3, 4):
            move = "permute" if is_tensor(image) else "transpose"
            hint = f"; move the channels last with image.{move}(1, 2, 0)"
        raise ValueError(f"{label} must be (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), {got}{hint}")
    if 0 in pixels.shape:
        raise ValueError(f"{label} must have at least one pixel, {got}")
    native = pixels.dtype.newbyteorder("=")
    if native not in _DTYPES:
        raise ValueError(f"{label} must be {_DTYPE_NAMES}, {got}")
    if pixels.dtype.kind == "f":
        convert = "to(torch" if is_tensor(image) else "astype(numpy"
        _check_unit_range(pixels, label, convert)
    return pixels.astype(native, copy=False)


def read_image(image: str | os.PathLike[str] | bytes | bytearray, name: str | None = None) -> PIL.Image.Image:
    """Decode a picture file, given by path or as bytes.

    Takes the first frame or page and turns it as its EXIF orientation says. Reads sizes of up to twice
    `PIL.Image.MAX_IMAGE_PIXELS` (2 x 89 million pixels unless changed) without a warning.

    Raises:
        FileNotFoundError, IsADirectoryError: the path leads to no file.
        UnreadableImage: the file is no such picture, damaged or too large; the message gives Pillow's reason.
    """
    name = name or _name_of(image)
    data = image if isinstance(image, (bytes, bytearray)) else _check_file(Path(image)).read_bytes()
    if not data:
        raise UnreadableImage(f"{name} cannot be read as a picture: it is empty")
    with _readable(name):
        # catch_warnings changes the whole process: the lock keeps our own threads from undoing each other
        with _open_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            picture = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
        PIL.ImageOps.exif_transpose(picture, in_place=True)
    return picture


def read_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Return the height and width of a picture file, turned as its EXIF orientation says, from its header.

    Raises:
        FileNotFoundError, IsADirectoryError, UnreadableImage: as `read_image`, as far as the header tells.
    """
    path = _check_file(Path(path))
    with _readable(str(path)), _open_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        with PIL.Image.open(path, formats=FORMATS) as picture:
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


def is_tensor(value: Any) -> TypeGuard[Tensor]:
    """Whether this is a torch tensor, without importing torch: whoever holds one has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _decode_lock(image: PIL.Image.Image) -> threading.Lock:
    """Return the lock of one Pillow image: reading decodes it in place, and threads may share it.

    Each image has a lock of its own, so that different images are decoded at the same time.
    """
    with _open_lock:
        return _decode_locks.setdefault(id(image), threading.Lock())


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a damaged picture into UnreadableImage."""
    try:
        yield
    except MemoryError:
        raise
    except PIL.UnidentifiedImageError:
        reason = "it is no PNG, JPEG, TIFF, BMP or WebP file"
        raise UnreadableImage(f"{name} cannot be read as a picture: {reason}") from None
    except Exception as error:  # OSError, SyntaxError, KeyError, struct.error, zlib.error, ...
        raise UnreadableImage(f"{name} cannot be read as a picture: {error}") from error


def _from_pillow(picture: PIL.Image.Image, name: str) -> np.ndarray:
    """Return the pixels of a decoded Pillow image of any mode."""
    if 0 in picture.size:
        raise ValueError(f"{name}: image must have at least one pixel, got width and height {picture.size}")
    with _readable(name):
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
            values = np.array(picture)
        else:
            # palettes: straight to RGB, Pillow warns of transparency; premultiplied colours need dividing
            detour = {"P": "RGBA", "PA": "RGBA", "RGBa": "RGBA", "La": "LA"}.get(picture.mode)
            return np.array((picture.convert(detour) if detour else picture).convert("RGB"))
    if picture.mode == "I":  # 32-bit integers: older Pillow returns 16-bit grey as these
        low, high = values.min(), values.max()
        if low < 0 or high > 65535:
            raise ValueError(f"{name}: integer pixels must lie in 0..65535, got {low}..{high}")
        values = values.astype(np.uint16)
    return to_rgb(values, name)


def _check_unit_range(pixels: np.ndarray, label: str, convert: str) -> None:
    low, high = pixels.min(), pixels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{label} of floats must lie in [0, 1], got NaN or infinity")
    if low < 0 or high > 1:
        hint = ""
        if low >= 0 and high <= 255:
            hint = f"; for grey levels 0..255 convert with image.{convert}.uint8)"
        elif low >= 0 and high <= 65535:
            hint = f"; for grey levels 0..65535 convert with image.{convert}.uint16)"
        raise ValueError(f"{label} of floats must lie in [0, 1], got values from {low:g} to {high:g}{hint}")


def _check_file(path: Path) -> Path:
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; a picture file is wanted")
    if not path.exists():
        raise FileNotFoundError(f"there is no picture file {path}")
    return path


def _name_of(image: str | os.PathLike[str] | bytes | bytearray) -> str:
    return "bytes" if isinstance(image, (bytes, bytearray)) else os.fspath(image)
