"""What the command line takes: commands, options, examples. torch is imported when a value needs checking."""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import destseg

Option = Callable[..., None]  # adds an option to a command's parser, as ArgumentParser.add_argument does

EXAMPLES = {
    "fit": "destseg fit parts/train/good -o part.destseg --size 256 --texture-source textures",
    "predict": "destseg predict part.destseg incoming/*.png -o results --maps png > results.jsonl",
    "evaluate": "destseg evaluate part.destseg parts --json report.json --csv pictures.csv",
    "calibrate": "destseg calibrate part.destseg more_good_parts --false-positive-rate 0.005",
    "export": "destseg export part.destseg part.xml --precision int8 --normal parts/train/good",
    "bench": "destseg bench part.destseg part.xml",
    "info": "destseg info part.destseg",
    "demo": "destseg demo chips --seed 1",
}


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command `destseg`; the command's name is left in `command`."""
    top = argparse.ArgumentParser("destseg", description=destseg.__doc__)
    top.add_argument("--version", action="version", version=f"destseg {destseg.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, describe) in COMMANDS.items():
        added = commands.add_parser(name, help=text, description=text, epilog=f"example: {EXAMPLES[name]}")
        added.formatter_class = argparse.RawDescriptionHelpFormatter
        describe(functools.partial(_add, added))
    return top


def _add(parser: argparse.ArgumentParser, *names: str, **settings: Any) -> None:
    if settings.get("default") not in (None, "", False):
        settings["help"] = f"{settings['help']} (default: %(default)s)"
    parser.add_argument(*names, **settings)


def _fit(option: Option) -> None:
    option("normal", nargs="+", metavar="NORMAL", help="directory of normal pictures, or pictures")
    option("-o", "--output", required=True, help="file of the model to write")
    presets = "the published network, a light one, or the baseline they start from"
    option("--preset", default="paper", choices=["paper", "fast", "stpm"], help=presets)
    _teacher(option, default="resnet18")
    option("--teacher-weights", metavar="PATH", help="file of its weights; else looked for and downloaded")
    option("--size", type=_size, default=256, help="input size in pixels, N or HEIGHTxWIDTH")
    sides = "side in pixels, N or HEIGHTxWIDTH, of the overlapping tiles that large pictures are cut into"
    option("--tile", type=_sides, metavar="SIDE", help=sides)
    shared = "share of a tile's side that its neighbours cover, too"
    option("--overlap", type=_overlap, default=0.25, metavar="SHARE", help=shared)
    option("--keep-aspect", action="store_true", help="scale alike both ways, and pad")
    _region(option)
    _steps(option, "training steps of the two stages (default: 1000 4000; 600 800 for fast)")
    sizes = "pictures per step (default: 32; 8 for fast)"
    option("--batch-size", type=_number(int, 1), help=sizes)
    option("--texture-source", metavar="DIR", help="pictures whose texture anomalies take; else own ones")
    turn = '0, degrees either way, or "90" for quarter turns +-5 degrees'
    option("--rotate", type=_rotate, default=0, help=turn)
    flips = ["", "horizontal", "vertical", "both"]
    option("--flip", default="", choices=flips, help="mirror parts, too")
    option("--seed", type=_number(int, 0), default=0, help="of everything drawn at random")
    option("--precision", default="auto", choices=["auto", "float32", "bfloat16"], help="of training")
    _inference_precision(option, "of prediction on a GPU", default="float32")
    option("--workers", type=_number(int, 0), default=2, help="threads that prepare batches")
    minutes = {"type": _number(float, 0), "default": 10.0, "metavar": "MINUTES"}
    option("--checkpoint-minutes", help="how often to save an unfinished run", **minutes)
    option("--resume", action="store_true", help="continue an interrupted run of the same output")
    share = "share of the pictures, at most 0.5, that calibrates and is not trained on; at least 10 do"
    option("--held-out", type=_share, default=0.2, metavar="SHARE", help=share)
    _false_positive_rate(option)
    _strict(option)
    _device(option)


def _predict(option: Option) -> None:
    _model(option)
    option("pictures", nargs="+", metavar="PICTURES", help="pictures, or directories of them")
    option("-o", "--output", metavar="OUT", help="folder for overlays and maps")
    option("--maps", default="none", choices=["none", "png", "npy"], help="anomaly maps: 16-bit or float")
    option("--no-overlays", dest="overlays", action="store_false", help="write no overlay pictures")
    _region(option)
    _strict(option)
    _device(option)


def _evaluate(option: Option) -> None:
    _model(option)
    option("dataset", metavar="DATASET", help="folder that holds test and ground_truth")
    option("--protocol", default="full", choices=["full", "paper"], help="full resolution, or the paper's")
    option("--json", metavar="FILE", help="write everything as JSON")
    option("--csv", metavar="FILE", help="write one line per picture")
    option("--defects-csv", metavar="FILE", help="write one line per defect, and one for all of them")
    _region(option)
    _device(option)


def _calibrate(option: Option) -> None:
    _model(option)
    option("normal", nargs="*", metavar="NORMAL", help="normal pictures; by default the last ones' scores")
    option("-o", "--output", help="file to write; by default MODEL itself")
    _inference_precision(option, "of prediction on a GPU from now on; another than before takes NORMAL")
    _region(option)
    _false_positive_rate(option)
    _strict(option)
    _device(option)


def _export(option: Option) -> None:
    _model(option)
    option("output", metavar="OUTPUT", help="file to write; its ending says for which engine")
    option("--precision", default="float32", choices=["float32", "int8"], help="of the convolutions")
    option("--normal", nargs="+", metavar="NORMAL", help="normal pictures, which int8 learns from")
    held_out = "normal pictures that fit did not see, for thresholds of the exported model's own"
    option("--calibration", nargs="+", metavar="NORMAL", help=held_out)
    option("--evaluate", metavar="DATASET", help="test set of the MVTec layout to tell the loss of int8 on")
    _strict(option)


def _bench(option: Option) -> None:
    option("models", nargs="*", metavar="MODEL", help="models; by default untrained ones of each kind")
    option("--size", type=_size, default=256, help="input size of untrained ones, N or HEIGHTxWIDTH")
    option("--seconds", type=_number(float, 0), default=5.0, help="for each of them")
    option("--evaluate", metavar="DATASET", help="say what the models find in it, too; laid out like MVTec's")


def _info(option: Option) -> None:
    option("model", nargs="?", metavar="MODEL", help="file written by fit or export")


def _demo(option: Option) -> None:
    option("folder", nargs="?", default="destseg-demo", metavar="FOLDER", help="to make and fill")
    option("--seed", type=_number(int, 0), default=0, help="of the parts and of training")
    _steps(option, "training steps of the two stages", default=[500, 350])
    option("--size", type=_size, default=192, help="input size in pixels, N or HEIGHTxWIDTH")
    option("--pictures", type=_number(int, 2), default=120, help="normal parts to make and fit")
    _teacher(option, default="embedded")
    option("--overwrite", action="store_true", help="replace the files of an earlier demo in FOLDER")
    _device(option)


def _model(option: Option) -> None:
    option("model", metavar="MODEL", help="file written by fit or export")


def _teacher(option: Option, default: str) -> None:
    text = "ImageNet's ResNet18, or one that learnt from it and is in the package"
    option("--teacher", default=default, choices=["resnet18", "embedded"], help=text)


def _steps(option: Option, text: str, default: list[int] | None = None) -> None:
    stages = {"nargs": 2, "metavar": ("STUDENT", "SEGMENTATION"), "type": _number(int, 0)}
    option("--steps", default=default, help=text, **stages)


def _region(option: Option) -> None:
    text = 'what counts: a mask picture, or a polygon of pixels "x,y x,y x,y"'
    option("--roi", type=_roi, metavar="ROI", help=text)


def _false_positive_rate(option: Option) -> None:
    text = "wanted share of normal parts called anomalous"
    option("--false-positive-rate", type=_rate, default=0.01, metavar="RATE", help=text)


def _inference_precision(option: Option, text: str, default: str | None = None) -> None:
    choices = ["float32", "float16", "bfloat16"]
    option("--inference-precision", default=default, choices=choices, help=text)


def _strict(option: Option) -> None:
    option("--strict", action="store_true", help="fail at the first unreadable picture")


def _device(option: Option) -> None:
    option("--device", type=_device_name, default="auto", help="auto, cpu, cuda, cuda:1 ...")


COMMANDS = {
    "demo": ("Make pictures of parts, fit a model, test it, and show what it found.", _demo),
    "fit": ("Learn what normal parts look like and write a model.", _fit),
    "predict": ("Find defects; one JSON line per picture on standard output.", _predict),
    "evaluate": ("Compute the six metrics on a test set of the MVTec layout.", _evaluate),
    "calibrate": ("Set the thresholds anew, from normal pictures that fit did not see.", _calibrate),
    "export": ("Write one graph for ONNX (.onnx), OpenVINO (.xml) or torch (.pt2).", _export),
    "bench": ("Time prediction by preset, engine and precision, beside the published network.", _bench),
    "info": ("Tell about this installation, or about a model.", _info),
}


def _number(kind: type[int] | type[float], least: int) -> Callable[[str], Any]:
    """Make the reader of a number of at least `least`."""

    def read(text: str) -> int | float:
        try:
            number = kind(text)
        except ValueError:
            number = least - 1
        if not number >= least:  # nor is NaN
            name = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"must be a {name} of at least {least}, got {text!r}")
        return number

    return read


