"""Output that several verbs share: lines about thresholds, a check of output files."""

from typing import TYPE_CHECKING

from destseg.cli.arguments import wrong_usage

if TYPE_CHECKING:
    from destseg.artifacts.artifact import Format
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
