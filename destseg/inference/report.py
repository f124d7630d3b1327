"""Evaluates a test set in the MVTec layout: metrics per defect, curves, scores per picture."""

import csv
import dataclasses
import functools
import html
import io
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from destseg.files import FilePath, write_whole
from destseg.inference.calibration import Calibration
from destseg.inference.pages import UNKNOWN_MODEL, report_values
from destseg.inference.scoring import Scored
from destseg.metrics.accumulator import MEMORY, Accumulator, Metrics, metrics_of
from destseg.metrics.intervals import share_interval
from destseg.metrics.plots import Curve, plots
from destseg.page.gallery import Gallery
from destseg.page.rendering import html_table, write_page
from destseg.pictures.dataset import Sample
from destseg.pictures.folders import Source, name_some
from destseg.pictures.masks import DoubtfulMasks, mask_scale, read_mask
from destseg.pictures.roi import shrink_mask
from destseg.pictures.store import Failures, attempt
from destseg.progress import bar
from destseg.settings import PROTOCOLS, check_choice

Move = Callable[[np.ndarray, tuple[int, int]], np.ndarray]
"""Moves a mask, (h, w) bool, as its picture of the given height and width was moved."""

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
    """How far the masks at the pixel threshold agree with the ground truth, over all pixels that count.

    Each is a share in [0, 1].
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


def evaluate(  # noqa: PLR0913 - a caller names the few that matter to it
    samples: Sequence[Sample],
    results: Iterable[tuple[Source, Scored | Exception]],
    protocol: str = "full",
    threshold: float | None = None,
    progress: bool = True,
    promised_rate: float | None = None,
    move: Move | None = None,
    strict: bool = False,
    *,
    gallery: Gallery | None = None,
    pixel_threshold: float | None = None,
) -> Report:
    """Compute the metrics of scored samples; their maps are held in memory one at a time.

    Scores of normal pixels take MEMORY bytes, divided among the folders, and up to 64 MiB more per folder
    until they are sorted; the rest lie in temporary files. Scores of defect pixels all stay in memory.

    Pixels outside the region of interest do not count. A defect that lies wholly outside does not either.

    Args:
        samples: as `destseg.pictures.dataset.read_mvtec` lists them.
        results: their scores, in the same order, as `destseg.inference.stream.stream` yields them.
        protocol: "full" or "paper".
        threshold: a picture that scores above it counts as anomalous; None: no verdicts.
        progress: show a progress bar, see `destseg.progress.Bar`.
        promised_rate: the false-positive rate that is guaranteed; None: none is.
        move: moves masks where pictures were moved. A defect that leaves its picture counts no longer, and
            the picture counts as normal in image AUROC if no other is in it.
        strict: raise at the first picture or mask that cannot be read, instead of leaving it out with a
            warning.
        gallery: collects small pictures for `Report.to_html`; None: no pictures.
        pixel_threshold: pixels of the map that exceed it are marked; None: none is.

    Masks that are empty, or that look inverted, are named in a warning.

    Raises ValueError, before anything is scored, if the aspect of a mask is not its picture's; also if no
    picture can be read.
    """
    check_choice("protocol", protocol, PROTOCOLS)
    parts: dict[str, Accumulator] = {}
    share = MEMORY // max(1, len({sample.defect for sample in samples}))
    rows, left_out, failures, counts = [], dict[str, str](), Failures(strict), np.zeros(3, np.int64)
    scale, doubtful = mask_scale(samples), DoubtfulMasks()
    shown = bar(samples, "evaluating", wanted=progress)
    for sample, (_, scored) in zip(shown, results, strict=True):
        compared: Compared | Exception
        if isinstance(scored, Exception):
            compared = scored
        else:
            compare = functools.partial(_compare, sample, scored, protocol, scale, doubtful, move)
            compared = attempt(compare, str(sample.path))
        if isinstance(compared, Exception):
            failures.add(compared)
            left_out[sample.name] = str(compared)
            continue
        part = parts.setdefault(sample.defect, Accumulator(memory=share))
        part.update(*compared)
        if pixel_threshold is not None:
            counts += _marked(compared, pixel_threshold)
        if gallery is not None and isinstance(scored, Scored):
            gallery.add(sample.name, sample.path, scored.pixels, compared.maps[0], compared.masks[0])
        (score,) = compared.scores
        verdict = None if threshold is None else score > threshold
        rows.append(Row(sample.name, sample.defect, score, verdict))
    failures.report(len(samples))
    if move is None:  # else it was told when the pictures were evaluated as they are
        doubtful.report()
    defects = {
        defect: _merge(parts, ["good", defect]).compute() for defect in sorted(parts) if defect != "good"
    }
    everything = _merge(parts, list(parts))
    pixels, scores, labels = everything.curves(), everything.image_scores, everything.image_labels
    has_masks = all(sample.mask_path for sample in samples if sample.is_anomalous)
    return Report(
        **dataclasses.asdict(metrics_of(pixels, scores, labels)),
        protocol=protocol,
        threshold=threshold,
        defects=defects,
        rows=tuple(rows),
        promised_rate=promised_rate,
        marked=_agreement(*counts.tolist()) if pixel_threshold is not None and has_masks else None,
        has_masks=has_masks,
        left_out=left_out,
        curves=plots(pixels, scores, labels),
        gallery=gallery,
    )


class Compared(NamedTuple):
    """A sample beside its ground truth, in the form that `Accumulator.update` takes."""

    maps: np.ndarray  # (1, h, w)
    masks: np.ndarray  # (1, h, w) bool
    scores: list[float]  # of the picture
    labels: list[bool]  # whether it counts as anomalous
    regions: np.ndarray | None  # (1, h, w) bool; None: all pixels count


def _compare(
    sample: Sample,
    scored: Scored,
    protocol: str,
    scale: float,
    doubtful: DoubtfulMasks,
    move: Move | None,
) -> Compared:
    """Read the mask of a sample and bring it and the map to one size; raises what `read_mask` raises."""
    mask, label = _truth(sample, scored, protocol, scale, doubtful, move)
    height, width = mask.shape
    roi = scored.roi_mask((height, width))
    if roi is not None and mask.any():
        label = bool(mask[roi].any())
    anomaly_map = scored.resized_map((height, width))
    rois = None if roi is None else roi[None]
    return Compared(anomaly_map[None], mask[None], [scored.score], [label], rois)


def _marked(compared: Compared, pixel_threshold: float) -> tuple[int, int, int]:
    """Count the pixels of a sample that are marked and defective, marked, and defective."""
    marked, truth = compared.maps > pixel_threshold, compared.masks
    if compared.regions is not None:
        marked, truth = marked & compared.regions, truth & compared.regions
    counts = [int(np.count_nonzero(pixels)) for pixels in (marked & truth, marked, truth)]
    return counts[0], counts[1], counts[2]


def _agreement(both: int, marked: int, defective: int) -> MaskAgreement:
    precision, recall, f1 = (
        share / whole if whole else math.nan
        for share, whole in ((both, marked), (both, defective), (2 * both, marked + defective))
    )
    return MaskAgreement(precision, recall, f1)


def _truth(
    sample: Sample,
    scored: Scored,
    protocol: str,
    scale: float,
    doubtful: DoubtfulMasks,
    move: Move | None,
) -> tuple[np.ndarray, bool]:
    """Return the ground truth, (h, w) bool, and the label.

    The mask has the size at which the protocol compares it with the map. The label tells whether the whole
    picture, without an ROI, counts as anomalous.
    """
    height, width = scored.anomaly_map.shape
    if sample.mask_path is None:
        full = (round(scale * scored.size[0]), round(scale * scored.size[1]))
        return np.zeros((height, width) if protocol == "paper" else full, bool), sample.is_anomalous
    mask = read_mask(sample.mask_path)
    doubtful.add(sample.mask_path, mask)
    is_anomalous = True
    if move is not None and mask.any():
        mask = move(mask, scored.size)
        is_anomalous = bool(mask.any())
    if protocol == "full":
        return mask, is_anomalous
    mask = shrink_mask(mask, (height, width))
    return mask, bool(mask.any())


def _merge(parts: dict[str, Accumulator], names: list[str]) -> Accumulator:
    joint = Accumulator()
    for name in names:
        if name in parts:
            joint.merge(parts[name])
    return joint


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
