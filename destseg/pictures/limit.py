"""How large a picture may be, and how much is decoded at a time.

Pillow has a limit, too, whose warning and error do not say what to do.
"""

import contextlib
import math
import os
import threading
from collections.abc import Iterator

import PIL.Image

AT_A_TIME = 1 << 27  # pixels that all threads decode at the same time; each takes up to 16 bytes
VARIABLE = "DESTSEG_MAX_MEGAPIXELS"  # of the environment, in place of twice PIL.Image.MAX_IMAGE_PIXELS


def lock_over_forks() -> threading.Lock:
    """Make a lock that no other thread holds when the process forks: in the child nobody would release it."""
    lock = threading.Lock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


_lock = lock_over_forks()


class Budget:
    """Pixels that threads may decode at the same time: a large picture waits for others, and they for it."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)  # where the threads that decode are missing

    def _begin(self) -> None:
        self._free, self._turn, self._changed = self.pixels, threading.Lock(), threading.Condition()

    @contextlib.contextmanager
    def taken(self, picture: PIL.Image.Image) -> Iterator[None]:
        """Wait until the picture can be decoded; one that exceeds the whole budget is decoded alone."""
        wanted = min(picture.width * picture.height, self.pixels)
        with self._turn, self._changed:  # first come, first served, or small ones would pass by a large one
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify()


budget = Budget(AT_A_TIME)


@contextlib.contextmanager
def without_limit() -> Iterator[int | None]:
    """Lift Pillow's limit, and yield it in pixels; None: there was none.

    It is the whole process's, so this is for one thread at a time, and not for long.
    """
    with _lock:
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            yield limit
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def decoding(picture: PIL.Image.Image) -> Iterator[None]:
    """Lift Pillow's limit while a large picture is decoded, where Pillow would look at its size again."""
    with contextlib.ExitStack() as stack:
        if picture.format == "TIFF":
            with _lock:  # nobody has lifted it
                limit = PIL.Image.MAX_IMAGE_PIXELS
            if limit is not None and picture.width * picture.height > limit:
                stack.enter_context(without_limit())
        yield


def check_size(picture: PIL.Image.Image, pillows_limit: int | None) -> None:
    """Raise ValueError if a picture that is opened, but not decoded, is too large to be decoded safely.

    The variable says how large it may be; without it, twice Pillow's limit, which is None for no limit.
    """
    limit = math.inf if pillows_limit is None else 2 * pillows_limit
    if (text := os.environ.get(VARIABLE)) is not None:
        try:
            limit = float(text) * 1e6
        except ValueError:
            limit = math.nan
        if not limit > 0:
            raise ValueError(f"the environment variable {VARIABLE} must be a number above 0, got {text!r}")
    pixels = picture.width * picture.height
    if pixels > limit + 0.5:  # rounded
        raise ValueError(
            f"it has {pixels / 1e6:.6g} megapixels ({picture.height} x {picture.width}, height x width), and "
            f"{limit / 1e6:.6g} are allowed: set the environment variable {VARIABLE} to allow more"
        )
