"""Prediction of many pictures: decoded ahead, scored one after the other, none kept."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from destseg.calibration import Calibration
from destseg.folders import Source
from destseg.framing import Framing, View
from destseg.images import to_rgb
from destseg.result import Prediction
from destseg.scoring import Network, Scored, scored
from destseg.store import attempt, viewed
from destseg.synthesis import prefetched

logger = logging.getLogger("destseg")

DECODERS = 2  # threads that decode and scale ahead of prediction


def scored_file(network: Network, framing: Framing, path: Path) -> Scored:
    """Score one picture file."""
    return scored(network, framing, framing.view(to_rgb(path)))


def predictions(
    network: Network, framing: Framing, calibration: Calibration, sources: Sequence[Source], strict: bool
) -> Iterator[tuple[Source, Prediction | Exception]]:
    """Yield every picture with its Prediction, or with the error that kept it from being read.

    Such an error is reported in a warning, which names the picture; with `strict` it is raised.
    """

    def read(source: Source) -> tuple[np.ndarray, View]:
        pixels = to_rgb(source.image, source.name)
        return pixels, viewed(pixels, source, framing)

    ahead = min(DECODERS, len(sources) - 1)
    pictures = prefetched(lambda k: attempt(lambda: read(sources[k])), range(len(sources)), ahead)
    for source, picture in zip(sources, pictures, strict=True):
        if isinstance(picture, Exception):
            if strict:
                raise picture
            logger.warning("left out: %s", picture)  # the message names it
            yield source, picture
            continue
        pixels, view = picture
        yield source, calibration.judge(scored(network, framing, view), pixels, source.name)
