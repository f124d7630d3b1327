"""Makes the paper's tables: means and deviations over seeds, as Markdown, CSV, JSON and a page."""

import functools
import json
import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from destseg.bench.cells import measure, read_result, run_cells
from destseg.bench.matrix import Cell, Values
from destseg.bench.means import (
    ALL,
    COSTS,
    HEADER,
    UNITS,
    PublishedLine,
    aggregate,
    in_one_line,
    line_cells,
    measured_with,
    published_category,
    published_means,
    value_of,
)
from destseg.bench.processes import threads_of_children
from destseg.bench.tables_page import tables_values
from destseg.files import FilePath, as_path, write_whole
from destseg.inference.report import COLUMNS, write_csv
from destseg.ops.kernels import thread_count
from destseg.packages import import_package
from destseg.page.rendering import write_page
from destseg.pictures.store import MEMORY
from destseg.progress import Bar
from destseg.settings import PROTOCOLS

logger = logging.getLogger("destseg")


def make_tables(
    cells: Sequence[Cell],
    output: FilePath = "destseg-tables",
    config: FilePath | None = None,
    jobs: int = 1,
    device: str = "auto",
    progress: bool = True,
    command: str | None = None,
) -> tuple[str, int]:
    """Measure all cells that are not done yet, write tables, and return them with the number of failed cells.

    The output is a folder: tables.md, tables.csv, tables.json and the page tables.html, which are written
    anew after every cell; cells, with a file for each; log.txt; and config.toml, a copy. Cells that are done
    are never measured again; those that failed are. Each has a process of its own. Without Jinja2 the page is
    left out, and a warning says so.

    The jobs share the threads that an operation may use here. Together they keep as much as one `fit` does:
    `destseg.pictures.store.MEMORY` bytes of decoded pictures, of textures, and of features, each. Beside that
    each holds its network with a batch, and while it evaluates, up to `destseg.metrics.accumulator.MEMORY`
    bytes of scores.

    Args:
        cells: as `destseg.bench.matrix.cells_of` lists them.
        output: the folder.
        config: the TOML file that cells were made from.
        jobs: how many processes run at the same time, at least 1.
        device: as of `destseg.DeSTSeg`.
        progress: show a progress bar, and a line for each cell.
        command: the command line that does the same, for the page.

    Raises ValueError, before anything is measured, where the output holds results of other settings.
    """
    folder = as_path(output)
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        write_whole(folder / "config.toml", lambda file: file.write(as_path(config).read_bytes()))
    stored = {cell.name: read_result(cell, folder) for cell in cells}
    results = {name: result for name, result in stored.items() if result and "error" not in result}
    left = [cell for cell in cells if cell.name not in results]
    work = functools.partial(measure, device=device, memory=MEMORY // jobs)
    has_page = _can_write_page()

    def write() -> str:
        done = [results[cell.name] for cell in cells if cell.name in results]
        markdown = _write(folder, done)
        if has_page:
            write_page(folder / "tables.html", "tables.html", tables_values(done, len(cells), command))
        return markdown

    with (
        Bar("cells", len(cells), len(results), wanted=progress) as shown,
        threads_of_children(max(1, thread_count() // jobs)),
        closing(run_cells(left, folder, jobs, work)) as measured,
    ):
        for cell, result in measured:
            results[cell.name] = result
            shown.say(f"{cell.name}: {in_one_line(result)}")
            shown.update()
            write()
    return write(), sum("error" in result for result in results.values())


def _can_write_page() -> bool:
    try:
        import_package("jinja2")
    except ImportError as error:
        logger.warning("tables.html is left out: %s", error)
        return False
    return True


def _write(folder: Path, done: Sequence[Values]) -> str:
    """Write the tables of what is measured so far, and return them as Markdown."""
    markdown = in_markdown(done)
    write_whole(folder / "tables.md", lambda file: file.write(markdown.encode()))
    content = {"tables": aggregate(done), "cells": done}
    write_whole(
        folder / "tables.json", lambda file: file.write((json.dumps(content, indent=1) + "\n").encode())
    )
    header = ["category", "method", "seed", "protocol", *COLUMNS, *COSTS, "error"]
    write_csv(folder / "tables.csv", header, [line for result in done for line in _csv_lines(result)])
    return markdown


def _csv_lines(result: Values) -> list[list[Any]]:
    start = [result["category"], result["method"], result["seed"]]
    if "error" in result:
        return [[*start, *[None] * (1 + len(COLUMNS) + len(COSTS)), result["error"]]]
    return [
        [*start, protocol, *(value_of(result, protocol, name) for name in (*COLUMNS, *COSTS)), None]
        for protocol in PROTOCOLS
    ]


def in_markdown(results: Sequence[Values]) -> str:
    """Return the tables in the paper's shape, with the paper's figures where there are some."""
    text = ["# Tables", "", UNITS, "", *measured_with(results)]
    for protocol, table in aggregate(results).items():
        text += [
            "",
            f"## Protocol {protocol}: {PROTOCOLS[protocol]}",
            "",
            "### All categories",
            "",
            *_head("method"),
        ]
        for method, lines in table.items():
            text += [_cells(method, *line_cells(lines[ALL])), *_published(published_means(method))]
        for method, lines in table.items():
            text += ["", f"### {method}", "", *_head("category")]
            for category, line in lines.items():
                text += [
                    _cells(category, *line_cells(line)),
                    *_published(published_category(method, category)),
                ]
                failed = [
                    r for r in results if "error" in r and (r["method"], r["category"]) == (method, category)
                ]
                text += [_cells(f"{category}, seed {r['seed']}", in_one_line(r)) for r in failed]
    return "\n".join(text) + "\n"


def _head(first: str) -> list[str]:
    return [_cells(first, *HEADER), "|---" * (1 + len(HEADER)) + "|"]


def _published(line: PublishedLine | None) -> list[str]:
    """Return the paper's row, if there is one."""
    return [] if line is None else [_cells(*(f"*{text}*" if text else "" for text in (line[0], *line[1])))]


def _cells(*cells: str) -> str:
    padded = [*cells, *[""] * (1 + len(HEADER) - len(cells))]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in padded) + " |"
