"""Keeps the scores of normal pixels - nearly all pixels - exactly and within a bound of memory.

They lie in blocks, each sorted once by numpy's vectorised sort. Beyond the bound a block in which most values
repeat, as in quantised maps, shrinks to distinct values and their counts; other blocks move to disk.
"""

import functools
import itertools
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from destseg.ops.kernels import thread_count
from destseg.ops.ranking import Counts, Scores, count_above

logger = logging.getLogger("destseg")

BLOCK = 2**25  # scores sorted at a time
PART = 2**16  # thresholds counted at a time: they stay in the processor's cache

T = TypeVar("T")
R = TypeVar("R")


def in_threads(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return the function's value for each item, in order; use as many threads as an operation may."""
    threads = min(thread_count(), len(items))
    if threads < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def divide(items: Sequence[T], size: Callable[[T], int]) -> list[Sequence[T]]:
    """Divide items, in order, into one group per thread, of about the same total size each."""
    ends = np.cumsum([size(item) for item in items])
    shares = np.arange(1, thread_count()) / thread_count()
    cuts = np.searchsorted(ends, shares * ends[-1]).tolist() if items else []
    return [items[a:b] for a, b in itertools.pairwise([0, *cuts, len(items)]) if a < b]


class Block(NamedTuple):
    """Sorted scores, one by one or as distinct values with their counts."""

    rising: Scores
    highest: Counts | None  # highest[i]: how many scores the i highest distinct values have; None: one by one

    @property
    def size(self) -> int:
        """How many scores there are."""
        return len(self.rising) if self.highest is None else int(self.highest[-1])

    @property
    def memory(self) -> int:
        """Bytes in memory; arrays on disk take none."""
        arrays = [self.rising] if self.highest is None else [self.rising, self.highest]
        return sum(array.nbytes for array in arrays if not isinstance(array, np.memmap))

    def __reduce__(self) -> tuple[type["Block"], tuple[np.ndarray | None, ...]]:
        """Pickle as arrays in memory."""
        return Block, tuple(None if array is None else np.asarray(array) for array in self)

    def count_above(self, thresholds: Scores) -> tuple[Counts, Counts]:
        """Count the scores above, and those at or above, each of falling thresholds."""
        above, at_or_above = count_above(self.rising, thresholds)
        return (
            (above, at_or_above) if self.highest is None else (self.highest[above], self.highest[at_or_above])
        )


class NormalScores:
    """Collects scores and counts how many exceed given thresholds.

    Args:
        memory: bytes that sorted scores may take; while scores are added, BLOCK of them per thread come on
            top.
        folder: folder of the unnamed temporary files for the rest; None: the system's.
    """

    def __init__(self, memory: int, folder: str | os.PathLike[str] | None = None) -> None:
        self.memory = memory
        self.folder = folder
        self._pending: list[Scores] = []
        self._blocks: list[Block] = []

    @property
    def size(self) -> int:
        """How many scores there are."""
        return sum(part.size for part in self._pending) + sum(block.size for block in self._blocks)

    def add(self, scores: Sequence[Scores]) -> None:
        """Add arrays of scores, float without NaN; the arrays then belong to the collection."""
        full: list[list[Scores]] = []
        for part in scores:
            self._pending.append(part)
            if sum(pending.size for pending in self._pending) >= BLOCK // 2:
                full.append(self._pending)
                self._pending = []
        self._keep(in_threads(_block, full))

    def merge(self, other: "NormalScores") -> None:
        """Add the scores of another collection."""
        self._keep(list(other._blocks))
        self.add(list(other._pending))

    def count_above(self, thresholds: Scores) -> tuple[Counts, Counts]:
        """Count the scores above, and those at or above, each of m falling thresholds: two (m,) int64."""
        pending = divide(self._pending, lambda part: part.size)
        blocks = [*self._blocks, *in_threads(_block, pending)]
        above, at_or_above = np.zeros(len(thresholds), np.int64), np.zeros(len(thresholds), np.int64)

        def count(start: int) -> None:
            part = slice(start, start + PART)
            for block in blocks:
                more_above, more_at_or_above = block.count_above(thresholds[part])
                above[part] += more_above
                at_or_above[part] += more_at_or_above

        in_threads(count, range(0, len(thresholds), PART))
        return above, at_or_above

    def _keep(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            room = self.memory - sum(kept.memory for kept in self._blocks)
            if block.memory > room:
                block = _compact(block)
            self._blocks.append(_on_disk(block, self.folder) if block.memory > room else block)


def _block(parts: Sequence[Scores]) -> Block:
    rising = parts[0] if len(parts) == 1 else np.concatenate(parts)
    rising.sort()
    return Block(rising, None)


def _compact(block: Block) -> Block:
    """Return the block as distinct values with their counts, if that is smaller."""
    rising = block.rising
    rises = rising[1:] != rising[:-1]
    if block.highest is not None or (rising.itemsize + 8) * (np.count_nonzero(rises) + 2) > rising.nbytes:
        return block
    starts = np.concatenate([[0], np.flatnonzero(rises) + 1, [rising.size]])
    return Block(rising[starts[:-1]], rising.size - starts[::-1])


def _on_disk(block: Block, folder: str | os.PathLike[str] | None) -> Block:
    """Return the block with its arrays in temporary files; itself, with a warning, if none can be written."""
    try:
        highest = None if block.highest is None else _written(block.highest, folder)
        return Block(_written(block.rising, folder), highest)
    except OSError as error:
        where = "the system's folder for them" if folder is None else folder
        _warn(f"scores stay in memory: no temporary file can be written in {where}: {error}")
        return block


def _written(array: np.ndarray, folder: str | os.PathLike[str] | None) -> np.ndarray:
    with tempfile.TemporaryFile(dir=folder) as file:
        array.tofile(file)
        file.flush()
        return np.memmap(file, array.dtype, mode="r", shape=array.shape)


@functools.cache
def _warn(text: str) -> None:  # once: there may be many blocks
    logger.warning(text)
