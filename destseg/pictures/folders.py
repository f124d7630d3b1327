"""Finds pictures in directories, and lists those that a user passed."""

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeGuard

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
)
from destseg.pictures.limit import without_limit

logger = logging.getLogger("destseg")

FEWEST_COLUMNS = 8  # of pictures in a stack: fewer are likely to be channels

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""Endings of picture files' names, in upper or lower case."""

UNKNOWN = (".heic", ".heif", ".raw", ".npy")  # endings of pictures that Pillow does not know by itself
MASKS, MASK = ("ground_truth", "masks"), "_mask"  # names of folders of masks, in lower case; of a mask's end
NORMAL = (
    "good",
    "ok",
    "okay",
    "normal",
    "defectfree",
    "nodefect",
    "anomalyfree",
)  # what normal parts are called
NAMED = 3  # pictures that one message names

Pictures: TypeAlias = Image | Iterable[Image]
"""Everything that `as_pictures` takes: a directory, one picture, or several."""


@dataclass(frozen=True, eq=False)
class Source:
    """One picture, not yet decoded, and its name: its path, or else "picture 0", "picture 1" ...

    The error says why an item that came from an iterator is no picture; in a list it would have been raised.
    """

    name: str
    image: Image
    error: Exception | None = None


def picture_paths(directory: str | os.PathLike[str]) -> list[Path]:
    """List every picture file below a directory, at any depth, sorted by path.

    A picture is a file whose name ends in one of SUFFIXES; `visible_files` tells which are found. A warning
    counts and names the files that are pictures in spite of their names.

    Raises:
        FileNotFoundError, NotADirectoryError, PermissionError: the path leads to no directory, or it cannot
            be listed.
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
    other = [path for path in files if not is_picture(path) and _is_another_picture(path)]
    warn_about(
        "left out:", other, "picture", f"of another kind; only files ending in {', '.join(SUFFIXES)} are read"
    )
    return pictures


def visible_files(directory: Path) -> list[Path]:
    """List all files below a directory, in no order.

    Hidden files and directories (leading dot) are left out. Links to directories are followed, but none that
    leads upwards, and each directory is listed once. Warnings name such links, and what cannot be listed.
    There are none below a directory that does not exist.

    Raises PermissionError if the directory itself cannot be listed.
    """
    files: list[Path] = []
    locked: list[Path] = []
    ended: list[Path] = []
    top = os.path.realpath(directory)
    links: list[Path] = [directory] if directory.exists() else []
    seen: set[str] = set()
    for link in links:  # which become more meanwhile; real directories come before links to them
        target = os.path.realpath(link)
        bases = (top, os.path.realpath(link.parent)) if seen else ()
        if target in seen or any(Path(base).is_relative_to(target) for base in bases):
            ended.append(link)
            continue
        for folder, subfolders, names in os.walk(link, onerror=lambda e: locked.append(Path(e.filename))):
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            links += [Path(folder, name) for name in subfolders if os.path.islink(os.path.join(folder, name))]
            found = [Path(folder, name) for name in names if not name.startswith(".")]
            locked.extend(
                path for path in found if not is_picture(path) and not path.exists()
            )  # broken links
            files += found
    if directory in locked:
        raise PermissionError(f"{directory} cannot be listed")
    warn_about("left out:", locked, "folder", "that cannot be listed")
    warn_about("not followed:", ended, "link", "to folders above, or listed already")
    return files


def as_pictures(source: Pictures) -> list[Source]:
    """List the pictures that a user passed, with names for messages and tables, without decoding files.

    Paths and arrays are checked here, so that a long run fails at its start, not at its thousandth picture.
    Masks of defects are refused, unless one is given alone: they are no pictures of parts.

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
        ValueError: there is no picture, an array is not a picture, or some are masks.
        TypeError: source is of another type.
    """
    items = _items(source)
    sources = _all_sources(items)
    if len(sources) > 1 or _is_directory(items[0]):
        _refuse_masks(sources, "test")
    return sources


def as_normals(source: Pictures) -> list[Source]:
    """List normal pictures as `as_pictures` does, but refuse what holds others beside them.

    These are the root of a data set, its test set, a folder of defects or masks in it, and a folder with a
    subfolder `good` (`ok`, `normal` ...) and pictures outside of that.

    Raises as `as_pictures`, and ValueError whose message says where the normal pictures lie.
    """
    items = _items(source)
    sources = _all_sources(items)
    _refuse_masks(sources, "normal")
    for folder, path in _folders_of(sources).items():
        root = _root_of_defects(folder)
        if root is not None:
            raise _refusal(f"{path} lies in a test set, among pictures of defects", root, "normal")
    for item in items:
        if _is_directory(item) and not is_normal(Path(os.path.abspath(item)).name):
            below = [path.relative_to(item) for path in _paths_of(sources) if path.is_relative_to(item)]
            within = [len(path.parts) > 1 and is_normal(path.parts[0]) for path in below]
            if any(within) and not all(within):
                text = f"{Path(item) / below[within.index(False)]} lies beside the normal pictures"
                raise _refusal(text, Path(os.path.abspath(item)), "normal")
    return sources


def _items(source: Pictures) -> list[Image]:
    """Return the pictures and directories that a user passed, as a list of at least one."""
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
    return items


def _all_sources(items: Sequence[Image]) -> list[Source]:
    sources: list[Source] = []
    for item in items:
        sources += _sources_of(item, f"picture {len(sources)}")
    return sources


def iterate_pictures(source: Pictures) -> Iterable[Source]:
    """Return the pictures that a user passed, and take those of an iterator when they are wanted, one by one.

    An iterator, such as a generator of a camera's frames, may be endless. Its items are checked as they come:
    one that is no picture becomes a `Source` with an error. Arrays are copied: a camera may fill the same
    memory again. A generator is closed at the end, and where the consumer stops.

    Everything else, be it a list, a folder or an array, is taken as `as_pictures` takes it. Arguments and
    errors are as there; of an iterator without any picture ValueError comes when the first is wanted.
    """
    if is_several(source) and isinstance(source, Iterable) and not isinstance(source, Collection):
        return _one_by_one(source)
    return as_pictures(source)


def is_several(source: Pictures) -> bool:
    """Whether `as_pictures` takes this for a set of pictures (even of one), not for a single picture."""
    if isinstance(source, np.ndarray) or is_tensor(source):
        return _is_stack(source)
    if isinstance(source, (str, os.PathLike)):
        return as_path(source).is_dir()
    return not (isinstance(source, (*BYTES, PIL.Image.Image)) or is_file(source))


def name_some(names: Sequence[object]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(str, names[:NAMED])) + more


def is_normal(folder: str) -> bool:
    """Whether a folder's name says that it holds normal pictures: good, OK, Normal, defect-free ..."""
    return re.sub("[^a-z]", "", folder.lower()) in NORMAL


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def warn_about(what: str, paths: Sequence[Path], noun: str, reason: str) -> None:
    """Log a warning that counts and names paths, if there are any."""
    if paths:
        plural = "s" if len(paths) > 1 else ""
        logger.warning("%s %d %s%s %s: %s", what, len(paths), noun, plural, reason, name_some(sorted(paths)))


