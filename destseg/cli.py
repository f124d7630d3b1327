"""The command `destseg`: fit, predict, evaluate, calibrate, info. torch is imported when one needs it."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import destseg

if TYPE_CHECKING:
    from destseg.detector import DeSTSeg
    from destseg.result import Prediction

EXAMPLES = {
    "fit": "destseg fit parts/train/good -o part.destseg --size 256 --texture-source textures",
    "predict": "destseg predict part.destseg incoming/*.png -o results --maps png > results.jsonl",
    "evaluate": "destseg evaluate part.destseg parts --json report.json --csv pictures.csv",
    "calibrate": "destseg calibrate part.destseg more_good_parts --false-positive-rate 0.005",
    "info": "destseg info part.destseg",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, or 1 if it failed; argparse exits with 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="destseg: %(message)s", level=logging.WARNING)
    try:
        return int(options.run(options))
    except (ValueError, OSError, RuntimeError, TypeError) as error:
        print(f"destseg {options.command}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"destseg {options.command}: interrupted", file=sys.stderr)
    return 1


def fit(options: argparse.Namespace) -> int:
    output = Path(options.output)
    checkpoint = output.with_name(output.name + ".checkpoint")
    if checkpoint.exists() and not options.resume:
        raise ValueError(
            f"{checkpoint} is left of an interrupted run: go on with --resume, or delete it to begin anew"
        )
    output.parent.mkdir(parents=True, exist_ok=True)  # fail now, not after training
    model = destseg.DeSTSeg(
        preset=options.preset,
        teacher=options.teacher,
        image_size=options.size,
        seed=options.seed,
        device=options.device,
        teacher_weights=options.teacher_weights,
        precision=options.precision,
    )
    model.fit(
        options.normal if len(options.normal) > 1 else options.normal[0],
        steps=tuple(options.steps),
        batch_size=options.batch_size,
        texture_source=options.texture_source,
        rotate=options.rotate,
        flip=options.flip,
        false_positive_rate=options.false_positive_rate,
        resume=checkpoint if checkpoint.exists() else None,
        checkpoint=checkpoint,
        checkpoint_minutes=options.checkpoint_minutes,
        workers=options.workers,
        strict=options.strict,
    )
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
    results = model.predict_each(options.pictures, strict=options.strict)
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

    def of(self, source: str) -> Path:
        path = Path(source)
        inside = [path.relative_to(folder) for folder in self.folders if path.is_relative_to(folder)]
        relative = inside[0] if inside else Path(path.name)
        candidates = [relative.with_suffix(""), relative.with_name(relative.name.replace(".", "_"))]
        candidates += [relative.with_name(f"{relative.stem}_{k}") for k in range(2, len(self.taken) + 3)]
        chosen = next(candidate for candidate in candidates if candidate not in self.taken)
        self.taken.add(chosen)
        return chosen


def evaluate(options: argparse.Namespace) -> int:
    report = destseg.load(options.model, options.device).evaluate(options.dataset, protocol=options.protocol)
    if options.json:
        report.to_json(options.json)
    if options.csv:
        report.to_csv(options.csv)
    print(report.table())
    return 0


def calibrate(options: argparse.Namespace) -> int:
    model = destseg.load(options.model, options.device)
    normal = options.normal or None
    model.calibrate(normal, options.false_positive_rate, strict=options.strict)
    output = options.output or options.model
    model.save(output)
    for line in _thresholds(model):
        print(line)
    _say(f"wrote {output}")
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
    from destseg import modelfile

    content = modelfile.read(options.model)
    parameters = sum(tensor.numel() for tensor in content.network.values())
    print(f"{options.model}: destseg {content.versions['destseg']}, torch {content.versions['torch']}")
    for name, value in content.settings.items():
        print(f"{name}: {value}")
    print(f"values: {parameters / 1e6:.2f} million")
    print(f"training steps: {len(content.losses)}")
    for line in _thresholds(destseg.load(options.model, "cpu")):
        print(line)
    return 0


def _thresholds(model: "DeSTSeg") -> list[str]:
    calibration = model.calibration_
    if calibration is None:
        return ["thresholds: none yet"]
    return [
        f"calibration pictures: {len(calibration.scores)}",
        f"guaranteed false-positive rate: {calibration.guaranteed_rate:.4g}",
        f"threshold: {calibration.threshold:.6g}",
        f"pixel threshold: {calibration.pixel_threshold:.6g}",
    ]


def _say(text: str) -> None:
    """Tell a person at a terminal; stay quiet in a pipe."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def _size(text: str) -> int | tuple[int, int]:
    """Read 256 or 256x512, height first."""
    try:
        sides = [int(side) for side in text.lower().split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"must be like 256 or 256x512 (height x width), got {text!r}")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("destseg", description=destseg.__doc__)
    parser.add_argument("--version", action="version", version=f"destseg {destseg.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, epilog=f"example: {EXAMPLES[name]}")
        added.formatter_class = argparse.RawDescriptionHelpFormatter
        added.set_defaults(run=run)
        return added

    def option(to: argparse.ArgumentParser, *names: str, **settings: object) -> None:
        default = settings.get("default")
        if default not in (None, "", False):
            settings["help"] = f"{settings['help']} (default: %(default)s)"
        to.add_argument(*names, **settings)  # type: ignore[arg-type]

    one = command("fit", fit, "Learn what normal parts look like and write a model.")
    option(one, "normal", nargs="+", metavar="NORMAL", help="directory of normal pictures, or pictures")
    option(one, "-o", "--output", required=True, help="file of the model to write")
    option(one, "--preset", default="paper", help="paper, or stpm (the baseline without its additions)")
    option(one, "--teacher", default="resnet18", help="the teacher network")
    option(
        one, "--teacher-weights", metavar="PATH", help="file of its weights; else looked for and downloaded"
    )
    option(one, "--size", type=_size, default=256, help="input size in pixels, N or HEIGHTxWIDTH")
    steps = {"type": int, "nargs": 2, "default": [1000, 4000], "metavar": ("STUDENT", "SEGMENTATION")}
    option(one, "--steps", help="training steps of the two stages", **steps)
    option(one, "--batch-size", type=int, default=32, help="pictures per step")
    option(
        one, "--texture-source", metavar="DIR", help="pictures whose texture anomalies take; else own ones"
    )
    option(one, "--rotate", default="0", help='0, degrees either way, or "90" for quarter turns +-5 degrees')
    option(
        one, "--flip", default="", choices=["", "horizontal", "vertical", "both"], help="mirror parts, too"
    )
    option(one, "--seed", type=int, default=0, help="of everything drawn at random")
    option(one, "--precision", default="auto", help="of training: auto, float32 or bfloat16")
    option(one, "--workers", type=int, default=2, help="threads that prepare batches")
    option(one, "--checkpoint-minutes", type=float, default=10.0, help="how often to save an unfinished run")
    option(one, "--resume", action="store_true", help="continue an interrupted run of the same output")

    two = command("predict", predict, "Find defects; one JSON line per picture on standard output.")
    option(two, "model", metavar="MODEL", help="file written by fit")
    option(two, "pictures", nargs="+", metavar="PICTURES", help="pictures, or directories of them")
    option(two, "-o", "--output", metavar="OUT", help="folder for overlays and maps")
    option(
        two, "--maps", default="none", choices=["none", "png", "npy"], help="anomaly maps: 16-bit or float"
    )
    option(two, "--no-overlays", dest="overlays", action="store_false", help="write no overlay pictures")

    three = command("evaluate", evaluate, "Compute the six metrics on a test set of the MVTec layout.")
    option(three, "model", metavar="MODEL", help="file written by fit")
    option(three, "dataset", metavar="DATASET", help="folder that holds test and ground_truth")
    option(three, "--protocol", default="full", help="full resolution, or that of the paper")
    option(three, "--json", metavar="FILE", help="write everything as JSON")
    option(three, "--csv", metavar="FILE", help="write one line per picture")

    four = command(
        "calibrate", calibrate, "Set the thresholds anew, from normal pictures that fit did not see."
    )
    option(four, "model", metavar="MODEL", help="file written by fit")
    option(
        four, "normal", nargs="*", metavar="NORMAL", help="normal pictures; by default the last ones' scores"
    )
    option(four, "-o", "--output", help="file to write; by default MODEL itself")

    five = command("info", info, "Tell about this installation, or about a model.")
    option(five, "model", nargs="?", metavar="MODEL", help="file written by fit")

    for rated in (one, four):
        text = "wanted share of normal parts called anomalous"
        option(rated, "--false-positive-rate", type=float, default=0.01, metavar="RATE", help=text)
    for strict in (one, two, four):
        option(strict, "--strict", action="store_true", help="fail at the first unreadable picture")
    for placed in (one, two, three, four):
        option(placed, "--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    return parser
