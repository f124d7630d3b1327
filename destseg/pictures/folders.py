"""Finds pictures in directories, and pairs those of the MVTec layout with their masks."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import PIL.Image

from destseg.files import as_path
from destseg.pictures.decoding import (
    BYTES,
    Image,
    Tensor,
    as_array,
    file_name,
    is_file,
    is_tensor,
    read_file,
    read_image,
    to_rgb,
)

FEWEST_COLUMNS = 8  # of pictures in a stack: fewer are likely to be channels

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""Endings of picture files' names, in upper or lower case."""

Pictures: TypeAlias = Image | Iterable[Image]
"""Everything that `as_pictures` takes: a directory, one picture, or several."""


@dataclass(frozen=True, eq=False)
class Source:
    """One picture, not yet decoded, and its name: its path, or else "picture 0", "picture 1" ..."""

    name: str
    image: Image


@dataclass(frozen=True)
class Sample:
    """One test picture of the MVTec layout. The mask is None exactly for pictures of normal parts."""

    path: Path
    defect: str
    mask_path: Path | None

    @property
    def is_anomalous(self) -> bool:
        """Whether the picture lies in another folder than `good`."""
        return self.defect != "good"


def picture_paths(directory: str | os.PathLike[str]) -> list[Path]:
    """List every picture file below a directory, at any depth, sorted by path.

    A picture is a file whose name ends in one of SUFFIXES. Hidden files and directories (leading dot) do not
    count, and links to directories are not followed.

    Raises:
        FileNotFoundError, NotADirectoryError: the path leads to no directory.
        ValueError: there is no picture; the message says what there is instead.
    """
    directory = as_path(directory)
    if not directory.exists():
        raise FileNotFoundError(f"there is no directory {directory}")
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is a file; a directory of pictures is wanted")
    files = visible_files(directory)
    pictures = sorted(filter(is_picture, files), key=Path.as_posix)
    if not pictures:
        raise ValueError(f"{directory} holds no pictures: {_what_instead(files)}")
    return pictures


def visible_files(directory: Path) -> list[Path]:
    """List all files below a directory, in no order; hidden files and directories are left out."""
    files: list[Path] = []
    for folder, subfolders, names in os.walk(directory):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        files += [Path(folder, name) for name in names if not name.startswith(".")]
    return files


def as_pictures(source: Pictures) -> list[Source]:
    """List the pictures that a user passed, with names for messages and tables, without decoding files.

    Paths and arrays are checked here, so that a long run fails at its start, not at its thousandth picture.

    Args:
        source: one of
            a directory: all its pictures, as `picture_paths` lists them;
            one picture: anything that `destseg.pictures.decoding.to_rgb` takes;
            a stack of pictures of the dtypes that `to_rgb` takes: an array or tensor (n, h, w, 3), in RGB,
            or (n, h, w) whose last dimension is none of 1, 3, 4; also a tensor (n, 3, h, w). A stack that may
            be one colour picture, channels first, is refused: pass 3 or 4 grey pictures as a list;
            a list, tuple or other iterable of pictures and directories.

    Raises:
        FileNotFoundError: a path leads nowhere.
        ValueError: there is no picture, or an array is not a picture.
        TypeError: source is of another type.
    """
    if isinstance(source, np.ndarray) or is_tensor(source):
        items: list[Image] = list(source) if _is_stack(source) else [source]
        if isinstance(source, np.ndarray) and source.dtype == object:
            raise ValueError(
                f"an array of pictures must have one dtype and one size, got {source.dtype} of shape "
                f"{source.shape}; pass pictures of several sizes as a list"
            )
    elif isinstance(source, (str, os.PathLike, *BYTES, PIL.Image.Image)) or is_file(source):
        items = [source]
    elif isinstance(source, Iterable):
        items = list(source)
    else:
        kinds = "a directory, a picture, an array (n, h, w, 3), or a list of pictures"
        raise TypeError(f"pictures must be {kinds}, got {type(source).__name__}")
    if not items:
        raise ValueError("there must be at least one picture, got none")
    sources: list[Source] = []
    for item in items:
        sources += _sources_of(item, f"picture {len(sources)}")
    return sources


def is_several(source: Pictures) -> bool:
    """Whether `as_pictures` takes this for a set of pictures (even of one), not for a single picture."""
    if isinstance(source, np.ndarray) or is_tensor(source):
        return _is_stack(source)
    if isinstance(source, (str, os.PathLike)):
        return as_path(source).is_dir()
    return not (isinstance(source, (*BYTES, PIL.Image.Image)) or is_file(source))


