"""Means and deviations over seeds: what the paper's tables say, and the paper's own figures beside them."""

import statistics
from collections.abc import Sequence
from typing import Any

from destseg.bench.matrix import Values
from destseg.bench.published import ABLATION, CATEGORIES, METHODS, Figures, published_name
from destseg.inference.report import COLUMNS
from destseg.settings import PROTOCOLS

COSTS = ("fit_minutes", "milliseconds", "peak_bytes")
SCALES = dict.fromkeys(COLUMNS, 100.0) | {"fit_minutes": 1.0, "milliseconds": 1.0, "peak_bytes": 1e-6}
HEADER = ("image AUROC", "pixel AUROC", "pixel AP", "PRO", "IAP", "IAP@90", "fit, min", "ms", "MB", "seeds")
UNITS = (
    "Percent: mean, and ± the standard deviation over seeds. fit: minutes; ms: from a decoded picture to its "
    "verdict, one at a time, the median; MB: largest resident memory of a process. In italics: the paper's "
    "figures, MVTec AD at 256 x 256, which follow the protocol paper."
)
ALL = "all"

Line = dict[str, Any]
"""A line of a table: by column {"mean", "deviation"}, or None; how many seeds count, and how many should."""

PublishedLine = tuple[str, list[str]]
"""A line of the paper: its name, and a text for each of its metrics, which are the first columns."""


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
    for column in SCALES:
        means = [_mean([value_of(result, protocol, column) for result in group]) for group in good]
        known = [mean for mean in means if mean is not None]
        deviation = statistics.stdev(known) if len(known) > 1 else None
        line[column] = {"mean": _mean(means), "deviation": deviation}
    return line


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None where one is undefined."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def value_of(result: Values, protocol: str, column: str) -> float | None:
    """Return a metric as a share, or a cost; None where undefined."""
    found: float | None = result[column] if column in COSTS else result["reports"][protocol][column]
    return found


def line_cells(line: Line) -> list[str]:
    """Return a line's cells as texts, one for each name of HEADER."""
    seeds = str(line["seeds"]) if line["seeds"] == line["wanted"] else f"{line['seeds']} of {line['wanted']}"
    return [*(_spread(line[column], scale) for column, scale in SCALES.items()), seeds]


def _spread(spread: dict[str, float | None], scale: float) -> str:
    mean, deviation = spread["mean"], spread["deviation"]
    if mean is None:
        return "-"
    return f"{scale * mean:.1f}" + ("" if deviation is None else f" ± {scale * deviation:.1f}")


def published_means(method: str) -> PublishedLine | None:
    """Return the paper's line for a method over all categories; None if there is none."""
    return _published_line("all 15 categories", METHODS.get(method))


def published_category(method: str, category: str) -> PublishedLine | None:
    """Return the paper's line for a category, which is of the whole method; None if there is none."""
    return _published_line(f"DeSTSeg, {published_name(category)}", published_figures(method, category))


def published_figures(method: str, category: str) -> Figures | None:
    return None if method in ABLATION else CATEGORIES.get(published_name(category))


def _published_line(name: str, figures: Figures | None) -> PublishedLine | None:
    if figures is None:
        return None
    return f"paper: {name}", [" ± ".join(map(str, figures.get(column, ()))) for column in COLUMNS]


def in_one_line(result: Values) -> str:
    """Describe a result in short."""
    if "error" in result:
        return f"failed: {' '.join(result['error'].split())}"
    report = next(iter(result["reports"].values()))
    shares = ["-" if report[name] is None else f"{100 * report[name]:.1f}" for name in COLUMNS]
    return f"{' / '.join(shares)}, {result['fit_minutes']:.1f} min, {result['milliseconds']:.0f} ms a picture"


def measured_with(results: Sequence[Values]) -> list[str]:
    """Tell what the results were measured with."""
    good = [result for result in results if "error" not in result]
    kinds = {(r["versions"]["destseg"], r["versions"]["torch"], r["device"], r["threads"]) for r in good}
    return [
        f"destseg {own}, torch {torch}, {device}; threads of each cell: {threads}."
        for own, torch, device, threads in sorted(kinds)
    ]
