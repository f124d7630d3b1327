"""Thresholds from normal pictures alone, by split-conformal prediction.

Take m normal pictures that training never saw, and a new normal picture from the same source: each is equally
likely to score highest. So a new normal picture exceeds the k-th smallest of the m scores,
k = ceil((m + 1) * (1 - rate)), with a probability of at most `rate`. That needs k <= m, or m >= 1 / rate - 1
pictures. With fewer, the threshold is the largest score, and the guaranteed rate is 1 / (m + 1).

The same holds for pixel scores: just as rarely does a normal picture have more than 0.15 % of its pixels
above the pixel threshold. Masks reach further around those. Source: Vovk et al., "Algorithmic Learning in a
Random World" (2005).

Pictures often come in groups: views of one part, crops of one strip. Pictures of a group score alike, so many
of them say little more than one, and those whose siblings were trained on score too low. Then groups take the
place of pictures: the split keeps them whole, and the threshold is the smallest score t with

    sum over the K groups of (share of the group's scores <= t) >= (K + 1) * (1 - rate),

or the largest score if there is none. A picture drawn at random from a new group exceeds it with a
probability of at most max(rate, 1 / (K + 1)), if groups are exchangeable. Where each picture is its own,
this is the rule above. Source: Lee, Barber & Willett, "Distribution-free inference with hierarchical data"
(2023), arXiv 2306.06342.

The picture whose score defines the threshold does not exceed it. But engines, processors and numbers of
threads round differently, and would judge that picture, or one that scores the same, by chance. So thresholds
lie TOLERANCE above the score that defines them, and scores within TOLERANCE of one another count as equal in
p-values. Where no engine rounds a score by more, the guarantee holds on each of them: thresholds only move
up, so no picture is called anomalous that would not be without the tolerance, and p-values only grow.
"""

import logging
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from destseg.inference.prediction import Prediction
from destseg.inference.scoring import Scored
from destseg.pictures.folders import Source
from destseg.pictures.store import Failures
from destseg.progress import bar
from destseg.settings import check_rate, checked_switch, whole_number

logger = logging.getLogger("destseg")

TOLERANCE = 1e-5
"""Scores that differ by no more count as equal, on all engines. In float32 those of torch, ONNX and OpenVINO
differed by up to 4e-7, and single values of maps by up to 2e-6 (MVTec transistor, both networks)."""

FEWEST = 10  # pictures or groups held out at least, where there are twice as many


