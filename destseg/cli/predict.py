"""`destseg predict`: writes one line of JSON per picture, overlays and maps."""

import argparse
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import destseg
from destseg.cli.arguments import (
    add_device,
    add_model,
    add_progress,
    add_report,
    add_roi,
    add_strict,
    wrong_usage,
)
from destseg.cli.output import check_output, check_report, finish, show
from destseg.progress import bar
from destseg.settings import check_device

if TYPE_CHECKING:
    from destseg.inference.pages import PredictionsPage
    from destseg.inference.prediction import Prediction

HELP = "Find defects and print one line of JSON per picture."
EXAMPLE = "destseg predict part.destseg incoming/*.png -o results --maps png > results.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    add("pictures", nargs="+", metavar="PICTURES", help="pictures, or directories of them")
    add("-o", "--output", metavar="OUT", help="folder for overlays and maps")
    maps = "write anomaly maps, as 16-bit pictures or as arrays of float32"
    add("--maps", default="none", choices=["none", "png", "npy"], help=maps)
    add("--no-overlays", dest="overlays", action="store_false", help="write no overlay pictures")
    add_report(parser)
    add_roi(parser)
    add_strict(parser)
    add_device(parser)
    add_progress(parser)


def run(options: argparse.Namespace) -> int:
    with wrong_usage():
        check_device(options.device)

    from destseg.files import as_path
    from destseg.pictures.folders import as_pictures, warn_about
    from destseg.pictures.store import attempt

    output = None if options.output is None else as_path(options.output)
    check_report(options.report)
    if output is not None and (options.overlays or options.maps != "none"):
        check_output(str(output / "overlay.png"))
    model = destseg.load(options.model, options.device)
    paths = [Path(source.name) for source in as_pictures(options.pictures)]  # whose warnings come once
    old = {path for path in paths if output is not None and _is_result(path, output)}
    warn_about("left out:", list(old), "result", "of an earlier run")
    pictures = [path for path in paths if path not in old]
    used = [*paths, *(as_path(given) for given in (options.model, options.roi) if isinstance(given, str))]
    endings = ["_overlay.png"] * options.overlays + [f"_map.{options.maps}"] * (options.maps != "none")
    names = _OutputNames(
        output or Path(), [as_path(given) for given in options.pictures], set(used) - old, endings
    )
    unreadable, unwritten = 0, list[Exception]()
    page = _page(model, options, len(pictures))
    results = model.predict_each(pictures, strict=options.strict, roi=options.roi, progress=options.progress)
    for source, result in bar(results, "predicting", len(pictures), wanted=options.progress):
        if page is not None:
            page.add(source.name, result)
        if isinstance(result, Exception):
            unreadable += 1
            show(json.dumps({"source": source.name, "error": str(result)}))
            continue
        line = result.to_dict()
        if output is not None:
            write = partial(_write, result, names.of(source.name), line)
            if (error := attempt(write, source.name)) is not None:
                line["error"] = str(error)
                unwritten.append(error)
        show(json.dumps(line))
    last = [partial(_raise_first, unwritten, len(pictures))]
    finish(*last, *([partial(page.to_html, options.report)] if page is not None else []))
    return 1 if unreadable else 0


def _page(model: "destseg.DeSTSeg", options: argparse.Namespace, pictures: int) -> "PredictionsPage | None":
    from destseg.inference.pages import PredictionsPage

    if options.report is None or model.calibration_ is None:  # without it nothing is predicted
        return None
    return PredictionsPage(model.calibration_, model.facts(), options.model, pictures)


def _raise_first(unwritten: Sequence[Exception], pictures: int) -> None:
    """Raise OSError if the files of some pictures could not be written."""
    if unwritten:
        some = f"{len(unwritten)} of {pictures} pictures"
        raise OSError(f"files of {some} are missing; the first: {unwritten[0]}")


def _is_result(path: Path, output: Path) -> bool:
    """Whether a picture is an overlay or a map that `_write` wrote: only those say who made them."""
    written = path.suffix == ".png" and path.stem.endswith(("_overlay", "_map"))
    if not written or not Path(os.path.abspath(path)).is_relative_to(os.path.abspath(output)):
        return False

    import PIL.Image

    from destseg.inference.prediction import SOFTWARE

    try:
        with PIL.Image.open(path, formats=["PNG"]) as image:
            return image.info.get("Software") == SOFTWARE
    except Exception:  # it cannot be read, which is told when it is to be
        return False


def _write(result: "Prediction", paths: Sequence[Path], line: dict[str, Any]) -> None:
    """Write the wanted files of one picture, and add their paths to its line."""
    from destseg.files import write_whole
    from destseg.inference.prediction import save_png, write_map

    for path in paths:
        if path.stem.endswith("_overlay"):
            write_whole(path, lambda file: save_png(result.overlay(), file))
            line["overlay"] = str(path)
        else:
            write_map(path, result.anomaly_map)
            line["map"] = str(path)


class _OutputNames:
    """Gives each picture its files below the output folder, where it lies below its input folder.

    Args:
        output: the folder.
        given: the pictures and folders of them, as the user named them.
        used: files that are read, over which nothing is written.
        endings: how the names of a picture's files end.
    """

    def __init__(self, output: Path, given: Sequence[Path], used: Iterable[Path], endings: list[str]) -> None:
        self.output, self.used, self.endings = output, used, endings
        self.folders = [os.path.abspath(path) for path in given if path.is_dir()]
        self.taken: set[str] = set()
        self.numbers: dict[str, Iterator[int]] = {}  # the next numbers: each is tried once

    def of(self, source: str) -> list[Path]:
        path = Path(os.path.abspath(source))  # without "..", which would lead out of the folder
        inside = [path.relative_to(folder) for folder in self.folders if path.is_relative_to(folder)]
        relative = str(inside[0]) if inside else path.name
        stem = os.path.splitext(relative)[0]
        folder, name = os.path.split(relative)
        numbers = self.numbers.setdefault(stem, itertools.count(2))
        numbered = (f"{stem}_{k}" for k in numbers)
        for candidate in itertools.chain([stem, os.path.join(folder, name.replace(".", "_"))], numbered):
            files = [self.output / f"{candidate}{ending}" for ending in self.endings]
            if candidate not in self.taken and not any(map(self._is_used, files)):
                break
        self.taken.add(candidate)
        return files

    def _is_used(self, path: Path) -> bool:
        """Whether a file, by this name or another, is one of those that are read."""
        return (identity := _identity(path)) is not None and identity in self._identities

    @cached_property
    def _identities(self) -> set[tuple[int, int] | None]:
        return {_identity(path) for path in self.used}


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file, whatever links lead to it; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
