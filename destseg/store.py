"""Many pictures as network inputs: decoded once, kept in memory within a bound, read again beyond it."""

import copy
import logging
import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from destseg.folders import Source
from destseg.framing import Frame, Framing, View
from destseg.images import to_rgb

logger = logging.getLogger("destseg")

T = TypeVar("T")

MEMORY = 2 << 30  # bytes of decoded pictures that a store keeps


def decode(source: Source, framing: Framing) -> View:
    """Return one picture, scaled by the framing."""
    return viewed(to_rgb(source.image, source.name), source, framing)


def viewed(pixels: np.ndarray, source: Source, framing: Framing) -> View:
    """Scale a decoded picture; raises ValueError, naming it, where it has none of the region of interest.

    It must have some both scaled, where it is scored, and at its own size, where its map is handed out.
    """
    view = framing.view(pixels)
    try:
        framing.region(view)
        if framing.roi is not None:
            framing.roi.mask(view.size)
    except ValueError as error:
        raise ValueError(f"{source.name}: {error}") from error
    return view


class PictureStore:
    """The network inputs of the readable ones of some pictures, all of one size; safe to read from threads.

    A picture gives one input, or one for each of its tiles in which something counts; `destseg.framing` says
    which. Every picture is decoded once at the start, which finds the broken ones: each is reported by name
    and left out. As many as fit into `memory` bytes are kept, scaled; the others are decoded again whenever
    one of their inputs is read.

    Args:
        sources: the pictures, as `destseg.folders.as_pictures` lists them.
        framing: how they become inputs.
        memory: bound in bytes on the scaled pictures kept, h * w * 3 each.
        strict: raise at the first broken picture instead of leaving it out.
        progress: show a progress bar on a terminal.

    Attributes:
        checksum: CRC-32 over the pixels of all readable pictures; that of a subset is the whole's.

    Raises:
        ValueError: no picture can be read, or `strict` and one cannot. One in which nothing of the region of
            interest lies counts as broken.
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
        self.checksum = 0
        self._pictures: list[View | Source] = []  # scaled, or to be decoded at every reading
        self._frames: list[list[Frame]] = []  # of each picture
        first_error: Exception | None = None
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            pictures = pool.map(lambda source: attempt(lambda: decode(source, framing)), sources)
            bar = tqdm(pictures, "reading", len(sources), leave=False, disable=None if progress else True)
            for source, picture in zip(sources, bar, strict=True):
                if isinstance(picture, Exception):
                    if strict:
                        raise picture
                    logger.warning("left out: %s", picture)  # the message names it
                    first_error = first_error or picture
                else:
                    self.checksum = zlib.crc32(picture.pixels, self.checksum)
                    self._frames.append(framing.frames(picture))
                    memory -= picture.pixels.nbytes
                    self._pictures.append(picture if memory >= 0 else source)
        if not self._pictures:
            raise ValueError(f"none of {len(sources)} pictures can be read; the first: {first_error}")
        if first_error:
            logger.warning("left out %d of %d pictures", len(sources) - self.pictures, len(sources))
        self._places = _places(self._frames)

    @property
    def pictures(self) -> int:
        """How many pictures there are, with at least one input each."""
        return len(self._pictures)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every input."""
        return self.framing.size

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return an input, (h, w, 3) uint8."""
        return self.sample(index)[0]

    def sample(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return an input, (h, w, 3) uint8, and which of its pixels count, (h, w) bool or None for all."""
        picture, frame = self._places[index]
        view = self.view(picture)
        return self.framing.cut(view, frame), self.framing.counting(view, frame)

    def view(self, picture: int) -> View:
        """Return a whole picture, scaled."""
        held = self._pictures[picture]
        return decode(held, self.framing) if isinstance(held, Source) else held

    def subset(self, pictures: Sequence[int]) -> "PictureStore":
        """Return a store of some of the pictures, in the order given, sharing their memory."""
        part = copy.copy(self)
        part._pictures = [self._pictures[picture] for picture in pictures]
        part._frames = [self._frames[picture] for picture in pictures]
        part._places = _places(part._frames)
        return part


def attempt(read: Callable[[], T]) -> T | Exception:
    """Return what is read, or the error that a broken picture raises."""
    try:
        return read()
    except (OSError, ValueError, TypeError) as error:
        return error


def _places(frames: Sequence[Sequence[Frame]]) -> list[tuple[int, Frame]]:
    """Return the picture and the frame of every input."""
    return [(picture, frame) for picture, several in enumerate(frames) for frame in several]
