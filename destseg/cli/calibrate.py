"""`destseg calibrate`: sets the thresholds of a model, fitted or exported."""

import argparse
from functools import partial

import destseg
from destseg.cli.arguments import (
    PICTURES,
    UsageError,
    add_device,
    add_false_positive_rate,
    add_group,
    add_inference_precision,
    add_model,
    add_progress,
    add_roi,
    add_strict,
    read_lists,
    wrong_usage,
)
from destseg.cli.output import check_output, finish, save, show, thresholds
from destseg.progress import say
from destseg.settings import check_device, check_groups, check_rate

HELP = "Set the thresholds anew, from normal pictures that fit did not see."
EXAMPLE = "destseg calibrate part.destseg more_good_parts --false-positive-rate 0.005"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    normal = f"{PICTURES} (default: the scores of the last calibration)"
    add("normal", nargs="*", metavar="NORMAL", help=normal)
    add("-o", "--output", help="file to write (default: MODEL itself)")
    precision = "precision of prediction on a GPU from now on; changing it requires NORMAL"
    add_inference_precision(parser, precision)
    add_roi(parser)
    add_false_positive_rate(parser)
    add_group(parser)
    add_strict(parser)
    add_device(parser)
    add_progress(parser)


def run(options: argparse.Namespace) -> int:
    with wrong_usage():
        check_device(options.device)
        check_rate(options.false_positive_rate)
        check_groups(options.groups)
        normal = read_lists(options.normal) or None

    from destseg.artifacts.formats import format_of

    form = format_of(options.model)
    if options.roi is not None and form.build is not None:  # before hours of scoring
        raise UsageError(f"--roi: the graph in {options.model} judges whole pictures")
    check_output(options.output, form)
    model = destseg.load(options.model, options.device, options.inference_precision)
    choices = {"groups": options.groups, "strict": options.strict, "roi": options.roi}
    choices |= {"progress": options.progress}
    model.calibrate(normal, options.false_positive_rate, **choices)
    output = options.output or options.model
    finish(partial(show, "\n".join(thresholds(model.calibration_))), partial(save, model, output))
    say(f"wrote {output}", options.progress)
    return 0