@dataclass(frozen=True)
class Calibration:
    """The scores of held-out normal pictures, and the thresholds that follow from them.

    Attributes:
        scores: image score of each picture.
        pixel_scores: pixel score of each picture; `destseg.inference.scoring.scores` defines both.
        false_positive_rate: wanted share of normal pictures above the threshold.
        trained_on: whether training saw the pictures, because there was only one, or only one group; then
            nothing is guaranteed.
        groups: the number of each picture's group, 0 for the first; None: each picture is its own.
    """

    scores: tuple[float, ...]
    pixel_scores: tuple[float, ...]
    false_positive_rate: float
    trained_on: bool = False
    groups: tuple[int, ...] | None = None

    @property
    def threshold(self) -> float:
        """A picture whose image score exceeds it is anomalous; TOLERANCE above a score of the calibration."""
        return conformal_threshold(self.scores, self.false_positive_rate, self.groups) + TOLERANCE

    @property
    def pixel_threshold(self) -> float:
        """Decides about masks, see `destseg.ops.components.mask_of`; TOLERANCE above a pixel score, too."""
        return conformal_threshold(self.pixel_scores, self.false_positive_rate, self.groups) + TOLERANCE

    @property
    def count(self) -> int:
        """How many there are of what the guarantee counts: groups, or pictures that are their own."""
        return len(self.scores) if self.groups is None else len(set(self.groups))

    @property
    def guaranteed_rate(self) -> float:
        """The false-positive rate that is guaranteed: the wanted one, or 1 / (count + 1) where that is more.

        It is 1, which guarantees nothing, where training saw the pictures.
        """
        return 1.0 if self.trained_on else max(self.false_positive_rate, 1 / (self.count + 1))

    @property
    def promised_rate(self) -> float | None:
        """The guaranteed rate, or None where nothing is guaranteed."""
        return None if self.trained_on else self.guaranteed_rate

    def attainable(self) -> list[tuple[float, float, float]]:
        """Return the thresholds that some wanted rate gives, rising, each with its rate and pixel threshold.

        The rate is the one that is guaranteed at the threshold; `at_rate` of it gives both thresholds. None
        is attainable where training saw the pictures.
        """
        if self.trained_on:
            return []
        shares, count = _shares(len(self.scores), self.groups)
        levels, places = np.unique(self.scores, return_inverse=True)
        below = np.cumsum(np.bincount(places, shares))  # sum of the shares of scores up to each level
        rates = np.ceil((count + 1 - below) / (count + 1) * 1e6 - 1e-3) / 1e6  # written in six digits
        pixel_levels = _at_rates(np.array(self.pixel_scores), rates, self.groups)
        columns = (levels + TOLERANCE, rates, pixel_levels + TOLERANCE)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def promise(self) -> str:
        """Say in words what the thresholds promise."""
        if self.trained_on:
            return f"no false-positive rate is guaranteed; threshold {self.threshold:.4g}"
        rate = f"of new normal pictures at most {100 * self.guaranteed_rate:.3g} % are called anomalous"
        return f"{rate} ({len(self.scores)} calibrated); threshold {self.threshold:.4g}"

    def judge(self, result: Scored, source: str) -> Prediction:
        """Return the verdict on a scored picture, with its map at the picture's own size."""
        return Prediction(
            score=result.score,
            threshold=self.threshold,
            is_anomalous=result.score > self.threshold,
            p_value=p_value(result.score, self.scores, self.groups),
            anomaly_map=result.resized_map(result.size),
            pixel_threshold=self.pixel_threshold,
            image=result.pixels,
            source=source,
        )

    def stored(self) -> dict[str, Any]:
        """Return the calibration as a file holds it, in plain values."""
        # The thresholds follow from the rest; they are for those who read the file without this package.
        return asdict(self) | {"threshold": self.threshold, "pixel_threshold": self.pixel_threshold}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> "Calibration":
        """Make a calibration from its stored form; scores and groups may be lists or tensors (m,).

        Raises KeyError for an entry that is missing, and ValueError for one that cannot be.
        """
        scores, pixel_scores = (stored_numbers(stored, name) for name in ("scores", "pixel_scores"))
        if len(scores) != len(pixel_scores):
            counts = f"{len(pixel_scores)} and {len(scores)}"
            raise ValueError(f"calibration needs as many pixel scores as scores, got {counts}")
        rate = stored["false_positive_rate"]  # the last loop checks it
        for name in ("threshold", "pixel_threshold"):  # which follow from the rest
            if name in stored:
                stored_numbers({name: [stored[name]]}, name)
        # The first files did not say whether training saw the pictures, nor did they know groups.
        trained_on = checked_switch("trained_on", stored.get("trained_on", False))
        groups = stored.get("groups")
        if groups is not None:
            groups = groups.tolist() if hasattr(groups, "tolist") else groups
            groups = tuple(whole_number("groups", group, most=len(scores)) for group in groups)
        for values in (scores, pixel_scores):
            conformal_threshold(values, rate, groups)  # which checks them
        return cls(scores, pixel_scores, rate, trained_on, groups)

    def at_rate(self, false_positive_rate: float) -> "Calibration":
        """Return the same scores with another wanted rate; warn if there are too few for it."""
        other = replace(self, false_positive_rate=false_positive_rate)
        other.warn_if_short()
        return other

    def warn_if_short(self) -> None:
        """Warn in the log if there are too few pictures, or groups of them, for the wanted rate."""
        count, wanted = self.count, self.false_positive_rate
        kind = "picture" if self.groups is None else "group"
        if self.trained_on:
            logger.warning("the only %s was trained on and calibrated with: no rate is guaranteed", kind)
        elif self.guaranteed_rate > wanted:
            logger.warning(
                "%d calibration %s%s a false-positive rate of %.2g, not of %.2g: that takes %d",
                count,
                kind,
                " guarantees" if count == 1 else "s guarantee",
                self.guaranteed_rate,
                wanted,
                math.ceil(1 / wanted - 1),
            )


def calibrate(
    results: Iterable[tuple[Source, Scored | Exception]],
    false_positive_rate: float,
    *,
    groups: Sequence[Hashable] | None = None,
    pictures: int | None = None,
    trained_on: bool = False,
    strict: bool = False,
    progress: bool = True,
) -> Calibration:
    """Return the calibration from a stream of scored normal pictures; warn if there are too few.

    Args:
        results: scored normal pictures, as `destseg.inference.stream.stream` yields them.
        false_positive_rate: the wanted rate, between 0 and 1.
        groups: what tells the group of each result; None: each picture is its own.
        pictures: how many there are, for the progress bar.
        trained_on: whether training saw them.
        strict: raise at the first unreadable picture instead of leaving it out with a warning.
        progress: show a progress bar, see `destseg.progress.Bar`.

    Raises:
        ValueError: no picture can be read.
    """
    failures = Failures(strict)
    measured: list[tuple[float, float]] = []
    found: list[Hashable] = []
    shown = bar(results, "calibrating", pictures, leave=False, wanted=progress)
    for place, (_, result) in enumerate(shown):
        if isinstance(result, Exception):
            failures.add(result)
        else:  # only scores are kept: a map may be as large as its picture
            measured.append((result.score, result.pixel_score))
            found.append(place if groups is None else groups[place])
    failures.report(len(measured) + failures.count)
    image_scores, pixel_scores = zip(*measured, strict=True)
    calibration = Calibration(image_scores, pixel_scores, false_positive_rate, trained_on, _numbered(found))
    calibration.warn_if_short()
    return calibration


