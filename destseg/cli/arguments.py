"""Arguments that several verbs share, functions that read their values, and the error for wrong usage.

The functions only read text. `destseg.settings` decides which values are allowed, see `wrong_usage`.
"""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from destseg.files import as_path
from destseg.settings import INFERENCE_PRECISIONS, TEACHERS, Schedule, Sides

PICTURES = "directory of normal pictures, or the pictures themselves; @FILE: those it lists, one path a line"
SIDES = "in pixels, N or HEIGHTxWIDTH"


class UsageError(ValueError):
    """The command cannot be run as it was given."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Adds the default to the help of each option that has a plain one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        is_plain = isinstance(default, (str, int, float)) and not isinstance(default, bool)
        if not is_plain or default in ("", argparse.SUPPRESS):
            return action.help
        return f"{action.help} (default: %(default)s)"


def add_verbs(parser: argparse.ArgumentParser, dest: str, verbs: Mapping[str, Any]) -> None:
    """Add commands, each a module as `destseg.cli` describes it; `dest` holds the name of the chosen one."""
    commands = parser.add_subparsers(dest=dest, required=True, metavar="COMMAND", help="what to do")
    for name, verb in verbs.items():
        epilog = f"example: {verb.EXAMPLE}"
        verb_parser = commands.add_parser(
            name, help=verb.HELP, description=verb.HELP, epilog=epilog, formatter_class=HelpFormatter
        )
        verb.add_arguments(verb_parser)


@contextlib.contextmanager
def wrong_usage() -> Iterator[None]:
    """Turn errors into UsageError; verbs check their options within it, before they do anything else."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def read_lists(paths: Sequence[str]) -> list[str]:
    """Return paths, with those of a list in place of @FILE: one a line, lines with # and empty ones left out.

    They mean what they would mean on the command line; "./@name" is a path that begins with @.

    Raises:
        OSError: a list cannot be read.
        ValueError: there is no path in it, or it is no text.
    """
    found: list[str] = []
    for path in paths:
        if not path.startswith("@"):
            found.append(path)
            continue
        text = as_path(path[1:]).read_text("utf-8-sig", sys.getfilesystemencodeerrors())
        lines = [line.strip() for line in text.split("\n")]
        listed = [line for line in lines if line and not line.startswith("#")]
        if not listed or "\0" in text:
            raise ValueError(f"{path[1:]} must list pictures, one path a line, got {listed[:1] or 'none'}")
        found += listed
    return found


def fields_of(kind: type, options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that are fields of a data class, by name."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {name: value for name, value in vars(options).items() if name in names}


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="file written by fit or export")


def add_teacher(parser: argparse.ArgumentParser, usual: str) -> None:
    """Add --teacher; its help gives `usual` as the default."""
    networks = "ResNet18 trained on ImageNet, or a network distilled from it, which is in this package"
    parser.add_argument("--teacher", choices=TEACHERS, help=f"{networks} (default: {usual})")


def add_steps(parser: argparse.ArgumentParser, usual: str, default: Sequence[int] | None = None) -> None:
    """Add --steps; its help gives `usual` as the default."""
    text = f"training steps of the two stages (default: {usual})"
    stages = ("STUDENT", "SEGMENTATION")
    parser.add_argument(
        "--steps", nargs=2, metavar=stages, type=read_whole_number, default=default, help=text
    )


def add_roi(parser: argparse.ArgumentParser) -> None:
    text = 'region of interest: a mask picture, or a polygon in pixels, "x,y x,y x,y"; nothing outside counts'
    parser.add_argument("--roi", type=read_roi, metavar="ROI", help=text)


def add_report(parser: argparse.ArgumentParser) -> None:
    text = "write a page for people, one HTML file: results, a threshold to move, and the pictures"
    parser.add_argument("--report", metavar="FILE", help=text)


def add_group(parser: argparse.ArgumentParser) -> None:
    text = (
        "keep together pictures of the same part, strip or day: folder, or a pattern with one group for paths"
    )
    parser.add_argument("--group", dest="groups", metavar="GROUP", help=text)


def add_false_positive_rate(parser: argparse.ArgumentParser) -> None:
    text = "wanted share of normal parts called anomalous"
    rate = Schedule.false_positive_rate
    parser.add_argument("--false-positive-rate", type=read_number, default=rate, metavar="RATE", help=text)


def add_inference_precision(parser: argparse.ArgumentParser, text: str, default: str | None = None) -> None:
    parser.add_argument("--inference-precision", default=default, choices=INFERENCE_PRECISIONS, help=text)


def add_strict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strict", action="store_true", help="fail at the first unreadable picture")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Add --no-progress, which `destseg.cli.main` looks at, too."""
    text = "show no progress: no bars and messages, nor, where there is no terminal, a line every minute"
    parser.add_argument("--no-progress", dest="progress", action="store_false", help=text)


def read_whole_number(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from error


def read_number(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from error


def read_sides(text: str) -> Sides:
    """Read 256 or 256x512, height first."""
    try:
        found = tuple(int(side) for side in text.lower().split("x"))
    except ValueError:
        found = ()
    if len(found) not in (1, 2):
        raise argparse.ArgumentTypeError(f"must be like 256 or 256x512 (height x width), got {text!r}")
    return found[0] if len(found) == 1 else (found[0], found[1])


def read_roi(text: str) -> str | list[tuple[float, ...]]:
    """Read the points of a polygon; everything else is the path of a mask."""
    try:
        points = [tuple(float(coordinate) for coordinate in point.split(",")) for point in text.split()]
    except ValueError:
        return text
    if len(points) < 3 or any(len(point) != 2 for point in points):
        allowed = 'a mask picture, or at least three points "x,y x,y x,y"'
        raise argparse.ArgumentTypeError(f"must be {allowed}, got {text!r}")
    return points
