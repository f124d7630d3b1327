"""What stands on the page of the tables: the tables, dot plots of three metrics, errors and settings."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from destseg.bench.matrix import Values
from destseg.bench.means import (
    ALL,
    COSTS,
    HEADER,
    SCALES,
    UNITS,
    Line,
    PublishedLine,
    aggregate,
    line_cells,
    measured_with,
    published_category,
    published_figures,
    published_means,
    value_of,
)
from destseg.settings import PROTOCOLS

PLOTTED = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP", "iap": "IAP"}

# Marks of methods, as paths of SVG about (0, 0); then the same again, hollow.
SHAPES = (
    "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0z",
    "M-.9-.9H.9V.9H-.9z",
    "M0-1.1 1.1.8H-1.1z",
    "M0-1.3 1.1 0 0 1.3-1.1 0z",
    "M0 1.1 1.1-.8H-1.1z",
    "M-.4-1.1H.4V-.4H1.1V.4H.4V1.1H-.4V.4H-1.1V-.4H-.4z",
    "M-1.1 0-.55-1H.55L1.1 0 .55 1H-.55z",
    "M0-1.3.35-.4 1.25-.4.55.2.8 1.1 0 .55-.8 1.1-.55.2-1.25-.4-.35-.4z",
)
COLOURS = 6  # that tables.html has for them

WIDTH, ROW, MARK = 360.0, 12.0, 4.0  # of a plot; of a method in it, in height; of a mean's mark, half of it
TOP, BOTTOM, GAP = 4.0, 20.0, 8.0  # around the plot; between categories
LETTERS, LETTER = 18, 6.6  # of a category's name in a plot at most; about the width of one


class Row(NamedTuple):
    """A row of a table: its name, its cells, and in which of them it is the best of the methods."""

    name: str
    cells: list[str]
    best: list[bool]
    is_published: bool = False


def tables_values(results: Sequence[Values], wanted: int, command: str | None) -> dict[str, Any]:
    """Return the values of the page.

    Args:
        results: those of the cells measured so far.
        wanted: how many cells there are.
        command: the command line that measures them; None: not known.
    """
    methods, categories, seeds = (
        list(dict.fromkeys(result[name] for result in results)) for name in ("method", "category", "seed")
    )
    failed = [result for result in results if "error" in result]
    facts = {
        "cells": f"{len(results)} of {wanted} measured" + (f", {len(failed)} failed" if failed else ""),
        "categories": str(len(categories)),
        "methods": ", ".join(methods),
        "seeds": ", ".join(map(str, seeds)),
        "measured with": " ".join(measured_with(results)) or "-",
    }
    tables = aggregate(results)
    return {
        "title": "Tables",
        "facts": facts,
        "units": UNITS,
        "header": HEADER,
        "protocols": [_protocol(name, tables[name], results) for name in tables],
        "marks": {method: _mark(place) for place, method in enumerate(methods)},
        "failed": [(_name(result), result["error"]) for result in failed],
        "settings": list(describe_settings(results)),
        "command": command,
    }


def _name(result: Values) -> str:
    return f"{result['category']}, {result['method']}, seed {result['seed']}"


def _protocol(
    name: str, table: Mapping[str, Mapping[str, Line]], results: Sequence[Values]
) -> dict[str, Any]:
    """Return what the page shows of one protocol."""
    groups: dict[str, dict[str, tuple[Line, PublishedLine | None]]] = {}
    for method, lines in table.items():
        for category, line in lines.items():
            published = published_means(method) if category == ALL else published_category(method, category)
            groups.setdefault(category, {})[method] = line, published
    plots = (plot_dots(title, column, name, table, results) for column, title in PLOTTED.items())
    return {
        "name": name,
        "meaning": PROTOCOLS[name],
        "all": _rows(groups.pop(ALL, {})),
        "groups": [(category, _rows(lines)) for category, lines in groups.items()],
        "plots": [plot for plot in plots if plot is not None],
    }


def _rows(lines: Mapping[str, tuple[Line, PublishedLine | None]]) -> list[Row]:
    """Return a row for each method, and the paper's once, below the last that it belongs to."""
    best = _best({method: line for method, (line, _) in lines.items()})
    papers = [paper for _, paper in lines.values()]
    rows: list[Row] = []
    for place, (method, (line, paper)) in enumerate(lines.items(), 1):
        rows.append(Row(method, line_cells(line), [*(method in best[column] for column in SCALES), False]))
        if paper is not None and paper not in papers[place:]:
            blank = [""] * (len(HEADER) - len(paper[1]))
            rows.append(Row(paper[0], [*paper[1], *blank], [False] * len(HEADER), True))
    return rows


def _best(lines: Mapping[str, Line]) -> dict[str, set[str]]:
    """Return by column the methods with the best mean, as it is shown; none where all are the same."""
    best: dict[str, set[str]] = {}
    for column, scale in SCALES.items():
        means = {method: line[column]["mean"] for method, line in lines.items()}
        shown = {method: round(scale * mean, 1) for method, mean in means.items() if mean is not None}
        choose = min if column in COSTS else max
        wins = {method for method, mean in shown.items() if mean == choose(shown.values())}
        best[column] = wins if len(wins) < len(shown) else set()
    return best


