"""What the command line takes: commands, options, examples. torch is imported when a value needs checking."""

import argparse
from collections.abc import Callable
from typing import Any

import destseg

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

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, epilog=f"example: {EXAMPLES[name]}")
        added.formatter_class = argparse.RawDescriptionHelpFormatter
        return added

    def option(to: argparse.ArgumentParser, *names: str, **settings: object) -> None:
        default = settings.get("default")
        if default not in (None, "", False):
            settings["help"] = f"{settings['help']} (default: %(default)s)"
        to.add_argument(*names, **settings)  # type: ignore[arg-type]

    one = command("fit", "Learn what normal parts look like and write a model.")
    option(one, "normal", nargs="+", metavar="NORMAL", help="directory of normal pictures, or pictures")
    option(one, "-o", "--output", required=True, help="file of the model to write")
    presets = {"default": "paper", "choices": ["paper", "fast", "stpm"]}
    option(
        one, "--preset", help="the published network, a light one, or the baseline they start from", **presets
    )
    teachers = {"default": "resnet18", "choices": ["resnet18", "embedded"]}
    option(one, "--teacher", help="ImageNet's ResNet18, or a compact one that is in the package", **teachers)
    option(
        one, "--teacher-weights", metavar="PATH", help="file of its weights; else looked for and downloaded"
    )
    option(one, "--size", type=_size, default=256, help="input size in pixels, N or HEIGHTxWIDTH")
    steps = {
        "type": _number(int, 0),
        "nargs": 2,
        "default": [1000, 4000],
        "metavar": ("STUDENT", "SEGMENTATION"),
    }
    option(one, "--steps", help="training steps of the two stages", **steps)
    option(one, "--batch-size", type=_number(int, 1), default=32, help="pictures per step")
    option(
        one, "--texture-source", metavar="DIR", help="pictures whose texture anomalies take; else own ones"
    )
    turn = '0, degrees either way, or "90" for quarter turns +-5 degrees'
    option(one, "--rotate", type=_rotate, default=0, help=turn)
    option(
        one, "--flip", default="", choices=["", "horizontal", "vertical", "both"], help="mirror parts, too"
    )
    option(one, "--seed", type=_number(int, 0), default=0, help="of everything drawn at random")
    precisions = ["auto", "float32", "bfloat16"]
    option(one, "--precision", default="auto", choices=precisions, help="of training")
    option(one, "--workers", type=_number(int, 0), default=2, help="threads that prepare batches")
    minutes = {"type": _number(float, 0), "default": 10.0, "metavar": "MINUTES"}
    option(one, "--checkpoint-minutes", help="how often to save an unfinished run", **minutes)
    option(one, "--resume", action="store_true", help="continue an interrupted run of the same output")

    two = command("predict", "Find defects; one JSON line per picture on standard output.")
    option(two, "model", metavar="MODEL", help="file written by fit")
    option(two, "pictures", nargs="+", metavar="PICTURES", help="pictures, or directories of them")
    option(two, "-o", "--output", metavar="OUT", help="folder for overlays and maps")
    option(
        two, "--maps", default="none", choices=["none", "png", "npy"], help="anomaly maps: 16-bit or float"
    )
    option(two, "--no-overlays", dest="overlays", action="store_false", help="write no overlay pictures")

    three = command("evaluate", "Compute the six metrics on a test set of the MVTec layout.")
    option(three, "model", metavar="MODEL", help="file written by fit")
    option(three, "dataset", metavar="DATASET", help="folder that holds test and ground_truth")
    protocols = {"default": "full", "choices": ["full", "paper"]}
    option(three, "--protocol", help="full resolution, or that of the paper", **protocols)
    option(three, "--json", metavar="FILE", help="write everything as JSON")
    option(three, "--csv", metavar="FILE", help="write one line per picture")
    option(three, "--defects-csv", metavar="FILE", help="write one line per defect, and one for all of them")

    four = command("calibrate", "Set the thresholds anew, from normal pictures that fit did not see.")
    option(four, "model", metavar="MODEL", help="file written by fit")
    option(
        four, "normal", nargs="*", metavar="NORMAL", help="normal pictures; by default the last ones' scores"
    )
    option(four, "-o", "--output", help="file to write; by default MODEL itself")

    five = command("info", "Tell about this installation, or about a model.")
    option(five, "model", nargs="?", metavar="MODEL", help="file written by fit")

    sides = "side in pixels, N or HEIGHTxWIDTH, of the overlapping tiles that large pictures are cut into"
    option(one, "--tile", type=_sides, metavar="SIDE", help=sides)
    shared = {"type": _overlap, "default": 0.25, "metavar": "SHARE"}
    option(one, "--overlap", help="share of a tile's side that its neighbours cover, too", **shared)
    option(one, "--keep-aspect", action="store_true", help="scale alike both ways, and pad")
    for regional in (one, two, three, four):
        text = 'what counts: a mask picture, or a polygon of pixels "x,y x,y x,y"'
        option(regional, "--roi", type=_roi, metavar="ROI", help=text)

    eight = command("demo", "Make pictures of parts, fit a model, test it, and show what it found.")
    option(eight, "folder", nargs="?", default="destseg-demo", metavar="FOLDER", help="to make and fill")
    option(eight, "--seed", type=_number(int, 0), default=0, help="of the parts and of training")
    option(eight, "--steps", help="training steps of the two stages", **(steps | {"default": [500, 350]}))
    option(eight, "--size", type=_size, default=192, help="input size in pixels, N or HEIGHTxWIDTH")
    option(eight, "--pictures", type=_number(int, 2), default=120, help="normal parts to make and fit")
    option(eight, "--teacher", help="as for fit", **(teachers | {"default": "embedded"}))
    option(eight, "--overwrite", action="store_true", help="replace the files of an earlier demo in FOLDER")

    six = command("export", "Write one graph for ONNX (.onnx), OpenVINO (.xml) or torch (.pt2).")
    option(six, "model", metavar="MODEL", help="file written by fit")
    option(six, "output", metavar="OUTPUT", help="file to write; its ending says for which engine")
    option(six, "--precision", default="float32", choices=["float32", "int8"], help="of the convolutions")
    option(six, "--normal", nargs="+", metavar="NORMAL", help="normal pictures, which int8 learns from")
    option(
        six, "--evaluate", metavar="DATASET", help="test set of the MVTec layout to tell the loss of int8 on"
    )

    seven = command("bench", "Time prediction by preset, engine and precision, beside the published network.")
    option(seven, "models", nargs="*", metavar="MODEL", help="models; by default untrained ones of each kind")
    option(seven, "--size", type=_size, default=256, help="input size of untrained ones, N or HEIGHTxWIDTH")
    option(seven, "--seconds", type=_number(float, 0), default=5.0, help="for each of them")

    text = "share of the pictures, at most 0.5, that calibrates and is not trained on; at least 10 do"
    option(one, "--held-out", type=_share, default=0.2, metavar="SHARE", help=text)
    for rated in (one, four):
        text = "wanted share of normal parts called anomalous"
        option(rated, "--false-positive-rate", type=_rate, default=0.01, metavar="RATE", help=text)
    for strict in (one, two, four, six):
        option(strict, "--strict", action="store_true", help="fail at the first unreadable picture")
    for placed in (one, two, three, four, eight):
        option(placed, "--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    return top


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
