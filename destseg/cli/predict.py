"""`destseg predict`: writes one line of JSON per picture, overlays and maps."""

import argparse
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from functools import partial
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
    names = _OutputNames([as_path(given) for given in options.pictures])
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
            base = output / names.of(source.name)
            write = partial(_write, result, base, options.maps, options.overlays, line)
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
    """Whether a picture is an overlay or a map that `_write` wrote."""
    place = Path(os.path.abspath(output))
    written = path.suffix == ".png" and path.stem.endswith(("_overlay", "_map"))
    return written and Path(os.path.abspath(path)).is_relative_to(place)


def _write(result: "Prediction", base: Path, maps: str, overlays: bool, line: dict[str, Any]) -> None:
    """Write the wanted files of one picture, and add their paths to its line."""
    from destseg.files import write_whole
    from destseg.inference.prediction import write_map

    if overlays:
        path = base.with_name(base.name + "_overlay.png")
        write_whole(path, lambda file: result.overlay().save(file, format="PNG"))
        line["overlay"] = str(path)
    if maps != "none":
        path = base.with_name(f"{base.name}_map.{maps}")
        write_map(path, result.anomaly_map)
        line["map"] = str(path)


class _OutputNames:
    """Gives each picture a path below the output folder, as it has below its input folder."""

    def __init__(self, given: Sequence[Path]) -> None:
        self.folders = [path for path in given if path.is_dir()]
        self.taken: set[Path] = set()
        self.numbers: dict[Path, Iterator[int]] = {}  # the next numbers: each is tried once

    def of(self, source: str) -> Path:
        path = Path(source)
        inside = [path.relative_to(folder) for folder in self.folders if path.is_relative_to(folder)]
        relative = inside[0] if inside else Path(path.name)
        stem = relative.with_suffix("")
        numbers = self.numbers.setdefault(stem, itertools.count(2))
        numbered = (stem.with_name(f"{stem.name}_{k}") for k in numbers)
        candidates = itertools.chain([stem, relative.with_name(relative.name.replace(".", "_"))], numbered)
        chosen = next(candidate for candidate in candidates if candidate not in self.taken)
        self.taken.add(chosen)
        return chosen
