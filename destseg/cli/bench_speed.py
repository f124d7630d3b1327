"""`destseg bench speed`: measures what prediction costs."""

import argparse

from destseg.cli.arguments import SIDES, add_progress, read_number, read_sides, wrong_usage
from destseg.cli.output import show
from destseg.settings import Settings, check_amounts, input_size

HELP = "Time prediction by preset, engine and precision, beside the published network."
EXAMPLE = "destseg bench speed part.destseg part.xml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help="models (default: untrained ones of each kind)")
    add(
        "--size", type=read_sides, default=Settings.image_size, help=f"input size of untrained models {SIDES}"
    )
    add("--seconds", type=read_number, default=5.0, help="time for each model")
    dataset = "also measure what the models find in this test set in the MVTec layout"
    add("--evaluate", dest="dataset", metavar="DATASET", help=dataset)
    add_progress(parser)


def run(options: argparse.Namespace) -> int:
    with wrong_usage():
        input_size(options.size)
        check_amounts(seconds=options.seconds)

    from destseg.bench.speed import table

    show(table(**vars(options)))
    return 0
