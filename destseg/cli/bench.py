"""`destseg bench`: measures what models cost, and what they find."""

import argparse

from destseg.cli import bench_speed, bench_tables
from destseg.cli.arguments import add_verbs

HELP = "Measure speed, or quality on many test sets as the paper's tables do."
EXAMPLE = "destseg bench speed part.destseg part.xml"
BENCHES = {"speed": bench_speed, "tables": bench_tables}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_verbs(parser, "bench", BENCHES)


def run(options: argparse.Namespace) -> int:
    return BENCHES[vars(options).pop("bench")].run(options)
