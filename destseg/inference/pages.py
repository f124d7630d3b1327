"""What stands on the report page: of an evaluation, or of predictions without ground truth."""

import base64
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from destseg.files import FilePath
from destseg.inference.calibration import Calibration, p_value
from destseg.inference.prediction import Prediction
from destseg.metrics.plots import Curve
from destseg.page import look
from destseg.page.gallery import Gallery
from destseg.page.rendering import write_page

if TYPE_CHECKING:
    from destseg.inference.report import Report

MEANINGS = {  # of the metrics
    "image_auroc": "how often a defective picture scores above a good one, of all pairs of them",
    "pixel_auroc": "how often a defective pixel scores above a good one; high where defects are small",
    "pixel_ap": "precision of the marked pixels, averaged over all shares of defective pixels found",
    "pro": "share of each defect that is covered, averaged up to 30 % of good pixels marked",
    "iap": "precision of the marked pixels, averaged over all shares of defects found",
    "iap90": "precision of the marked pixels where 90 % of the defects are found",
}
RATE, FOUND = "share of good {} marked", "share of defective {} found"
CURVES: dict[str, tuple[str, str, str, str, float]] = {  # title, axes, the metric behind it, end of x
    "image_roc": ("ROC of pictures", RATE.format("pictures"), FOUND.format("pictures"), "image_auroc", 1),
    "image_precision_recall": (
        *("Precision and recall of pictures", FOUND.format("pictures"), "precision", "", 1),
    ),
    "pixel_roc": ("ROC of pixels", RATE.format("pixels"), FOUND.format("pixels"), "pixel_auroc", 1),
    "pixel_precision_recall": (
        *("Precision and recall of pixels", FOUND.format("pixels"), "precision", "pixel_ap", 1),
    ),
    "region_overlap": ("PRO", RATE.format("pixels"), "mean share of a defect covered", "pro", 0.3),
    "instance_precision": ("IAP", "share of defects found", "precision", "iap", 1),
}
UNKNOWN_MODEL = "MODEL"


def report_values(report: "Report", model: str) -> dict[str, Any]:
    """Return the values of the page about an evaluation; `model` is the name of the model's file."""
    metrics = [
        (name.replace("_", " "), "-" if math.isnan(value) else f"{100 * value:.1f} %", meaning)
        for name, meaning in MEANINGS.items()
        if not math.isnan(value := getattr(report, name)) or report.has_masks
    ]
    rows = [(row.name, row.defect, row.score) for row in report.rows]
    plots = []
    for name, curve in report.curves.items():
        title, x, y, metric, end = CURVES[name]
        area = f", {100 * getattr(report, metric):.1f} %" if metric else ""
        shown = {"title": title + area, "x": x, "y": y, "end": end, "name": name}
        plots.append(shown | {"points": _points(curve)})
    return _values(
        "Evaluation",
        report.facts,
        model,
        rows,
        report.calibration,
        report.gallery or Gallery(None),
        threshold=report.threshold,
        plots=plots,
    ) | {"metrics": metrics, "cells": report.cells(), "notes": report.notes(), "changes": report.changes()}


class PredictionsPage:
    """Collects predictions for a page without ground truth; only small pictures of them stay in memory.

    Args:
        calibration: the model's.
        facts: what there is to know about the model, in words, by a name.
        model: the name of the model's file.
        pictures: how many there will be.
    """

    def __init__(
        self,
        calibration: Calibration,
        facts: Mapping[str, str],
        model: str = UNKNOWN_MODEL,
        pictures: int = 0,
    ) -> None:
        self.calibration, self.facts, self.model = calibration, facts, model
        self.gallery = Gallery(calibration.pixel_threshold, pictures)
        self.rows: list[tuple[str, None, float]] = []
        self.left_out: list[str] = []

    def add(self, path: str, result: Prediction | Exception) -> None:
        """Add the prediction on a file, or the error that kept it from being read."""
        if isinstance(result, Exception):
            self.left_out.append(str(result))
            return
        self.gallery.add(path, path, result.image, result.anomaly_map)
        self.rows.append((path, None, result.score))

    def to_html(self, path: FilePath) -> None:
        """Write the page; errors as of `destseg.page.rendering.write_page`."""
        notes = [f"left out, as it cannot be read: {error}" for error in self.left_out]
        about = ("Predictions", self.facts, self.model)
        values = _values(*about, self.rows, self.calibration, self.gallery, self.calibration.threshold, [])
        write_page(path, "report.html", values | {"metrics": [], "cells": [], "notes": notes, "changes": []})


def _values(
    title: str,
    facts: Mapping[str, str],
    model: str,
    rows: Sequence[tuple[str, str | None, float]],
    calibration: Calibration | None,
    gallery: Gallery,
    threshold: float | None,
    plots: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    data = {
        "rows": [_row(*row, calibration, gallery) for row in rows],
        "threshold": threshold,
        "edges": gallery.edges.tolist(),
        "pixelThreshold": None if calibration is None else calibration.pixel_threshold,
        "attainable": [] if calibration is None else calibration.attainable(),
        "command": f"destseg calibrate {shlex.quote(model)} --false-positive-rate",
        "plots": plots,
        "look": {
            "heat": look.HEAT,
            "outline": look.OUTLINE,
            "places": look.PLACES,
            "strengths": look.STRENGTHS,
            "opacity": look.OPACITY,
            "faintest": look.FAINTEST,
        },
    }
    return {
        "title": title,
        "facts": {} if model == UNKNOWN_MODEL else {"model": model} | dict(facts),
        "few": _about_calibration(calibration),
        "defects": sorted({defect for _, defect, _ in rows if defect is not None}),
        "data": data,
    }


def _about_calibration(calibration: Calibration | None) -> str:
    """Say how far the promised rates can be trusted, and which is the lowest."""
    if calibration is None or calibration.trained_on:
        return "No false-positive rate is promised: no normal pictures were held out to calibrate the model."
    kind = "pictures" if calibration.groups is None else "groups of pictures"
    lowest = f"no rate below {100 / (calibration.count + 1):.2g} % can be promised"
    source = "They hold on average over calibrations, for new normal pictures from the same source."
    return f"Promises count {calibration.count} held-out normal {kind}: {lowest}. {source}"


def _row(
    name: str, defect: str | None, score: float, calibration: Calibration | None, gallery: Gallery
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": name,
        "path": gallery.paths.get(name, name),
        "defect": defect,
        "score": score,
    }
    row["p"] = None if calibration is None else p_value(score, calibration.scores, calibration.groups)
    if name in gallery.thumbnails:
        picture, layers, row["size"] = gallery.thumbnails[name]
        row |= {"picture": _base64(picture), "layers": _base64(layers)}
    return row


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _points(curve: Curve) -> list[list[float | None]]:
    """Return a curve as lists that JSON knows: infinite thresholds become None."""
    x, y, threshold = (values.round(6).tolist() for values in curve)
    return [x, y, [value if math.isfinite(value) else None for value in threshold]]
