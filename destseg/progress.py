"""What people see while they wait: bars and messages where somebody watches, lines in the log elsewhere.

No other module asks whether there is a terminal, or shows a bar.
"""

import contextlib
import functools
import logging
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger("destseg")
line_logger = logging.getLogger("destseg.progress")  # apart: the command line listens to these alone

CONTROL = re.compile(r"[\x00-\x1f\x80-\x9f]")  # characters that a terminal obeys
LINE_EVERY = 60.0  # seconds between two lines in the log


def screen() -> Any:
    """Return standard error if a person sees it, at a terminal or in a notebook; else None.

    In a service it is None itself, and it may be closed, or anything.
    """
    stream = sys.stderr
    try:
        in_notebook = type(stream).__module__.partition(".")[0] == "ipykernel"  # it says it is no terminal
        is_seen = callable(stream.write) and not stream.closed and (in_notebook or stream.isatty())
    except Exception:  # of an object that is no stream
        return None
    return stream if is_seen else None


def is_watched() -> bool:
    """Whether anybody sees standard error, see `screen`."""
    return screen() is not None


def is_heard(wanted: bool = True) -> bool:
    """Whether `say` reaches anybody."""
    return logger.isEnabledFor(logging.INFO) or (wanted and is_watched())


def say(text: str, wanted: bool = True) -> None:
    """Log a message at level INFO, and print it if that is wanted and somebody watches."""
    if logger.isEnabledFor(logging.INFO):  # then it is not printed as well: it would appear twice
        logger.info(text)
    elif wanted and is_watched():
        write(text)


def write(text: str) -> None:
    """Print lines, control characters escaped, on standard error, if there is one that can be written."""
    if sys.stderr is not None:  # print would take standard output in its place
        with contextlib.suppress(Exception):  # of an object that is no stream, or whose window is gone
            print(printable(text), file=sys.stderr)


def printable(text: str, but: str = "\n") -> str:
    r"""Escape control characters, as `\x1b`, but for some: files and their names may hold them.

    A terminal would obey them, and a line break could make a message of one's own.
    """
    return CONTROL.sub(lambda found: found[0] if found[0] in but else repr(found[0])[1:-1], text)


class Bar:
    """Shows how far some work is: by a bar, if that is wanted and somebody watches, else by lines in the log.

    The lines are at level INFO of the logger "destseg.progress", one a minute: what is done, how much of it,
    and how long the rest will take at the pace so far. What cannot be shown never ends the work.

    Args:
        what: the work, such as "calibrating".
        total: how much there is; None: that is not known.
        done: how much of it was done before.
        wanted: whether to show a bar; the log's level decides about its lines.
        unit: "" for a number of things, "B" for bytes.
        leave: whether the bar stays where it is when the work is done.
        delay: seconds before the bar appears.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        done: int = 0,
        *,
        wanted: bool = True,
        unit: str = "",
        leave: bool = True,
        delay: float = 0.0,
    ) -> None:
        self.what, self.total, self.done, self.unit = what, total, done, unit
        self._begun, self._done_before = time.monotonic(), done
        self._line = self._begun  # when the last one was written
        self._shown: Any = None
        if wanted and (stream := screen()) is not None:
            units = {"unit": unit, "unit_scale": True} if unit else {}
            options = {"file": stream, "leave": leave, "delay": delay, **units}
            with contextlib.suppress(Exception):
                self._shown = _bar_class()(desc=what, total=total, initial=done, miniters=1, **options)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._show(lambda shown: shown.close())

    def describe(self, what: str, **notes: str) -> None:
        """Change what the work is called, and the notes behind it; both appear with the next update."""
        self.what = what
        self._show(lambda shown: shown.set_description(what, refresh=False))
        if notes:
            self._show(lambda shown: shown.set_postfix(notes, refresh=False))

    def say(self, text: str) -> None:
        """Show a line above the bar, or log it where there is none."""
        if self._shown is None:
            line_logger.info(text)
        else:
            self._show(lambda shown: shown.write(text, file=shown.fp))

    def update(self, count: int = 1) -> None:
        """Show that so much more is done."""
        self.done += count
        if self._shown is not None:
            self._show(lambda shown: shown.update(count))
        elif line_logger.isEnabledFor(logging.INFO):
            now = time.monotonic()
            if now - self._line >= LINE_EVERY:
                self._line = now
                line_logger.info(self._text(now - self._begun))

    def _text(self, seconds: float) -> str:
        scale, unit = (1e6, " MB") if self.unit == "B" else (1, "")
        text = f"{self.what}: {self.done / scale:.0f}"
        if self.total is None:
            return f"{text}{unit} so far"
        left = (self.total - self.done) * seconds / (self.done - self._done_before)
        return f"{text} of {self.total / scale:.0f}{unit}, about {_duration(left)} left"

    def _show(self, change: Callable[[Any], object]) -> None:
        if self._shown is not None:
            try:
                change(self._shown)
            except Exception:  # the terminal is gone
                self._shown = None


def bar(items: Iterable[T], what: str, total: int | None = None, **options: Any) -> Iterator[T]:
    """Yield items, and show how many of them are done.

    Args:
        items: anything to iterate over.
        what, options: see `Bar`.
        total: how many there are; by default their len, where they have one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Bar(what, total, **options) as shown:
        for item in items:
            yield item
            shown.update()


def _duration(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


@functools.cache
def _bar_class() -> Any:
    from tqdm import tqdm  # not before a bar is shown

    class Quiet(tqdm):  # type: ignore[misc]
        """Starts no thread that wakes slow bars: every update looks at the clock."""

        monitor_interval = 0

    return Quiet
