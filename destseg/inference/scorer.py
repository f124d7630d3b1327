"""The protocol of a scorer, which turns pixels into anomaly maps by any network or engine."""

from typing import Protocol

import numpy as np


class Scorer(Protocol):
    """The one way from pixels to maps. Threads may use a scorer at the same time.

    Attributes:
        size: height and width of its inputs in pixels.
        batch: how many inputs it takes at once, at most; it is fastest with so many.
    """

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def batch(self) -> int: ...

    def maps(self, pixels: np.ndarray) -> np.ndarray:
        """Return the anomaly maps of inputs.

        Args:
            pixels: (n, h, w, 3) uint8 of the scorer's size, n from 1 to `batch`.

        Returns:
            (n, h, w) float32 in [0, 1], in memory that is not used again.
        """
        ...
