"""The report on a test set: metrics per defect, curves, scores per picture."""

import csv
import dataclasses
import html
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from destseg.files import FilePath, write_whole
from destseg.inference.calibration import Calibration
from destseg.inference.pages import UNKNOWN_MODEL, report_values
from destseg.metrics.accumulator import Metrics
from destseg.metrics.intervals import share_interval
from destseg.metrics.plots import Curve
from destseg.page.gallery import Gallery
from destseg.page.rendering import html_table, write_page
from destseg.pictures.folders import name_some
from destseg.settings import PROTOCOLS

_NOT_PLAIN = ("curves", "calibration", "facts", "gallery")  # fields of Report that to_dict leaves out
COLUMNS = ("image_auroc", "pixel_auroc", "pixel_ap", "pro", "iap", "iap90")


@dataclass(frozen=True)
class Row:
    """One test picture."""

    name: str  # its path below the data set's folder
    defect: str  # the folder it lies in; "good" for normal parts
    score: float
    is_anomalous: bool | None  # the verdict; None without a threshold


class Summary(NamedTuple):
    """The result for one folder of the test set, or for all of them."""

    defect: str  # the folder's name, or "all"
    pictures: int
    flagged: float | None  # see `Report.flagged`; None for "all"
    metrics: Metrics | None  # None for "good": normal pictures alone have no metrics


class FalseAlarms(NamedTuple):
    """How many good pictures were flagged, and the exact 95 % interval of the rate behind their number.

    The interval is Clopper and Pearson's and assumes pictures that are independent of one another. If the
    good pictures of the test set come in groups, it is too narrow.
    """

    flagged: int
    pictures: int
    low: float
    high: float


class MaskAgreement(NamedTuple):
    """How far masks, see `destseg.ops.components.mask_of`, agree with the truth, over all pixels that count.

    Each is a share in [0, 1]. Curves of pixels judge each pixel by itself, so these do not lie on them.
    """

    precision: float  # of the marked pixels, those that are defective; nan where none is marked
    recall: float  # of the defective pixels, those that are marked; nan where none is defective
    f1: float  # the harmonic mean of both; nan where none is marked and none defective


@dataclass(frozen=True)
class Outcome:
    """What matters most of a report, each a share in [0, 1] or nan where undefined.

    Attributes:
        image_auroc, pixel_ap, iap: as of `destseg.metrics.Metrics`.
        good_flagged, defective_flagged: the share of normal pictures, and of all others, called anomalous.
    """

    image_auroc: float
    pixel_ap: float
    iap: float
    good_flagged: float
    defective_flagged: float


