"""Output that several verbs share. What was computed is not lost where it cannot be written."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from destseg.cli.arguments import wrong_usage
from destseg.progress import printable, write

if TYPE_CHECKING:
    from destseg.artifacts.artifact import Format
    from destseg.detector import DeSTSeg
    from destseg.inference.calibration import Calibration


def thresholds(calibration: "Calibration | None") -> list[str]:
    """Describe a model's thresholds, as lines of text."""
    if calibration is None:
        return ["thresholds: none yet"]
    kind, grouping = "picture", ""
    if calibration.groups is not None:
        kind, grouping = "group", f" in {calibration.count} group{'s' if calibration.count > 1 else ''}"
    rate = f"none: the only {kind} was trained on" if calibration.trained_on else None
    return [
        f"calibration pictures: {len(calibration.scores)}{grouping}",
        f"guaranteed false-positive rate: {rate or format(calibration.guaranteed_rate, '.4g')}",
        f"threshold: {calibration.threshold:.6g}",
        f"pixel threshold: {calibration.pixel_threshold:.6g}",
    ]


def check_output(path: str | None, model: "Format | None" = None) -> None:
    """Raise UsageError, before hours of work, if a file cannot be written.

    Args:
        path: the file; None: nothing to check.
        model: for a model's file, the format that its name must fit.
    """
    from destseg.artifacts.formats import check_name
    from destseg.files import check_writable

    with wrong_usage():
        if path is not None and model is not None:
            check_name(path, model)
        check_writable(path)


def check_report(path: str | None) -> None:
    """Raise, before hours of work, if a report page cannot be written: UsageError, or ImportError."""
    check_output(path)
    if path is not None:
        from destseg.packages import import_package

        import_package("jinja2")


def show(text: str) -> None:
    """Print results, control characters escaped. Where that fails, they land on standard error.

    Raises OSError, which says why it failed, or
    BrokenPipeError, and prints no more, where nobody reads on, as in `destseg info part | head -1`.
    """
    try:
        print(printable(text), flush=True)
    except (OSError, ValueError) as error:  # ValueError: of a stream that is closed, or cannot write a name
        if isinstance(error, OSError):
            with contextlib.suppress(OSError, ValueError):  # so that flushing at exit cannot fail
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        write(text)
        raise OSError(f"standard output cannot be written: {error}") from error


def finish(*steps: Callable[[], object]) -> None:
    """Do all of a verb's last steps, also after one that fails. Raises OSError for all that failed."""
    errors: list[OSError] = []
    for step in steps:
        try:
            step()
        except OSError as error:
            errors.append(error)
    if len(errors) > 1:
        raise OSError("; ".join(map(str, errors)))
    if errors:
        raise errors[0]


def save(model: "DeSTSeg", path: str | Path) -> None:
    """Save a model. Where that fails, save it in a temporary folder, and raise OSError that names it."""
    try:
        model.save(path)
    except OSError as error:
        rescued = _rescue(model, Path(path).name)
        if rescued is None:
            raise
        raise OSError(f"{error}; the model is saved as {rescued} instead") from error


def _rescue(model: "DeSTSeg", name: str) -> Path | None:
    """Save a model in a new temporary folder, and return its path; None where that fails, too."""
    try:
        folder = tempfile.mkdtemp(prefix="destseg-")
    except OSError:
        return None
    try:
        model.save(Path(folder, name))
    except OSError:
        shutil.rmtree(folder)
        return None
    return Path(folder, name)
