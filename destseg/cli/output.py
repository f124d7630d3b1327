"""What several verbs write: a word to people, the lines about thresholds, and a check before the work."""

import sys
from typing import TYPE_CHECKING

from destseg.cli.arguments import wrong_usage

if TYPE_CHECKING:
    from destseg.artifacts.artifact import Format
    from destseg.inference.calibration import Calibration


def say(text: str) -> None:
    """Tell a person at a terminal; stay quiet in a pipe."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def thresholds(calibration: "Calibration | None") -> list[str]:
    """Return what there is to say about thresholds, as lines."""
    if calibration is None:
        return ["thresholds: none yet"]
    rate = "none: the only picture was trained on" if calibration.trained_on else None
    return [
        f"calibration pictures: {len(calibration.scores)}",
        f"guaranteed false-positive rate: {rate or format(calibration.guaranteed_rate, '.4g')}",
        f"threshold: {calibration.threshold:.6g}",
        f"pixel threshold: {calibration.pixel_threshold:.6g}",
    ]


def check_output(path: str | None, model: "Format | None" = None) -> None:
    """Find out before hours of work whether a file can be written there.

    Args:
        path: of the file; None if none is wanted.
        model: the format, where it is the file of a model, whose name has to fit.
    """
    from destseg.artifacts.formats import check_name
    from destseg.files import check_writable

    with wrong_usage():
        if path is not None and model is not None:
            check_name(path, model)
        check_writable(path)