def _rate(text: str) -> float:
    from destseg.calibration import check_rate

    return _checked(check_rate, _number(float, 0)(text))


def _share(text: str) -> float:
    from destseg.calibration import check_share

    return _checked(check_share, _number(float, 0)(text))


def _rotate(text: str) -> str:
    from destseg.synthesis import check_augmentation

    return _checked(lambda rotate: check_augmentation(rotate, ""), text)


def _size(text: str) -> int | tuple[int, int]:
    from destseg.presets import input_size

    return _checked(input_size, _sides(text))


def _sides(text: str) -> int | tuple[int, int]:
    """Read 256 or 256x512, height first."""
    try:
        sides = tuple(int(side) for side in text.lower().split("x"))
    except ValueError:
        sides = ()
    if len(sides) not in (1, 2):
        raise argparse.ArgumentTypeError(f"must be like 256 or 256x512 (height x width), got {text!r}")
    return sides[0] if len(sides) == 1 else (sides[0], sides[1])


def _device_name(text: str) -> str:
    from destseg.presets import torch_device

    return _checked(torch_device, text)


def _overlap(text: str) -> float:
    from destseg.framing import check_overlap

    return _checked(check_overlap, _number(float, 0)(text))


def _roi(text: str) -> str | list[tuple[float, ...]]:
    """Read points, or leave the path of a mask."""
    try:
        points = [tuple(float(number) for number in point.split(",")) for point in text.split()]
    except ValueError:
        return text
    if len(points) < 3 or any(len(point) != 2 for point in points):
        allowed = 'a mask picture, or at least three points "x,y x,y x,y"'
        raise argparse.ArgumentTypeError(f"must be {allowed}, got {text!r}")
    return points


def _checked(check: Callable[[Any], object], value: Any) -> Any:
    """Return a value that passes a check of the library; what it raises becomes wrong usage."""
    try:
        check(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return value
