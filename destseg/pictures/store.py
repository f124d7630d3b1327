"""Many pictures as network inputs, decoded once and kept in memory up to a bound; the rest are read again."""

import copy
import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from destseg.pictures.decoding import UnreadableImage, depth_of, highest_value, rgb_within_budget
from destseg.pictures.folders import Source
from destseg.pictures.framing import Frame, Framing, View
from destseg.pictures.prefetch import prefetch
from destseg.progress import bar

logger = logging.getLogger("destseg")

T = TypeVar("T")

MEMORY = 2 << 30  # bytes of decoded pictures that a store keeps
TOO_LARGE = "there is not enough memory for this picture"
FINE = 512  # pixels along a side, above which some are enough to tell which levels a picture has


class Picture(NamedTuple):
    """A decoded picture."""

    pixels: np.ndarray  # (h, w, 3) uint8, the picture itself; from a store: scaled
    view: View  # the picture as a framing scales it


def read(
    source: Source, framing: Framing, change: Callable[[np.ndarray], np.ndarray] | None = None
) -> Picture:
    """Decode and scale one picture; in between, `change` may turn its pixels into others of the same size.

    Raises ValueError, naming the picture, where no pixel of the region of interest lies in it. There must be
    one both at the scaled size, at which it is scored, and at its own size, which its map has.
    """
    if source.error is not None:
        raise source.error
    with rgb_within_budget(source.image, source.name, framing.bit_depth) as pixels:
        if change is not None:
            pixels = change(pixels)
        view = framing.view(pixels)
    try:
        framing.roi_mask(view)
        if framing.roi is not None:
            framing.roi.mask(view.size)
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}") from error
    return Picture(pixels, view)


class PictureStore:
    """Network inputs, all of one size, from the readable pictures of a list; safe to read from threads.

    A picture gives one input, or one for each of its tiles in which some pixel counts, as `Framing` says.
    Every picture is decoded once at the start. Broken pictures show then: each is reported by name and left
    out. As many scaled pictures as fit into `memory` bytes are kept; the others are decoded again whenever
    one of their inputs is read. One that cannot be read any more then, or is another picture, is left out by
    name from then on: the next one is drawn in its stead.

    Args:
        sources: the pictures, as `destseg.pictures.folders.as_pictures` lists them.
        framing: how they become inputs.
        memory: bound in bytes on the scaled pictures kept, h * w * 3 each.
        strict: raise at the first broken picture instead of leaving it out, also later.
        progress: show a progress bar, see `destseg.progress.Bar`.

    Attributes:
        sources: the readable pictures.
        sizes: height and width of each.
        flat: those of one colour throughout.
        levels: (256,) how many values of all of them, once scaled, have each level; of large ones a part.
        checksum: CRC-32 of the pixels of all readable pictures; a subset keeps the checksum of the whole.

    Raises:
        ValueError: no picture can be read, or one cannot and `strict` is set. A picture in which no pixel of
            the region of interest lies counts as broken.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        framing: Framing,
        memory: int = MEMORY,
        strict: bool = False,
        progress: bool = True,
    ) -> None:
        self.framing = framing
        self.sources: list[Source] = []
        self.sizes: list[tuple[int, int]] = []
        self.flat: list[Source] = []
        self.levels = np.zeros(256, np.int64)
        self.checksum = 0
        self._digests: dict[Source, bytes] = {}
        self._views: dict[Source, View | None] = {}  # None: decoded again at every reading
        self._frames: list[list[Frame]] = []  # of each picture
        self._strict = strict
        self._lost: set[Source] = set()  # those that could be read at first; subsets share it
        failures = Failures(strict)
        read_all = prefetch(partial(_attempted_view, framing=framing), sources, _threads())
        with closing(read_all) as views:  # its threads end here, also after an error
            shown = bar(views, "reading", len(sources), leave=False, wanted=progress)
            for source, found in zip(sources, shown, strict=True):
                if isinstance(found, Exception):
                    failures.add(found)
                else:
                    view, digest = found
                    self.checksum = zlib.crc32(view.pixels.data, self.checksum)
                    self._digests[source] = digest
                    self._frames.append(framing.frames(view))
                    memory -= view.pixels.nbytes
                    self._views[source] = view if memory >= 0 else None
                    self.sources.append(source)
                    self.sizes.append(view.size)
                    step = 1 + max(view.pixels.shape) // FINE
                    self.levels += np.bincount(view.pixels[::step, ::step].ravel(), minlength=256)
                    if (view.pixels == view.pixels[0, 0]).all():
                        self.flat.append(source)
        failures.report(len(sources))
        self._places = _places(self._frames)

    @property
    def digests(self) -> list[bytes]:
        """One for each picture; equal ones mean equal scaled pixels."""
        return [self._digests[source] for source in self.sources]

    @property
    def pictures(self) -> int:
        """How many pictures there are; each has at least one input."""
        return len(self.sources)

    @property
    def views(self) -> list[View | None]:
        """The scaled pictures that are kept in memory; None in place of the others."""
        return [self._views[source] for source in self.sources]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every input."""
        return self.framing.size

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return an input, (h, w, 3) uint8."""
        return self.input(index)[0]

    def input(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return an input, (h, w, 3) uint8, and which of its pixels count, (h, w) bool; None: all of them."""
        return self.readable_input(index)[1:]

    def readable_input(self, index: int) -> tuple[int, np.ndarray, np.ndarray | None]:
        """Return an input and what counts, as `input` does, behind its index.

        That is `index`, unless its picture cannot be read any more; then it is the next one that can be.
        """
        error: Exception | None = None
        for place in (*range(index, len(self)), *range(index)):
            picture, frame = self._places[place]
            source = self.sources[picture]
            if source in self._lost:
                continue
            found = attempt(partial(self.picture, source), source.name)
            if not isinstance(found, Exception):
                return place, self.framing.cut(found.view, frame), self.framing.input_roi(found.view, frame)
            if self._strict:
                raise found
            self._lost.add(source)
            logger.warning("left out from now on: %s", found)
            error = found
        raise ValueError("none of the pictures can be read any more") from error

    def picture_of(self, index: int) -> int:
        """Return the number of the picture that an input is cut out of."""
        return self._places[index][0]

    def picture(self, source: Source) -> Picture:
        """Return one of the store's pictures; in place of its own pixels a kept one gives the scaled ones.

        Raises what reading it raises, and ValueError if it is another picture than at first.
        """
        view = self._views[source]
        if view is not None:
            return Picture(view.pixels, view)
        picture = read(source, self.framing)
        if _digest(picture.view) != self._digests[source]:
            raise ValueError(
                f"{source.name} is another picture than at first: files must stay while they are used"
            )
        return picture

    def subset(self, pictures: Sequence[int]) -> "PictureStore":
        """Return a store of some of the pictures, in the given order, that shares this one's memory."""
        part = copy.copy(self)
        part.sources = [self.sources[picture] for picture in pictures]
        part._views = {source: self._views[source] for source in part.sources}
        part.sizes = [self.sizes[picture] for picture in pictures]
        part.flat = [source for source in self.flat if source in part._views]
        part._frames = [self._frames[picture] for picture in pictures]
        part._places = _places(part._frames)
        return part