def split(
    pictures: int, seed: int, share: float = 0.2, units: Sequence[Hashable] | None = None
) -> tuple[list[int], list[int]]:
    """Divide picture indices into those for training and those held out for calibration, both in order.

    Holds out the given share, but at least 10 pictures; of fewer than 20 pictures, half. A single picture
    serves for both.

    Units are never divided, and they are what is counted: with 15 units 7 are held out, as with 15 pictures.
    A unit after which training would have less than half of the pictures is passed over, and both sides have
    at least one. Where one is passed over, the guarantee assumes that a unit's size says nothing about its
    scores. A single unit serves for both.

    Args:
        pictures: how many there are.
        seed: draws the units that are held out.
        share: of the units to hold out, 0 to 0.5.
        units: what tells the unit of each picture; None: each picture is its own.
    """
    members: dict[Hashable, list[int]] = {}
    for picture, unit in enumerate(range(pictures) if units is None else units):
        members.setdefault(unit, []).append(picture)
    if len(members) == 1:
        return list(range(pictures)), list(range(pictures))
    missing = min(max(round(share * len(members)), FEWEST), len(members) // 2)
    order = np.random.default_rng([seed, len(members)]).permutation(len(members))
    all_members, held_out = list(members.values()), set[int]()
    for unit in order:
        if missing and 2 * (len(held_out) + len(all_members[unit])) <= pictures:
            held_out.update(all_members[unit])
            missing -= 1
    return sorted(set(range(pictures)) - held_out), sorted(held_out)


def conformal_threshold(
    scores: ArrayLike, false_positive_rate: float, groups: Sequence[int] | None = None
) -> float:
    """Return the threshold that a normal picture's score exceeds with at most the wanted probability.

    Args:
        scores: (m,) scores of normal pictures held out of training, m >= 1.
        false_positive_rate: the wanted probability, between 0 and 1.
        groups: (m,) the number of each picture's group; None: each picture is its own.

    Returns:
        The smallest score that enough groups stay below, see above, or the largest; without groups the k-th
        smallest, or the largest if m is too small. `Calibration.guaranteed_rate` then holds.

    Example:
        >>> conformal_threshold([0.1, 0.4, 0.2, 0.3], 0.4)  # ceil(5 * 0.6) = 3: the third smallest
        0.3
        >>> conformal_threshold([0.1, 0.4, 0.2, 0.3], 0.5, [0, 0, 1, 2])  # 1/2 + 1 + 1 >= 4 * 0.5
        0.3
    """
    scores = np.asarray(scores, np.float64)
    check_rate(false_positive_rate)
    if scores.size == 0:
        raise ValueError("calibration needs the score of at least one normal picture, got none")
    if not np.isfinite(scores).all():
        raise ValueError("calibration scores must be finite, got NaN or infinity")
    return float(_at_rates(scores, false_positive_rate, groups))


def p_value(score: float, scores: ArrayLike, groups: Sequence[int] | None = None) -> float:
    """Return the expected share of normal pictures with at least this score, less TOLERANCE.

    It is (1 + their number) / (m + 1); with K groups, (1 + the sum of their shares in each group) / (K + 1).
    """
    scores = np.asarray(scores, np.float64)
    shares, count = _shares(scores.size, groups)
    return float((1 + shares[scores + TOLERANCE >= score].sum()) / (count + 1))


def _at_rates(scores: np.ndarray, rates: float | np.ndarray, groups: Sequence[int] | None) -> np.ndarray:
    """Return the conformal threshold at a rate, or at each of some."""
    shares, count = _shares(scores.size, groups)
    order = np.argsort(scores)
    wanted = (count + 1) * (1 - rates) - 1e-9  # 1e-9: 0.9 * 10 is 9, not more
    places = np.searchsorted(np.cumsum(shares[order]), wanted)
    return np.asarray(scores[order[np.minimum(places, scores.size - 1)]])


def stored_numbers(stored: Mapping[str, Any], name: str) -> tuple[float, ...]:
    """Return an entry of a file's content that must be a list, or a tensor (m,), of finite numbers.

    Raises KeyError if it is missing, and ValueError if it is anything else.
    """
    values = stored[name]
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, (list, tuple)) or any(type(value) not in (int, float) for value in values):
        raise ValueError(f"its {name} must be a list of numbers, got {values!r}")
    numbers = tuple(map(float, values))
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"its {name} must be finite, got NaN or infinity")
    return numbers


def _shares(pictures: int, groups: Sequence[int] | None) -> tuple[np.ndarray, int]:
    """Return the share of each picture in its group, (m,) float64, and the number of groups."""
    if groups is None:
        return np.ones(pictures), pictures
    if len(groups) != pictures:
        raise ValueError(f"there must be one group for each of {pictures} scores, got {len(groups)}")
    _, places, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    return 1 / sizes[places], len(sizes)


def _numbered(groups: Sequence[Hashable]) -> tuple[int, ...] | None:
    """Number groups in the order of their pictures; None if each picture is its own."""
    numbers: dict[Hashable, int] = {}
    found = tuple(numbers.setdefault(group, len(numbers)) for group in groups)
    return None if len(numbers) == len(found) else found
