"""Thresholds from normal pictures alone, by split-conformal prediction.

Take m normal pictures that training never saw, and a new normal picture from the same source: each is equally
likely to score highest. So a new normal picture exceeds the k-th smallest of the m scores,
k = ceil((m + 1) * (1 - rate)), with a probability of at most `rate`. That needs k <= m, or m >= 1 / rate - 1
pictures. With fewer, the threshold is the largest score, and the guaranteed rate is 1 / (m + 1).

The same holds for pixel scores: just as rarely does a normal picture have more than 0.15 % of its pixels
above the pixel threshold. Source: Vovk et al., "Algorithmic Learning in a Random World" (2005).
"""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from destseg.inference.prediction import Prediction
from destseg.inference.scoring import Scored
from destseg.pictures.folders import Source
from destseg.pictures.store import Failures
from destseg.settings import check_rate

logger = logging.getLogger("destseg")

FEWEST = 10  # pictures held out at least, where there are twice as many


@dataclass(frozen=True)
class Calibration:
    """The scores of held-out normal pictures, and the thresholds that follow from them.

    Attributes:
        scores: image score of each picture.
        pixel_scores: pixel score of each picture; `destseg.inference.scoring.scores` defines both.
        false_positive_rate: wanted share of normal pictures above the threshold.
        trained_on: whether training saw the pictures, because there was only one; then nothing is guaranteed.
    """

    scores: tuple[float, ...]
    pixel_scores: tuple[float, ...]
    false_positive_rate: float
    trained_on: bool = False

    @property
    def threshold(self) -> float:
        """A picture whose image score exceeds it is anomalous."""
        return conformal_threshold(self.scores, self.false_positive_rate)

    @property
    def pixel_threshold(self) -> float:
        """Pixels of the map that exceed it belong to the mask."""
        return conformal_threshold(self.pixel_scores, self.false_positive_rate)

    @property
    def guaranteed_rate(self) -> float:
        """The false-positive rate that is guaranteed: the wanted one, or 1 / (m + 1) with too few pictures.

        It is 1, which guarantees nothing, where training saw the pictures.
        """
        return 1.0 if self.trained_on else max(self.false_positive_rate, 1 / (len(self.scores) + 1))

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
            p_value=p_value(result.score, self.scores),
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
        """Make a calibration from its stored form; scores may also be tensors, as in the first files."""
        scores, pixel_scores = (tuple(map(float, stored[name])) for name in ("scores", "pixel_scores"))
        trained_on = stored.get("trained_on", False)  # the first files did not say
        return cls(scores, pixel_scores, stored["false_positive_rate"], trained_on)

    def at_rate(self, false_positive_rate: float) -> "Calibration":
        """Return the same scores with another wanted rate; warn if there are too few for it."""
        other = replace(self, false_positive_rate=false_positive_rate)
        other.warn_if_short()
        return other

    def warn_if_short(self) -> None:
        """Warn in the log if there are too few pictures for the wanted rate."""
        count, wanted = len(self.scores), self.false_positive_rate
        if self.trained_on:
            logger.warning("the only picture was trained on and calibrated with: no rate is guaranteed")
        elif self.guaranteed_rate > wanted:
            logger.warning(
                "%d calibration picture%s a false-positive rate of %.2g, not of %.2g: that takes %d",
                count,
                " guarantees" if count == 1 else "s guarantee",
                self.guaranteed_rate,
                wanted,
                math.ceil(1 / wanted - 1),
            )


def calibrate(
    results: Iterable[tuple[Source, Scored | Exception]],
    false_positive_rate: float,
    *,
    pictures: int | None = None,
    trained_on: bool = False,
    strict: bool = False,
    progress: bool = True,
) -> Calibration:
    """Return the calibration from a stream of scored normal pictures; warn if there are too few.

    Args:
        results: scored normal pictures, as `destseg.inference.stream.stream` yields them.
        false_positive_rate: the wanted rate, between 0 and 1.
        pictures: how many there are, for the progress bar.
        trained_on: whether training saw them.
        strict: raise at the first unreadable picture instead of leaving it out with a warning.
        progress: show a progress bar on a terminal.

    Raises:
        ValueError: no picture can be read.
    """
    failures = Failures(strict)
    measured: list[tuple[float, float]] = []
    for _, result in tqdm(results, "calibrating", pictures, leave=False, disable=None if progress else True):
        if isinstance(result, Exception):
            failures.add(result)
        else:  # only scores are kept: a map may be as large as its picture
            measured.append((result.score, result.pixel_score))
    failures.report(len(measured) + failures.count)
    image_scores, pixel_scores = zip(*measured, strict=True)
    calibration = Calibration(image_scores, pixel_scores, false_positive_rate, trained_on)
    calibration.warn_if_short()
    return calibration


def split(pictures: int, seed: int, share: float = 0.2) -> tuple[list[int], list[int]]:
    """Divide picture indices into those for training and those held out for calibration, both in order.

    Holds out the given share, but at least 10 pictures; of fewer than 20 pictures, half. A single picture
    serves for both.
    """
    held_out = min(max(round(share * pictures), FEWEST), pictures // 2)
    if pictures == 1:
        return [0], [0]
    order = np.random.default_rng([seed, pictures]).permutation(pictures)
    return sorted(order[held_out:].tolist()), sorted(order[:held_out].tolist())


def conformal_threshold(scores: ArrayLike, false_positive_rate: float) -> float:
    """Return the threshold that a normal picture's score exceeds with at most the wanted probability.

    Args:
        scores: (m,) scores of normal pictures held out of training, m >= 1.
        false_positive_rate: the wanted probability, between 0 and 1.

    Returns:
        The k-th smallest score, or the largest if m is too small; `Calibration.guaranteed_rate` then holds.

    Example:
        >>> conformal_threshold([0.1, 0.4, 0.2, 0.3], 0.4)  # ceil(5 * 0.6) = 3: the third smallest
        0.3
    """
    scores = np.sort(np.asarray(scores, np.float64))
    check_rate(false_positive_rate)
    if scores.size == 0:
        raise ValueError("calibration needs the score of at least one normal picture, got none")
    if not np.isfinite(scores).all():
        raise ValueError("calibration scores must be finite, got NaN or infinity")
    rank = math.ceil((scores.size + 1) * (1 - false_positive_rate) - 1e-9)  # 1e-9: 0.9 * 10 is 9, not 10
    return float(scores[min(rank, scores.size) - 1])


def p_value(score: float, scores: ArrayLike) -> float:
    """Return the expected share of normal pictures with at least this score: (1 + their number) / (m + 1)."""
    scores = np.asarray(scores, np.float64)
    return float((1 + np.count_nonzero(scores >= score)) / (scores.size + 1))