def learn_bit_depth(sources: Sequence[Source]) -> int | None:
    """Return the smallest of BIT_DEPTHS that no value of 16-bit data exceeds; None if none is 16-bit data.

    Pictures that cannot be read do not count.
    """
    values = prefetch(
        lambda source: attempt(lambda: highest_value(source.image), source.name), sources, _threads()
    )
    highest = max((value for value in values if isinstance(value, int)), default=None)
    return None if highest is None else depth_of(highest)


class Failures:
    """Counts pictures that cannot be read. Warns of each by name, or with `strict` raises its error."""

    def __init__(self, strict: bool = False) -> None:
        self.strict, self.count = strict, 0
        self.first: Exception | None = None

    def add(self, error: Exception) -> None:
        """Report the error of one picture; its message names the picture."""
        if self.strict:
            raise error
        logger.warning("left out: %s", error)
        self.count, self.first = self.count + 1, self.first or error

    def report(self, pictures: int) -> None:
        """Say how many of all pictures were left out; raise ValueError if none is left."""
        if self.first and self.count == pictures:
            raise ValueError(f"none of {pictures} pictures can be read; the first: {self.first}")
        if self.count:
            logger.warning("left out %d of %d pictures", self.count, pictures)


def attempt(read: Callable[[], T], name: str) -> T | Exception:
    """Return the result of `read`, or the error that a broken or too large picture of this name raises."""
    try:
        return read()
    except (OSError, ValueError, TypeError) as error:
        return error
    except MemoryError:
        return UnreadableImage(f"{name}: {TOO_LARGE}")


def _attempted_view(source: Source, framing: Framing) -> tuple[View, bytes] | Exception:
    """Return a scaled picture and its digest, or the error that kept it from being read."""

    def view_and_digest() -> tuple[View, bytes]:
        view = read(source, framing).view
        return view, _digest(view)

    return attempt(view_and_digest, source.name)


def _digest(view: View) -> bytes:
    """Return the digest of a scaled picture's shape and pixels."""
    digest = hashlib.blake2b(str(view.pixels.shape).encode(), digest_size=16)
    digest.update(view.pixels.data)
    return digest.digest()


def _threads() -> int:
    return min(8, os.cpu_count() or 1)


def _places(frames: Sequence[Sequence[Frame]]) -> list[tuple[int, Frame]]:
    """Return the picture and the frame of every input."""
    return [(picture, frame) for picture, several in enumerate(frames) for frame in several]
