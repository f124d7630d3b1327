"""Finds pictures in directories, and lists those that a user passed."""

import contextlib
import io
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeGuard

import numpy as np
import PIL.Image

from destseg.files import as_path
from destseg.pictures.arrays import Tensor, as_array, is_tensor
from destseg.pictures.decoding import (
    BYTES,
    Image,
    check_file,
    file_name,
    is_file,
    pages_of,
    read_file,
    upright,
)
from destseg.pictures.layouts import namesakes, refuse_masks, refuse_others
from destseg.pictures.limit import without_limit

logger = logging.getLogger("destseg")

FEWEST_COLUMNS = 8  # of pictures in a stack: fewer are likely to be channels

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
"""Endings of picture files' names, in upper or lower case."""

UNKNOWN = (".heic", ".heif", ".jxl", ".exr", ".dcm", ".raw", ".cr3", ".npy", ".npz")
"""Endings of pictures that Pillow does not know by itself."""

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
    counts and names the files that are pictures in spite of their names, and another those whose names differ
    in their ending only.

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
    twins = namesakes(pictures)
    warn_about(
        "look at:", twins, "picture", "with the name of another but for its ending, its mask or a copy"
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
        UnreadableImage: a path leads to a pipe, a socket or a device. Those in a folder are listed: whoever
            reads the pictures leaves them out by name.
        ValueError: there is no picture, an array is not a picture, or some are masks.
        TypeError: source is of another type.
    """
    items = _items(source)
    sources = _all_sources(items)
    if len(sources) > 1 or _is_directory(items[0]):
        _refuse_masks(sources, items)
    return sources


def as_normals(source: Pictures) -> list[Source]:
    """List normal pictures as `as_pictures` does, each file once, but refuse what holds others beside them.

    These are the root of a data set, its test set, a folder of defects or masks in it, and a folder with a
    subfolder `good` (`ok`, `normal` ...) and pictures outside of that, or with a subfolder `bad` (`NG`,
    `defects` ...) or `test` and pictures outside of that; `destseg.pictures.layouts` has all names.

    Raises as `as_pictures`, and ValueError whose message says where the normal pictures lie.
    """
    items = _items(source)
    sources = _all_sources(items)
    _refuse_others(sources, items)
    return _once(sources)


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
        held = isinstance(source, (list, tuple))  # anything else may make its items as they are wanted
        items = list(source if held else map(_copied, source))
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
    one that is no picture becomes a `Source` with an error. Arrays, bytes, images and open files are copied:
    a camera may fill the same memory again, as `PIL.ImageSequence.Iterator` does with the pages of a file. So
    are those of any other iterable but a list or tuple, which holds its items itself. A generator is closed
    at the end, and where the consumer stops.

    Everything else, be it a list, a folder or an array, is taken as `as_pictures` takes it. Arguments and
    errors are as there; of an iterator without any picture ValueError comes when the first is wanted.
    """
    return _one_by_one(source, _refuse_masks) if _may_be_endless(source) else as_pictures(source)


def iterate_normals(source: Pictures) -> Iterable[Source]:
    """Return normal pictures: `as_normals`, but from an iterator one by one, as `iterate_pictures` does."""
    return _one_by_one(source, _refuse_others) if _may_be_endless(source) else as_normals(source)


def is_several(source: Pictures) -> bool:
    """Whether `as_pictures` takes this for a set of pictures (even of one), not for a single picture."""
    if isinstance(source, np.ndarray) or is_tensor(source):
        return _is_stack(source)
    if isinstance(source, (str, os.PathLike)):
        return as_path(source).is_dir()
    return not (isinstance(source, (*BYTES, PIL.Image.Image)) or is_file(source))


def _may_be_endless(source: Pictures) -> TypeGuard[Iterable[Image]]:
    return is_several(source) and isinstance(source, Iterable) and not isinstance(source, Collection)


def name_some(names: Sequence[object]) -> str:
    """Return the first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(str, names[:NAMED])) + more


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
    return isinstance(item, (str, os.PathLike)) and as_path(item).is_dir()


def _paths_of(sources: Sequence[Source]) -> list[Path]:
    return [Path(source.image) for source in sources if isinstance(source.image, (str, os.PathLike))]


def _refuse_masks(sources: Sequence[Source], _: Sequence[Image]) -> None:
    refuse_masks(_paths_of(sources))


def _refuse_others(sources: Sequence[Source], items: Sequence[Image]) -> None:
    """Refuse all but normal pictures; the sources are those of the items that a user passed."""
    refuse_others(_paths_of(sources), [as_path(item) for item in items if _is_directory(item)])


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
        return [Source(str(path), check_file(path))]
    if isinstance(item, PIL.Image.Image):
        return [Source(str(getattr(item, "filename", "") or name), item)]
    if is_file(item):
        return [Source(file_name(item) or name, read_file(item))]
    if not isinstance(item, BYTES):
        as_array(item, name)
    return [Source(name, item)]


def _once(sources: Sequence[Source]) -> list[Source]:
    """Return the sources without files that were listed before, which a warning names."""
    firsts: dict[object, Source] = {}
    for source in sources:
        path = os.path.realpath(source.image) if isinstance(source.image, Path) else None
        firsts.setdefault(path or source, source)
    once = {*firsts.values()}
    again = [source for source in sources if source not in once]
    warn_about("left out:", _paths_of(again), "picture", "listed before")
    return [source for source in sources if source in once]


def _one_by_one(
    items: Iterable[Image], refuse: Callable[[Sequence[Source], Sequence[Image]], None]
) -> Iterator[Source]:
    """Yield the pictures of an iterable that may be endless, see `iterate_pictures`.

    `refuse` raises the error of an item that is no wanted picture, by its sources and the item.
    """
    count, iterator = 0, iter(items)
    try:
        for item in iterator:
            name = f"picture {count}"
            try:
                sources = _sources_of(_copied(item), name)
                refuse(sources, [item])
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
    """Return a picture in memory of its own: the same buffer, open file or image may come again.

    A Pillow image of one page that is still in a file of its own stays there.
    """
    if is_file(item):  # at once: it may be closed before its turn comes
        file = io.BytesIO(read_file(item))
        file.name = file_name(item)
        return file
    if isinstance(item, np.ndarray):
        return item.copy()
    if isinstance(item, (bytearray, memoryview)):
        return bytes(item)
    if isinstance(item, PIL.Image.Image) and (
        pages_of(item) > 1 or not getattr(item, "tile", None) or not getattr(item, "filename", "")
    ):
        with contextlib.suppress(Exception):  # of a damaged one, as whoever decodes it tells
            return upright(item)  # a copy of it, or of its present page
    return item.clone() if is_tensor(item) else item
