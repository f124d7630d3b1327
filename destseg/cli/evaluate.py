"""`destseg evaluate`: measures a model on a test set, as a table and as files for other programs."""

import argparse
from functools import partial

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
from destseg.settings import PROTOCOLS, check_device

HELP = "Compute the metrics on a test set in the MVTec layout."
EXAMPLE = "destseg evaluate part.destseg parts --report report.html --csv pictures.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    add("dataset", metavar="DATASET", help="folder that holds test, and ground_truth for pixel metrics")
    protocol = "compare with masks at their full resolution, or as the paper does"
    add("--protocol", default=next(iter(PROTOCOLS)), choices=PROTOCOLS, help=protocol)
    add("--json", metavar="FILE", help="write everything as JSON")
    add("--csv", metavar="FILE", help="write one line per picture")
    add("--defects-csv", metavar="FILE", help="write one line per defect, and one for all of them")
    add_report(parser)
    robustness = "evaluate also pictures made a little darker, brighter, shifted and rotated"
    add("--robustness", action="store_true", help=robustness)
    add_roi(parser)
    add_strict(parser)
    add_device(parser)
    add_progress(parser)


def run(options: argparse.Namespace) -> int:
    with wrong_usage():
        check_device(options.device)
    for path in (options.json, options.csv, options.defects_csv):
        check_output(path)
    check_report(options.report)
    model = destseg.load(options.model, options.device)
    report = model.evaluate(
        options.dataset,
        protocol=options.protocol,
        progress=options.progress,
        roi=options.roi,
        robustness=options.robustness,
        strict=options.strict,
        gallery=options.report is not None,
    )
    files = [(report.to_json, options.json), (report.to_csv, options.csv)]
    files.append((report.defects_to_csv, options.defects_csv))
    files.append((partial(report.to_html, model=options.model), options.report))
    finish(partial(show, report.table()), *(partial(write, path) for write, path in files if path))
    return 0
