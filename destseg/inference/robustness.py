"""Evaluates a test set again under small changes of light and place, as they come in a factory."""

import dataclasses
import functools
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from destseg.inference.report import Report, evaluate
from destseg.inference.scorer import Scorer
from destseg.inference.stream import stream
from destseg.pictures.changes import relight, shift, turn
from destseg.pictures.folders import Sample, Source
from destseg.pictures.framing import Framing
from destseg.pictures.store import read

PLAIN = "plain"  # the test set as it is


@dataclass(frozen=True)
class Change:
    """A change of light and place; a mask moves like its picture. What comes in repeats edge pixels.

    Attributes:
        gain: factor of the brightness.
        shift: to the right and downwards, in shares of the sides; whole pixels of picture and mask.
        degrees: turn about the centre, against the clock.
    """

    gain: float = 1.0
    shift: float = 0.0
    degrees: float = 0.0

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """Change a picture at its own size, (h, w, 3) uint8. Turns interpolate bilinearly."""
        return self.mask(pixels if self.gain == 1 else relight(pixels, self.gain))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Move a mask, (h, w) bool. Turns take the nearest pixel."""
        if self.shift:
            height, width = mask.shape[:2]
            mask = shift(mask, round(self.shift * height), round(self.shift * width))
        return turn(mask, self.degrees) if self.degrees else mask


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
        progress: show a progress bar for each change on a terminal.
    """
    sources = [Source(str(sample.path), sample.path) for sample in samples]
    found = {PLAIN: plain.outcome()}
    for name, change in CHANGES.items():
        take = functools.partial(read, framing=framing, change=change.picture)
        with closing(stream(scorer, framing, sources, take)) as results:
            report = evaluate(samples, results, plain.protocol, plain.threshold, progress, change.mask)
        found[name] = report.outcome()
    return dataclasses.replace(plain, robustness=found)
