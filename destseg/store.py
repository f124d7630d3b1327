"""Many pictures at one size: decoded once, kept in memory within a bound, read again beyond it."""

import copy
import logging
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from destseg.folders import Source
from destseg.images import resize, to_rgb

logger = logging.getLogger("destseg")

MEMORY = 2 << 30  # bytes of decoded pictures that a store keeps


def decode(source: Source, size: tuple[int, int]) -> np.ndarray:
    """Return one picture as (h, w, 3) uint8 of the given height and width."""
    return resize(to_rgb(source.image, source.name), size)


class PictureStore:
    """The readable ones of some pictures, each (h, w, 3) uint8 of one size; safe to read from threads.

    Every picture is decoded once at the start, which finds the broken ones: each is reported by name and left
    out. As many as fit into `memory` bytes are kept; the others are decoded again whenever they are read.

    Args:
        sources: the pictures, as `destseg.folders.as_pictures` lists them.
        size: height and width in pixels.
        memory: bound in bytes on the decoded pictures kept, h * w * 3 each.
        strict: raise at the first broken picture instead of leaving it out.
        progress: show a progress bar on a terminal.

    Attributes:
        checksum: CRC-32 over the pixels of all readable pictures; that of a subset is the whole's.

    Raises:
        ValueError: no picture can be read, or `strict` and one cannot.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        size: tuple[int, int],
        memory: int = MEMORY,
        strict: bool = False,
        progress: bool = True,
    ) -> None:
        self.size = size
        self.checksum = 0
        self._pictures: list[np.ndarray | Source] = []  # decoded, or to be decoded at every reading
        keep = memory // (3 * size[0] * size[1])
        first_error: Exception | None = None
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            pictures = pool.map(lambda source: attempt(source, size), sources)
            bar = tqdm(pictures, "reading", len(sources), leave=False, disable=None if progress else True)
            for source, picture in zip(sources, bar, strict=True):
                if isinstance(picture, Exception):
                    if strict:
                        raise picture
                    logger.warning("left out: %s", picture)  # the message names it
                    first_error = first_error or picture
                else:
                    self.checksum = zlib.crc32(picture, self.checksum)
                    self._pictures.append(picture if len(self._pictures) < keep else source)
        if not self._pictures:
            raise ValueError(f"none of {len(sources)} pictures can be read; the first: {first_error}")
        if first_error:
            logger.warning("left out %d of %d pictures", len(sources) - len(self), len(sources))

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> np.ndarray:
        picture = self._pictures[index]
        return decode(picture, self.size) if isinstance(picture, Source) else picture

    def subset(self, indices: Sequence[int]) -> "PictureStore":
        """Return a store of some of the pictures, in the order given, sharing their memory."""
        part = copy.copy(self)
        part._pictures = [self._pictures[index] for index in indices]
        return part


def attempt(source: Source, size: tuple[int, int] | None = None) -> np.ndarray | Exception:
    """Return `decode`'s pixels, at their own size without one, or the error that a broken picture raises."""
    try:
        return to_rgb(source.image, source.name) if size is None else decode(source, size)
    except (OSError, ValueError, TypeError) as error:
        return error