def _mark(place: int) -> dict[str, Any]:
    """Return what the method at a place is drawn with."""
    return {
        "shape": SHAPES[place % len(SHAPES)],
        "colour": place % COLOURS,
        "is_hollow": place // len(SHAPES) % 2 == 1,
    }


def plot_dots(
    title: str,
    column: str,
    protocol: str,
    table: Mapping[str, Mapping[str, Line]],
    results: Sequence[Values],
) -> dict[str, Any] | None:
    """Return a plot of one metric, a row for each category, as the template draws it.

    A method has its own line within each row, with a mark for each seed and a larger one for their mean.

    Returns:
        its title, size, words for those who do not see it, ticks, rows and marks; None without values.
    """
    dots: list[tuple[str, str, str, float, bool]] = []  # category, method, its words, percent, is it a mean
    for method, lines in table.items():
        for category, line in lines.items():
            if category != ALL and (mean := line[column]["mean"]) is not None:
                dots.append((category, method, "mean", 100 * mean, True))
    for result in results:  # drawn over the means
        if "error" not in result and (share := value_of(result, protocol, column)) is not None:
            dots.append((result["category"], result["method"], f"seed {result['seed']}", 100 * share, False))
    if not dots:
        return None
    categories = list(dict.fromkeys(result["category"] for result in results))
    papers = {}
    for category in categories:
        found = [published_figures(method, category) for method in table]
        figures = next((figures for figures in found if figures is not None), {})
        if column in figures:
            papers[category] = figures[column][0]
    ticks = choose_ticks([*(dot[3] for dot in dots), *papers.values()])
    labels = {category: _cut(category) for category in categories}
    left = 8 + LETTER * max(map(len, labels.values()))
    methods = list(table)
    height = len(methods) * ROW + GAP

    def x(percent: float) -> float:
        return round(left + (WIDTH - left - 10) * (percent - ticks[0]) / (ticks[-1] - ticks[0]), 1)

    tops = {category: TOP + place * height for place, category in enumerate(categories)}
    return {
        "title": title,
        "label": f"{title} in percent, one row for each category; the table above has the means",
        "width": WIDTH,
        "height": TOP + len(categories) * height + BOTTOM,
        "left": left,
        "bottom": TOP + len(categories) * height,
        "ticks": [(x(tick), f"{tick:g}") for tick in ticks],
        "rows": [
            {"name": category, "label": labels[category], "top": top, "middle": top + height / 2}
            for category, top in tops.items()
        ],
        "papers": [
            {
                "x": x(percent),
                "top": tops[category] + 3,
                "bottom": tops[category] + height - 3,
                "words": words,
            }
            for category, percent in papers.items()
            for words in [f"{category}, the paper: {percent:g}"]
        ],
        "marks": [
            {
                "x": x(percent),
                "y": round(tops[category] + GAP / 2 + (methods.index(method) + 0.5) * ROW, 1),
                "size": MARK if is_mean else MARK / 2,
                "method": method,
                "words": f"{category}, {method}, {words}: {percent:.1f}",
                "is_mean": is_mean,
            }
            for category, method, words, percent, is_mean in dots
        ],
    }


def _cut(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"


def choose_ticks(values: Sequence[float]) -> list[float]:
    """Return two to six even ticks around values in percent.

    Example:
        >>> choose_ticks([41.0, 88.5]), choose_ticks([97.2, 99.9])
        ([40, 60, 80, 100], [97, 98, 99, 100])
    """
    span = max(values) - min(values)
    step = next(step for step in (1, 2, 5, 10, 20, 25) if span <= 4 * step or step == 25)
    low, high = math.floor(min(values) / step), math.ceil(max(values) / step)
    low = min(low, high - 1)
    return [step * tick for tick in range(low, high + 1)]


def describe_settings(results: Iterable[Values]) -> Iterator[tuple[str, str]]:
    """Yield the settings of the cells, each once for the most cells that share it, and for whom they are.

    Those that are None are left out: they are as if nobody had named them.
    """
    left = {
        (result["category"], result["method"]): {
            f"{name}={value if isinstance(value, str) else json.dumps(value)}"  # as --set takes it
            for name, value in result["settings"].items()
            if value is not None
        }
        for result in results
    }
    kinds: tuple[Callable[[str, str], str], ...] = (
        lambda _, __: "all cells",
        lambda _, method: method,
        lambda category, _: category,
        lambda category, method: f"{category} with {method}",
    )
    for name_of in kinds:
        members: dict[str, list[set[str]]] = {}
        for pair, values in left.items():
            members.setdefault(name_of(*pair), []).append(values)
        found: dict[str, list[str]] = {}
        for name, sets in members.items():
            shared = set.intersection(*sets)
            for values in sets:
                values -= shared
            found.setdefault(", ".join(sorted(shared)), []).append(name)
        yield from ((", ".join(names), values) for values, names in found.items() if values)
