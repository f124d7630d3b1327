"""`destseg bench tables`: measures what models find on many test sets, as the paper's tables do."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from destseg.cli.arguments import add_device, add_progress, read_whole_number, wrong_usage
from destseg.cli.output import check_output, show
from destseg.settings import PRESETS, check_choice, check_device, whole_number

HELP = "Fit and evaluate models on every category of data sets, and make the paper's tables."
EXAMPLE = "destseg bench tables mvtec --seeds 0 1 2 --presets fast paper --set image_size=128 -o tables"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    roots = "data sets, folders of categories in the layout of MVTec AD, BTAD, MPDD or VisA; or categories"
    add("roots", nargs="+", metavar="ROOT", help=roots)
    add("--categories", nargs="+", metavar="NAME", help="measure these categories only")
    seeds = "each cell is measured with each of them (default: 0 1 2 3 4)"
    add("--seeds", nargs="+", type=read_whole_number, default=[0, 1, 2, 3, 4], metavar="SEED", help=seeds)
    presets = "presets to measure (default: fast, unless there are variants or --ablation)"
    add("--presets", nargs="+", choices=PRESETS, default=[], help=presets)
    add("--ablation", action="store_true", help="measure the eight rows of the paper's ablation")
    config = "TOML file of settings: [settings] for all, [categories.NAME], and [variants.NAME] to compare"
    add("--config", metavar="FILE", help=config)
    setting = "setting for all cells, of the model or of fit, such as steps=[300,400] or texture_source=DTD"
    add("--set", dest="overrides", action="append", default=[], metavar="NAME=VALUE", help=setting)
    jobs = (
        "cells measured at once, each with 1/N of the threads and of the memory that a fit keeps pictures in"
    )
    add("--jobs", type=read_whole_number, default=1, metavar="N", help=jobs)
    output = "folder for tables and results; cells whose results are there are not measured again"
    add("-o", "--output", default="destseg-tables", metavar="OUT", help=output)
    add_device(parser)
    add_progress(parser)


def run(options: argparse.Namespace) -> int:
    from destseg.bench.matrix import Config, cells_of, methods_of, read_config, read_setting

    with wrong_usage():
        check_device(options.device)
        whole_number("jobs", options.jobs, least=1)
        config = Config() if options.config is None else read_config(options.config)
        overrides = dict(map(read_setting, options.overrides))
        methods = methods_of(options.presets, options.ablation, config.variants)

    from destseg.bench.tables import make_tables
    from destseg.pictures.categories import find_categories

    with wrong_usage():
        folders = find_categories(options.roots)
        for name in {*(options.categories or ()), *config.categories}:
            check_choice("category", name, folders)
        chosen = {name: folders[name] for name in options.categories or folders}
        cells = cells_of(chosen, methods, options.seeds, config, overrides)
    check_output(str(Path(options.output, "tables.md")))
    given: dict[str, Any] = {name: vars(options)[name] for name in ("output", "config", "jobs", "device")}
    tables, failed = make_tables(cells, **given, progress=options.progress, command=_command(options))
    show(tables.rstrip("\n"))
    return 1 if failed else 0


def _command(options: argparse.Namespace) -> str:
    """Return the command line that these options make."""
    words = ["destseg", "bench", "tables", *map(_path, options.roots)]
    for name in ("categories", "seeds", "presets"):
        values = getattr(options, name)
        words += [f"--{name}", *map(str, values)] if values else []
    words += ["--ablation"] if options.ablation else []
    words += [] if options.config is None else ["--config", _path(options.config)]
    for setting in options.overrides:
        words += ["--set", setting]
    words += ["--jobs", str(options.jobs), "--device", options.device, "--output", _path(options.output)]
    return shlex.join(words)


def _path(path: str) -> str:
    """Return a path that is not taken for an option."""
    return f"./{path}" if path.startswith("-") else path