def _is_another_picture(path: Path) -> bool:
    """Whether a file of another ending is a picture."""
    if not path.is_file():
        return False
    try:
        with without_limit(), PIL.Image.open(path):
            return True
    except Exception:  # whatever Pillow raises on what is no picture
        return path.suffix.lower() in UNKNOWN


def _is_directory(item: Image) -> TypeGuard[str | os.PathLike[str]]:
    return isinstance(item, (str, os.PathLike)) and Path(item).is_dir()


def _folders_of(sources: Sequence[Source]) -> dict[Path, Path]:
    """Return the absolute folders in which pictures lie, each with the first of them."""
    folders: dict[Path, Path] = {}
    for path in _paths_of(sources):
        folders.setdefault(Path(os.path.abspath(path.parent)), path)
    return folders


def _paths_of(sources: Sequence[Source]) -> list[Path]:
    return [Path(source.image) for source in sources if isinstance(source.image, (str, os.PathLike))]


def _refuse_masks(sources: Sequence[Source], wanted: str) -> None:
    """Raise ValueError if some pictures are masks, by their folder or by their names."""
    for folder, path in _folders_of(sources).items():
        root = _root_of_masks(folder)
        if root is not None:
            raise _refusal(f"{path} is the mask of a defect", root, wanted)
    paths = _paths_of(sources)
    stems = {path.with_suffix("") for path in paths}
    masks = [path for path in paths if path.stem.endswith(MASK)]
    if masks and len(masks) < len(sources):  # one in ten at least: a ski mask is a picture, even beside a ski
        masks = [path for path in masks if path.with_name(path.stem.removesuffix(MASK)) in stems]
        masks = masks if len(masks) >= len(sources) / 10 else []
    if masks:
        raise _refusal(f"{masks[0]} is the mask of a defect, by its name", None, wanted)