@dataclass(frozen=True)
class Report(Metrics):
    """The metrics of a test set, named as in `destseg.metrics.Metrics`, with the results behind them.

    Attributes beside the metrics:
        protocol: "full" or "paper", see `destseg.settings.PROTOCOLS`.
        threshold: a picture that scores above it counts as anomalous; None without calibration.
        defects: for each defect the metrics of its pictures together with all normal ones.
        rows: one per picture that was read.
        robustness: what comes of the pictures as they are and under each change of
            `destseg.inference.robustness.CHANGES`, by the change's name; None if not asked for.
        promised_rate: the false-positive rate that the calibration guarantees; None if it guarantees none.
        outliers: names of normal pictures that stood far out when the model was fitted.
        marked: how far masks at the pixel threshold agree with the truth; None without thresholds or masks.
        has_masks: whether masks tell where defects are; without them there are no pixel metrics.
        left_out: why a picture or its mask could not be read, by the picture's name. These do not count.
        curves: the curves behind the metrics by name, see `destseg.metrics.plots.plots`.
        calibration: the model's; None without.
        facts: what there is to know about the model, in words, by a name.
        gallery: small pictures of what was found, for `to_html`; None if not asked for.
    """

    protocol: str
    threshold: float | None
    defects: dict[str, Metrics]
    rows: tuple[Row, ...]
    promised_rate: float | None = None
    outliers: tuple[str, ...] = ()
    robustness: dict[str, Outcome] | None = None
    marked: MaskAgreement | None = None
    has_masks: bool = True
    left_out: dict[str, str] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict, repr=False, compare=False)
    calibration: Calibration | None = field(default=None, repr=False, compare=False)
    facts: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    gallery: Gallery | None = field(default=None, repr=False, compare=False)

    def flagged(self, defect: str) -> float:
        """Return the share of this folder's pictures called anomalous; nan without verdicts."""
        return _flagged(row for row in self.rows if row.defect == defect)

    def outcome(self) -> Outcome:
        """Return what matters most, on all pictures."""
        defective = _flagged(row for row in self.rows if row.defect != "good")
        return Outcome(self.image_auroc, self.pixel_ap, self.iap, self.flagged("good"), defective)

    @property
    def false_alarms(self) -> FalseAlarms | None:
        """The flagged good pictures; None without verdicts or without good pictures."""
        verdicts = [row.is_anomalous for row in self.rows if row.defect == "good"]
        if not verdicts or None in verdicts:
            return None
        flagged = sum(map(bool, verdicts))
        return FalseAlarms(flagged, len(verdicts), *share_interval(flagged, len(verdicts)))

    def summaries(self) -> list[Summary]:
        """Return the summary of each defect, of the normal pictures if there are any, and of all pictures."""
        counts = Counter(row.defect for row in self.rows)
        summaries: list[Summary] = []
        for defect in [*self.defects, *({"good"} & counts.keys())]:
            summaries.append(Summary(defect, counts[defect], self.flagged(defect), self.defects.get(defect)))
        return [*summaries, Summary("all", len(self.rows), None, self)]

    def table(self) -> str:
        """Return the metrics as lines of text, in percent: summaries, false alarms, changes."""
        text = [*_aligned(self.cells()), *self.notes()]
        if self.robustness is not None:
            text += ["", *_aligned(self.changes())]
        return "\n".join(text)

    def cells(self) -> list[Sequence[str]]:
        """Return the summaries as text, in percent, below a line of headings."""
        lines = [("defect", "pictures", "flagged", *(name.replace("_", " ") for name in COLUMNS))]
        for defect, pictures, flagged, metrics in self.summaries():
            shares = [flagged, *(getattr(metrics, name, None) for name in COLUMNS)]
            lines.append((defect, str(pictures), *map(_percent, shares)))
        return [*lines]

    def changes(self) -> list[Sequence[str]]:
        """Return what comes of the pictures under each change, as text likewise; empty if not asked for."""
        if self.robustness is None:
            return []
        names = [field.name.replace("_", " ") for field in dataclasses.fields(Outcome)]
        return [
            ("pictures", *names),
            *((name, *map(_percent, dataclasses.astuple(one))) for name, one in self.robustness.items()),
        ]

    def notes(self) -> list[str]:
        """Return what there is to say about the summaries, in lines of text."""
        protocol = f"protocol {self.protocol}: {PROTOCOLS[self.protocol]}"
        text = [f"percent; {protocol}; {self.instances} instances", *self._about_false_alarms()]
        if self.marked is not None:
            precision, recall, f1 = map(_percent, self.marked)
            text.append(f"masks at the pixel threshold: F1 {f1} %, precision {precision}, recall {recall}")
        if self.outliers:
            text.append(f"among the normal pictures of the fit stood far out: {name_some(self.outliers)}")
        if not self.has_masks:
            text.append("no pixel metrics: the test set has no masks, there is no folder ground_truth")
        if self.left_out:
            some = f"{len(self.left_out)} of {len(self.rows) + len(self.left_out)} pictures"
            text.append(f"left out {some}, which cannot be read: {name_some(list(self.left_out))}")
        return text

    def _about_false_alarms(self) -> list[str]:
        """Compare the share of good pictures that were flagged with the promised rate, in lines of text."""
        if self.false_alarms is None:
            return []
        flagged, pictures, low, high = self.false_alarms
        promised = self.promised_rate
        promise = "no rate is promised" if promised is None else f"promised at most {_percent(promised)} %"
        lines = [
            f"{flagged} of {pictures} good picture{'s' if pictures > 1 else ''} flagged: "
            f"{_percent(flagged / pictures)} % (95 % interval {_percent(low)} to {_percent(high)}); {promise}"
        ]
        if promised is not None and low > promised:
            lines.append(
                "That is more than promised: these pictures differ from those of the calibration. Calibrate "
                "with normal pictures from the same source; if pictures come in groups (views of one part, "
                "crops of one strip), fit and calibrate with groups= (--group)."
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return all but curves and what the page shows of the model, as plain Python values.

        Undefined metrics are None.
        """
        alarms = self.false_alarms
        names = [field.name for field in dataclasses.fields(self) if field.name not in _NOT_PLAIN]
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        values |= {"marked": None if self.marked is None else self.marked._asdict()}
        values |= {"false_alarms": None if alarms is None else alarms._asdict()}
        plain: dict[str, Any] = _without_nan(values)
        return plain

    def to_dataframe(self) -> dict[str, list[Any]]:
        """Return the rows as columns by name, as `pandas.DataFrame` takes them: one value per picture."""
        names = [field.name for field in dataclasses.fields(Row)]
        return {name: [getattr(row, name) for row in self.rows] for name in names}

    def to_html(self, path: FilePath, model: str = UNKNOWN_MODEL) -> None:
        """Write a page for people: metrics, curves, a threshold to move, and the pictures if there are any.

        It is one file, which needs no network. Pictures come with `DeSTSeg.evaluate(..., gallery=True)`.

        Args:
            path: the file.
            model: the name of the model's file, which commands on the page name.

        Raises:
            ImportError: jinja2 is missing; the message names the command that installs it.
            OSError: the file cannot be written.
        """
        write_page(path, "report.html", report_values(self, model))

    def _repr_html_(self) -> str:
        """Show the table in a notebook."""
        return html_table(self.cells()) + "".join(f"<p>{html.escape(note)}</p>" for note in self.notes())

    def to_json(self, path: str | Path) -> None:
        """Write everything as one JSON object."""
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        write_whole(path, lambda file: file.write(text.encode()))

    def to_csv(self, path: str | Path) -> None:
        """Write one line per picture: name, defect, score, is_anomalous."""
        names = [field.name for field in dataclasses.fields(Row)]
        write_csv(path, names, [dataclasses.astuple(row) for row in self.rows])

    def defects_to_csv(self, path: str | Path) -> None:
        """Write the lines of the table, as shares: defect, pictures, flagged, the metrics, instances.

        Undefined values are left empty.
        """
        names, lines = [*COLUMNS, "instances"], []
        for defect, pictures, flagged, metrics in self.summaries():
            lines.append([defect, pictures, flagged, *(getattr(metrics, name, None) for name in names)])
        write_csv(path, ["defect", "pictures", "flagged", *names], _without_nan(lines))


def write_csv(path: str | Path, header: list[str], lines: Iterable[Sequence[Any]]) -> None:
    """Write a table, whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *lines])
    # Names that are not UTF-8 stay the bytes that they are.
    data = text.getvalue().encode("utf-8", sys.getfilesystemencodeerrors())
    write_whole(path, lambda file: file.write(data))


def _flagged(rows: Iterable[Row]) -> float:
    """Return the share of pictures called anomalous; nan without verdicts."""
    known = [row.is_anomalous for row in rows if row.is_anomalous is not None]
    return sum(known) / len(known) if known else math.nan


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of cells as text, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def _percent(share: float | None) -> str:
    """Return a share as text: "-" where it is undefined, nothing for None."""
    if share is None:
        return ""
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def _without_nan(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
