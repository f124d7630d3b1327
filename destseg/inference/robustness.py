"""Evaluates a test set again under small changes of light and place, as they come in a factory."""

import dataclasses
import functools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from destseg.inference.evaluation import evaluate
from destseg.inference.report import Report
from destseg.inference.scorer import Scorer
from destseg.inference.stream import stream
from destseg.pictures.changes import relight, shift, turn
from destseg.pictures.dataset import Sample
from destseg.pictures.framing import Framing
from destseg.pictures.store import read

PLAIN = "plain"  # the test set as it is


@dataclass(frozen=True)
class Change:
    """A change of light and place. Where something comes in from outside, edge pixels are repeated.

    Attributes:
        gain: factor of the brightness.
        shift: to the right and downwards, in shares of the sides, rounded to whole pixels.
        degrees: turn about the centre, against the clock.
    """

    gain: float = 1.0
    shift: float = 0.0
    degrees: float = 0.0

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """Change a picture at its own size, (h, w, 3) uint8."""
        height, width = pixels.shape[:2]
        return self.move(pixels if self.gain == 1 else relight(pixels, self.gain), (height, width))

    def move(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Move a picture of this height and width, or its mask, (h, w) bool, which may have another size.

        Pictures are interpolated bilinearly when they turn; of a mask each pixel takes the nearest value.
        """
        if self.shift:
            pixels = [round(self.shift * side) for side in size]  # of the picture
            own = zip(pixels, values.shape[:2], size, strict=True)
            values = shift(values, *(round(count * length / side) for count, length, side in own))
        return turn(values, self.degrees) if self.degrees else values


CHANGES = {
    "darkened by 20 %": Change(gain=0.8),
    "brightened by 20 %": Change(gain=1.2),
    "shifted by 4 %": Change(shift=0.04),
    "rotated by 3 degrees": Change(degrees=3),
}


def with_robustness(
    plain: Report, scorer: Scorer, framing: Framing, samples: Sequence[Sample], progress: bool = True
) -> Report:
    """Return the report of a test set with its results under each of CHANGES, beside the plain ones.

    Pictures and masks change alike, at their own sizes. The region of interest stays: it belongs to the
    camera's view.

    Args:
        plain: the report of these samples as they are.
        scorer, framing, samples: as it was made with.
        progress: show a progress bar for each change.
    """
    samples = [sample for sample in samples if sample.name not in plain.left_out]
    sources = [sample.source for sample in samples]
    found = {PLAIN: plain.outcome()}
    for name, change in CHANGES.items():
        take = functools.partial(read, framing=framing, change=change.picture)
        with closing(stream(scorer, framing, sources, take, progress)) as results:
            report = evaluate(samples, results, plain.protocol, plain.threshold, progress, move=change.move)
        found[name] = report.outcome()
    return dataclasses.replace(plain, robustness=found)
