"""The command `destseg`: what its subcommands do. torch is imported when one needs it."""

import argparse
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import destseg
from destseg.options import parser

if TYPE_CHECKING:
    from destseg.calibration import Calibration
    from destseg.result import Prediction


class UsageError(ValueError):
    """The command cannot be run as it was given."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 if it failed, or 2 for wrong usage; argparse exits with 2, too."""
    logging.basicConfig(format="destseg: %(message)s", level=logging.WARNING)
    if not sys.stderr.isatty():  # without kernels the results are the same: only people are told
        logging.getLogger("destseg.ops").setLevel(logging.ERROR)
    options = parser().parse_args(arguments)
    try:
        status = COMMANDS[options.command](options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever reads has seen enough, as in `destseg info part.destseg | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may flushing fail at the end
        return 1
    except UsageError as error:
        print(f"destseg {options.command}: {error}", file=sys.stderr)
        return 2
    except (ValueError, OSError, RuntimeError, TypeError, ImportError) as error:
        print(f"destseg {options.command}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"destseg {options.command}: interrupted", file=sys.stderr)
    return 1


def fit(options: argparse.Namespace) -> int:
    from destseg import processes

    _check_output(options.output, is_model=True)
    output = Path(options.output)
    checkpoint = output.with_name(output.name + ".checkpoint")
    if options.resume and not checkpoint.exists():
        raise FileNotFoundError(f"there is no {checkpoint} to go on with: leave out --resume to begin anew")
    if checkpoint.exists() and not options.resume:
        raise ValueError(
            f"{checkpoint} is left of an interrupted run: go on with --resume, or delete it to begin anew"
        )
    _check_framing(options)
    model = destseg.DeSTSeg(
        preset=options.preset,
        teacher=options.teacher,
        image_size=options.size,
        seed=options.seed,
        device=options.device,
        teacher_weights=options.teacher_weights,
        precision=options.precision,
        inference_precision=options.inference_precision,
        tile=options.tile,
        overlap=options.overlap,
        keep_aspect=options.keep_aspect,
        roi=options.roi,
    )
    model.fit(
        options.normal if len(options.normal) > 1 else options.normal[0],
        steps=options.steps and tuple(options.steps),
        batch_size=options.batch_size,
        texture_source=options.texture_source,
        rotate=options.rotate,
        flip=options.flip,
        false_positive_rate=options.false_positive_rate,
        held_out=options.held_out,
        resume=checkpoint if options.resume else None,
        checkpoint=checkpoint,
        checkpoint_minutes=options.checkpoint_minutes,
        workers=options.workers,
        strict=options.strict,
    )
    if processes.current().is_first:  # of those that torchrun has started
        model.save(output)
        checkpoint.unlink(missing_ok=True)
        _say(f"wrote {output}")
    return 0


def predict(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from destseg.folders import as_pictures

    model = destseg.load(options.model, options.device)
    count = len(as_pictures(options.pictures))
    names = _OutputNames(options.pictures)
    unreadable = 0
    results = model.predict_each(options.pictures, strict=options.strict, roi=options.roi)
    for source, result in tqdm(results, "predicting", count, disable=None):
        if isinstance(result, Exception):
            unreadable += 1
            print(json.dumps({"source": source.name, "error": str(result)}), flush=True)
            continue
        line = result.to_dict()
        if options.output:
            line |= _write(
                result, Path(options.output) / names.of(source.name), options.maps, options.overlays
            )
        print(json.dumps(line), flush=True)
    return 1 if unreadable else 0


def _write(result: "Prediction", base: Path, maps: str, overlays: bool) -> dict[str, str]:
    """Write the wanted files of one picture, and return what they are called."""
    from destseg.files import write_whole
    from destseg.result import write_map

    written = {}
    if overlays:
        path = base.with_name(base.name + "_overlay.png")
        write_whole(path, lambda file: result.overlay().save(file, format="PNG"))
        written["overlay"] = str(path)
    if maps != "none":
        path = base.with_name(f"{base.name}_map.{maps}")
        write_map(path, result.anomaly_map)
        written["map"] = str(path)
    return written


class _OutputNames:
    """Gives each picture a path below the output folder: as below the folder that was named."""

    def __init__(self, given: Sequence[str]) -> None:
        self.folders = [Path(path) for path in given if Path(path).is_dir()]
        self.taken: set[Path] = set()
        self.numbers: dict[Path, Iterator[int]] = {}  # what comes next: each number is tried once

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


def evaluate(options: argparse.Namespace) -> int:
    for path in (options.json, options.csv, options.defects_csv):
        _check_output(path)
    model = destseg.load(options.model, options.device)
    report = model.evaluate(options.dataset, protocol=options.protocol, roi=options.roi)
    if options.json:
        report.to_json(options.json)
    if options.csv:
        report.to_csv(options.csv)
    if options.defects_csv:
        report.defects_to_csv(options.defects_csv)
    print(report.table())
    return 0


def calibrate(options: argparse.Namespace) -> int:
    _check_output(options.output, is_model=True)
    model = destseg.load(options.model, options.device, options.inference_precision)
    normal = options.normal or None
    model.calibrate(normal, options.false_positive_rate, strict=options.strict, roi=options.roi)
    output = options.output or options.model
    model.save(output)
    for line in _thresholds(model.calibration_):
        print(line)
    _say(f"wrote {output}")
    return 0


def export(options: argparse.Namespace) -> int:
    _check_output(options.output)
    model = destseg.load(options.model, "cpu")
    pictures = {"normal": options.normal, "calibration": options.calibration, "strict": options.strict}
    model.export(options.output, precision=options.precision, **pictures)
    _say(f"wrote {options.output}")
    if options.precision == "int8":
        from destseg.bench import loss

        print(loss(model, destseg.load(options.output), options.normal, options.evaluate))
    return 0


def bench(options: argparse.Namespace) -> int:
    from destseg.bench import table

    print(table(options.models, options.size, options.seconds, options.evaluate))
    return 0


def info(options: argparse.Namespace) -> int:
    import torch

    from destseg.ops import _native

    if options.model is None:
        print(f"destseg {destseg.__version__}, torch {torch.__version__}")
        print(f"compiled kernels: {'yes' if _native.kernels else 'no'}")
        print(f"CUDA: {torch.cuda.get_device_name() if torch.cuda.is_available() else 'no'}")
        print(f"threads: {torch.get_num_threads()}")
        return 0
    from destseg import engines, modelfile
    from destseg.roi import RegionOfInterest

    engine = None
    if engines.is_exported(options.model):
        engine, content = engines.read(options.model)
    else:
        content = modelfile.read(options.model)
    print(f"{options.model}: destseg {content.versions['destseg']}, torch {content.versions['torch']}")
    for name, value in content.settings.items():
        print(f"{name}: {RegionOfInterest(value) if name == 'roi' and value is not None else value}")
    if engine:
        print(f"engine: {engine.name}, {engine.precision}")
    else:
        parameters = sum(tensor.numel() for tensor in content.network.values())
        print(f"values: {parameters / 1e6:.2f} million")
        print(f"training steps: {len(content.losses)}")
    for line in _thresholds(content.calibration):
        print(line)
    return 0


def demo(options: argparse.Namespace) -> int:
    from destseg.demo import run

    outcome = run(
        options.folder,
        options.seed,
        tuple(options.steps),
        image_size=options.size,
        pictures=options.pictures,
        teacher=options.teacher,
        device=options.device,
        overwrite=options.overwrite,
    )
    print(outcome.text())
    return 0


def _thresholds(calibration: "Calibration | None") -> list[str]:
    if calibration is None:
        return ["thresholds: none yet"]
    rate = "none: the only picture was trained on" if calibration.trained_on else None
    return [
        f"calibration pictures: {len(calibration.scores)}",
        f"guaranteed false-positive rate: {rate or format(calibration.guaranteed_rate, '.4g')}",
        f"threshold: {calibration.threshold:.6g}",
        f"pixel threshold: {calibration.pixel_threshold:.6g}",
    ]


def _check_output(path: str | None, is_model: bool = False) -> None:
    """Find out before hours of work whether a file, or the file of a model, can be written there."""
    from destseg.files import check_writable
    from destseg.modelfile import check_name

    try:
        if path is not None and is_model:
            check_name(path)
        check_writable(path)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error


def _check_framing(options: argparse.Namespace) -> None:
    """Options that do not fit together are wrong usage."""
    from destseg.framing import framing_of
    from destseg.presets import input_size

    try:
        framing_of(input_size(options.size), options.keep_aspect, options.tile, options.overlap)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _say(text: str) -> None:
    """Tell a person at a terminal; stay quiet in a pipe."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


COMMANDS = {"fit": fit, "predict": predict, "evaluate": evaluate, "calibrate": calibrate}
COMMANDS |= {"export": export, "bench": bench, "info": info, "demo": demo}