def _root_of_masks(folder: Path) -> Path | None:
    """Return the folder of the data set if this one, absolute, lies among its masks."""
    for place in (folder, *folder.parents):
        name = place.name.lower()
        if name in ("train", "test"):
            return None
        if name == MASKS[0] or (name in MASKS and _child(place.parent, "images") is not None):
            return place.parent
    return None


def _root_of_defects(folder: Path) -> Path | None:
    """Return the folder of the data set if this one, absolute, lies in its test set, but not in `good`."""
    chain = [*reversed(folder.parents), folder]
    for place, below in zip(chain, [*chain[1:], None], strict=True):
        if place.name.lower() != "test" or (below is not None and is_normal(below.name)):
            continue
        if (place.parent / MASKS[0]).is_dir() or _normals_in(place.parent / "train") is not None:
            return place.parent
    return None


def _refusal(text: str, root: Path | None, wanted: str) -> ValueError:
    """Return an error that names the place of the wanted pictures, "test" or "normal", in a data set."""
    place = None
    if root is not None and wanted == "test":
        place = _child(root, "test") or _child(root, "images")
    elif root is not None:
        places = (root / "train", root, root / "Images", root / "images")
        place = next(filter(None, map(_normals_in, places)), None)
    kind = "pictures of parts" if wanted == "test" else "normal pictures"
    if place is None:
        return ValueError(f"{text}; pass files or folders of {kind} only")
    here = Path.cwd()
    shown = place.relative_to(here) if place.is_relative_to(here) else place
    return ValueError(f"{text}, and {kind} are wanted: did you mean {shown}?")


def _normals_in(folder: Path) -> Path | None:
    """Return the subfolder of normal pictures."""
    return next((path for path in _subfolders(folder) if is_normal(path.name)), None)


def _child(folder: Path, name: str) -> Path | None:
    return next((path for path in _subfolders(folder) if path.name.lower() == name), None)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


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


def _one_by_one(items: Iterable[Image]) -> Iterator[Source]:
    """Yield the pictures of an iterable that may be endless, see `iterate_pictures`."""
    count, iterator = 0, iter(items)
    try:
        for item in iterator:
            name = f"picture {count}"
            try:
                sources = _sources_of(_copied(item), name)
            except (OSError, ValueError, TypeError) as error:
                named = os.fspath(item) if isinstance(item, (str, os.PathLike)) else name
                sources = [Source(named, item, error)]
            count += len(sources)
            yield from sources
    finally:
        if isinstance(iterator, Generator):
            iterator.close()
    if not count:
        raise ValueError("there must be at least one picture, got none")


def _copied(item: Image) -> Image:
    """Return a picture in memory of its own."""
    if isinstance(item, (np.ndarray, bytearray)):
        return item.copy()
    return item.clone() if is_tensor(item) else item
