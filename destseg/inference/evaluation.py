"""Compares the scored pictures of a test set with the ground truth: what a `Report` is made of."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from destseg.inference.report import MaskAgreement, Report, Row
from destseg.inference.scoring import Scored
from destseg.metrics.accumulator import MEMORY, Accumulator, metrics_of
from destseg.metrics.plots import plots
from destseg.ops.components import mask_of
from destseg.page.gallery import Gallery
from destseg.pictures.dataset import Sample
from destseg.pictures.folders import Source
from destseg.pictures.masks import DoubtfulMasks, mask_scale, read_mask
from destseg.pictures.roi import shrink_mask
from destseg.pictures.store import Failures, attempt
from destseg.progress import bar
from destseg.settings import PROTOCOLS, check_choice

Move = Callable[[np.ndarray, tuple[int, int]], np.ndarray]
"""Moves a mask, (h, w) bool, as its picture of the given height and width was moved."""


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
        pixel_threshold: what masks follow from, see `destseg.ops.components.mask_of`; None: there are none.

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
    marked, truth = mask_of(compared.maps[0], pixel_threshold), compared.masks[0]
    if compared.regions is not None:
        truth = truth & compared.regions[0]  # outside the map is 0
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
