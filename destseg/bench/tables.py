"""Makes the paper's tables: means and deviations over seeds, as Markdown, CSV and JSON."""

import functools
import json
import statistics
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from destseg.bench.cells import measure, read_result, run_cells
from destseg.bench.matrix import Cell, Values
from destseg.bench.processes import threads_of_children
from destseg.bench.published import ABLATION, CATEGORIES, METHODS, Figures, published_name
from destseg.files import FilePath, as_path, write_whole
from destseg.inference.report import COLUMNS, write_csv
from destseg.ops.kernels import thread_count
from destseg.pictures.store import MEMORY
from destseg.progress import Bar
from destseg.settings import PROTOCOLS

COSTS = ("fit_minutes", "milliseconds", "peak_bytes")
HEADER = ("image AUROC", "pixel AUROC", "pixel AP", "PRO", "IAP", "IAP@90", "fit, min", "ms", "MB", "seeds")

ALL = "all"

Line = dict[str, Any]
"""A line of a table: by column {"mean", "deviation"}, or None; how many seeds count, and how many should."""


def make_tables(
    cells: Sequence[Cell],
    output: FilePath = "destseg-tables",
    config: FilePath | None = None,
    jobs: int = 1,
    device: str = "auto",
    progress: bool = True,
) -> tuple[str, int]:
    """Measure all cells that are not done yet, write tables, and return them with the number of failed cells.

    The output is a folder: tables.md, tables.csv and tables.json, which are written anew after every cell;
    cells, with a file for each; log.txt; and config.toml, a copy. Cells that are done are never measured
    again; those that failed are. Each has a process of its own.

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
    with (
        Bar("cells", len(cells), len(results), wanted=progress) as shown,
        threads_of_children(max(1, thread_count() // jobs)),
        closing(run_cells(left, folder, jobs, work)) as measured,
    ):
        for cell, result in measured:
            results[cell.name] = result
            shown.say(f"{cell.name}: {in_one_line(result)}")
            shown.update()
            _write(folder, cells, results)
    return _write(folder, cells, results), sum("error" in result for result in results.values())


def _write(folder: Path, cells: Sequence[Cell], results: dict[str, Values]) -> str:
    """Write the tables of what is measured so far, and return them as Markdown."""
    done = [results[cell.name] for cell in cells if cell.name in results]
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
        [*start, protocol, *(_value(result, protocol, name) for name in (*COLUMNS, *COSTS)), None]
        for protocol in PROTOCOLS
    ]


def _value(result: Values, protocol: str, column: str) -> float | None:
    """Return a metric as a share, or a cost; None where undefined."""
    found: float | None = result[column] if column in COSTS else result["reports"][protocol][column]
    return found


def aggregate(results: Sequence[Values]) -> dict[str, dict[str, dict[str, Line]]]:
    """Return the lines of the tables by protocol, method, and category; that of "all" categories comes last.

    Its deviation is that of the means over categories; seeds count that were measured on every category.
    """
    tables: dict[str, dict[str, dict[str, Line]]] = {protocol: {} for protocol in PROTOCOLS}
    for protocol, table in tables.items():
        for method in dict.fromkeys(result["method"] for result in results):
            of_method = [result for result in results if result["method"] == method]
            categories = dict.fromkeys(result["category"] for result in of_method)
            groups = {name: [r for r in of_method if r["category"] == name] for name in categories}
            seeds = list(dict.fromkeys(result["seed"] for result in of_method))
            lines = {name: _line([[r] for r in group], protocol) for name, group in groups.items()}
            by_seed = [[r for r in of_method if r["seed"] == seed] for seed in seeds]
            complete = [group for group in by_seed if len(group) == len(categories)]
            table[method] = {**lines, ALL: _line(complete, protocol, len(seeds))}
    return tables


def _line(groups: Sequence[Sequence[Values]], protocol: str, seeds: int | None = None) -> Line:
    """Return one line; each group holds the results of one seed, of which a failed one spoils the group."""
    good = [group for group in groups if not any("error" in result for result in group)]
    line: Line = {"seeds": len(good), "wanted": len(groups) if seeds is None else seeds}
    for column in (*COLUMNS, *COSTS):
        means = [_mean([_value(result, protocol, column) for result in group]) for group in good]
        known = [mean for mean in means if mean is not None]
        deviation = statistics.stdev(known) if len(known) > 1 else None
        line[column] = {"mean": _mean(means), "deviation": deviation}
    return line


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None where one is undefined."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def in_one_line(result: Values) -> str:
    """Describe a result in short."""
    if "error" in result:
        return f"failed: {' '.join(result['error'].split())}"
    report = next(iter(result["reports"].values()))
    shares = [_percent(report[name]) for name in COLUMNS]
    return f"{' / '.join(shares)}, {result['fit_minutes']:.1f} min, {result['milliseconds']:.0f} ms a picture"


def in_markdown(results: Sequence[Values]) -> str:
    """Return the tables in the paper's shape, with the paper's figures where there are some."""
    tables = aggregate(results)
    text = [
        "# Tables",
        "",
        "Percent: mean, and ± the standard deviation over seeds. fit: minutes; ms: from a decoded picture to "
        "its verdict, one at a time, the median; MB: largest resident memory of a process. In italics: the "
        "paper's figures, MVTec AD at 256 x 256, which follow the protocol paper.",
        "",
        *_about(results),
    ]
    for protocol, table in tables.items():
        text += [
            "",
            f"## Protocol {protocol}: {PROTOCOLS[protocol]}",
            "",
            "### All categories",
            "",
            *_head("method"),
        ]
        for method, lines in table.items():
            text += [_row(method, lines[ALL]), *_published(METHODS.get(method), "all 15 categories")]
        for method, lines in table.items():
            text += ["", f"### {method}", "", *_head("category")]
            for category, line in lines.items():
                name = published_name(category)
                figures = None if method in ABLATION else CATEGORIES.get(name)
                text += [_row(category, line), *_published(figures, f"DeSTSeg, {name}")]
                failed = [
                    r for r in results if "error" in r and (r["method"], r["category"]) == (method, category)
                ]
                text += [_cells(f"{category}, seed {r['seed']}", in_one_line(r)) for r in failed]
    return "\n".join(text) + "\n"


def _about(results: Sequence[Values]) -> list[str]:
    """Tell what the results were measured with."""
    good = [result for result in results if "error" not in result]
    kinds = {(r["versions"]["destseg"], r["versions"]["torch"], r["device"], r["threads"]) for r in good}
    return [
        f"destseg {own}, torch {torch}, {device}; threads of each cell: {threads}."
        for own, torch, device, threads in sorted(kinds)
    ]


def _head(first: str) -> list[str]:
    return [_cells(first, *HEADER), "|---" * (1 + len(HEADER)) + "|"]


def _row(name: str, line: Line) -> str:
    shares = [_spread(line[column], 100) for column in COLUMNS]
    costs = [_spread(line[column], scale) for column, scale in zip(COSTS, (1, 1, 1e-6), strict=True)]
    seeds = str(line["seeds"]) if line["seeds"] == line["wanted"] else f"{line['seeds']} of {line['wanted']}"
    return _cells(name, *shares, *costs, seeds)


def _published(figures: Figures | None, name: str) -> list[str]:
    """Return the paper's row, if there is one."""
    if figures is None:
        return []
    shown = [" ± ".join(map(str, figures.get(column, ()))) for column in COLUMNS]
    return [_cells(*(f"*{text}*" if text else "" for text in (f"paper: {name}", *shown)))]


def _cells(*cells: str) -> str:
    padded = [*cells, *[""] * (1 + len(HEADER) - len(cells))]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in padded) + " |"


def _spread(spread: dict[str, float | None], scale: float) -> str:
    mean, deviation = spread["mean"], spread["deviation"]
    if mean is None:
        return "-"
    return f"{scale * mean:.1f}" + ("" if deviation is None else f" ± {scale * deviation:.1f}")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
