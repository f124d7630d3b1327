"""`destseg demo`: runs the demo."""

import argparse

from destseg.cli.arguments import (
    SIDES,
    add_device,
    add_progress,
    add_steps,
    add_teacher,
    read_sides,
    read_whole_number,
    wrong_usage,
)
from destseg.cli.output import show
from destseg.settings import OWN_TEACHERS, Schedule, Settings, check_device, whole_number

HELP = "Make pictures of parts, fit a model, test it, and show what it found."
EXAMPLE = "destseg demo chips --seed 1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", nargs="?", default="destseg-demo", metavar="FOLDER", help="folder to make and fill")
    add("--seed", type=read_whole_number, default=0, help="seed of the parts and of training")
    add_steps(parser, "500 350", default=(500, 350))
    add("--size", dest="image_size", type=read_sides, default=192, metavar="SIZE", help=f"input size {SIDES}")
    add("--pictures", type=read_whole_number, default=120, help="number of normal parts to make and fit to")
    add_teacher(parser, OWN_TEACHERS[Settings.preset])
    add("--overwrite", action="store_true", help="replace the files of an earlier demo in FOLDER")
    add_device(parser)
    add_progress(parser)


def run(options: argparse.Namespace) -> int:
    with wrong_usage():
        Settings(teacher=options.teacher, image_size=options.image_size, seed=options.seed)
        Schedule.of(Settings.preset, options.steps, None)
        check_device(options.device)
        whole_number("pictures", options.pictures, least=2)

    from destseg.demo import run as run_demo

    show(run_demo(**vars(options)).text())
    return 0