def read_mvtec(directory: str | os.PathLike[str]) -> list[Sample]:
    """List the test pictures of a data set in the MVTec layout, sorted by defect and name.

    Pictures lie in `test/<defect>/<name>.<suffix>`, those of normal parts in `test/good`. The mask of a
    defect is `ground_truth/<defect>/<name>_mask.<suffix>`, or else `<name>.<suffix>` in the same directory.

    Raises:
        FileNotFoundError: the `test` directory or a mask is missing.
        ValueError: `test` holds no pictures.
    """
    directory = as_path(directory)
    test = directory / "test"
    if not test.is_dir():
        raise FileNotFoundError(
            f"{directory} is not in the MVTec layout: there is no directory {test}, "
            "which should hold good/ and one directory per defect"
        )
    samples: list[Sample] = []
    for folder in _visible(test):
        if folder.is_dir():
            masks = directory / "ground_truth" / folder.name
            for path in filter(is_picture, _visible(folder)):
                mask_path = None if folder.name == "good" else _mask_path(path, masks)
                samples.append(Sample(path, folder.name, mask_path))
    if not samples:
        raise ValueError(f"{test} holds no pictures: they should lie in good/ and one directory per defect")
    return samples


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a ground-truth mask, (h, w) bool, True on the defect.

    A pixel is True where its value is at least half of full scale. Full scale is the smallest of 1, 255 and
    65535 that no value exceeds, so masks of 0 and 1 work like masks of 0 and 255. The value of a colour is
    its strongest channel.

    Raises:
        FileNotFoundError, IsADirectoryError, UnreadableImage: see `destseg.pictures.decoding.read_image`.
    """
    picture = read_image(path)
    if picture.mode in ("L", "I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
    else:
        values = to_rgb(picture, os.fspath(path)).max(axis=2)
    full_scale = next((full for full in (1, 255) if values.max() <= full), 65535)
    return values >= full_scale / 2


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _visible(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if not path.name.startswith("."))


def _what_instead(files: list[Path]) -> str:
    """Say in words what a directory without pictures holds."""
    if not files:
        return "it is empty"
    endings = Counter(path.suffix.lower() or "no ending" for path in files)
    found = ", ".join(f"{count} x {ending}" for ending, count in endings.most_common(4))
    count = f"{len(files)} file{'s' if len(files) > 1 else ''}"
    return f"{count} ({found}), such as {min(files).name}, none ending in {', '.join(SUFFIXES)}"


def _is_stack(pixels: np.ndarray | Tensor) -> bool:
    """Whether an array holds several pictures, and not one in colour, (h, w, 3) or as a tensor (3, h, w).

    Raises ValueError for arrays that may be either.
    """
    if pixels.ndim != 3:
        return pixels.ndim == 4
    count, height, width = pixels.shape
    if width in (1, 3, 4) or (is_tensor(pixels) and count in (1, 3)):
        return False
    if count in (3, 4):
        turned = "image.permute(1, 2, 0)" if is_tensor(pixels) else "np.transpose(image, (1, 2, 0))"
        raise ValueError(
            f"an array of shape {tuple(pixels.shape)} may be one colour picture or {count} grey ones: "
            f"for one pass {turned}, for several list(images)"
        )
    if width < FEWEST_COLUMNS <= min(count, height):
        raise ValueError(
            f"an array of shape {tuple(pixels.shape)} may be {count} pictures of {height} x {width} pixels, "
            f"or one of {width} channels: pass pictures as a list; one may have 1, 3 or 4 channels"
        )
    return True


def _sources_of(item: Image, name: str) -> list[Source]:
    """Return the pictures of a directory, or else the one picture, checked as far as that is cheap."""
    if isinstance(item, (str, os.PathLike)):
        path = as_path(item)
        if path.is_dir():
            return [Source(str(picture), picture) for picture in picture_paths(path)]
        if not path.exists():
            raise FileNotFoundError(f"there is no picture or directory {path}")
        return [Source(str(path), path)]
    if isinstance(item, PIL.Image.Image):
        return [Source(str(getattr(item, "filename", "") or name), item)]
    if is_file(item):  # read at once: it may be closed before its turn comes
        return [Source(file_name(item) or name, read_file(item))]
    if not isinstance(item, BYTES):
        as_array(item, name)
    return [Source(name, item)]


def _mask_path(picture: Path, masks: Path) -> Path:
    """Find the mask of a defect picture."""
    for stem in (f"{picture.stem}_mask", picture.stem):
        for suffix in SUFFIXES:
            for path in (masks / f"{stem}{suffix}", masks / f"{stem}{suffix.upper()}"):
                if path.is_file():
                    return path
    raise FileNotFoundError(f"{picture} has no mask: expected {masks / f'{picture.stem}_mask.png'}")
