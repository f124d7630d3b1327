"""`destseg export`: writes a model for other engines."""

import argparse

import destseg
from destseg.cli.arguments import add_model, add_progress, add_strict
from destseg.cli.output import check_output, show
from destseg.progress import say
from destseg.settings import EXPORT_PRECISIONS

HELP = "Write a model as one graph for ONNX (.onnx) or OpenVINO (.xml)."
EXAMPLE = "destseg export part.destseg part.xml --precision int8 --normal parts/train/good"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    add("output", metavar="OUTPUT", help="file to write; its ending chooses the engine")
    precision = "precision of the convolutions"
    add("--precision", default=EXPORT_PRECISIONS[0], choices=EXPORT_PRECISIONS, help=precision)
    add("--normal", nargs="+", metavar="NORMAL", help="normal pictures for int8 to learn from")
    held_out = "normal pictures, seen neither by fit nor in --normal, to calibrate the exported model with"
    add("--calibration", nargs="+", metavar="NORMAL", help=held_out)
    dataset = "test set in the MVTec layout, to measure what int8 costs"
    add("--evaluate", metavar="DATASET", help=dataset)
    add_strict(parser)
    add_progress(parser)


def run(options: argparse.Namespace) -> int:
    check_output(options.output)
    model = destseg.load(options.model, "cpu")
    pictures = {"normal": options.normal, "calibration": options.calibration, "strict": options.strict}
    progress = options.progress
    model.export(options.output, precision=options.precision, progress=progress, **pictures)
    say(f"wrote {options.output}", progress)
    if options.precision == "int8":
        from destseg.bench.speed import int8_cost

        quantised = destseg.load(options.output)
        show(int8_cost(model, quantised, options.normal, options.evaluate, progress))
    return 0
