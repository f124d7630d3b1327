"""From pictures to anomaly maps and scores: the one way that prediction, calibration and evaluation share."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from destseg.inference.scorer import Scorer
from destseg.ops.ranking import largest
from destseg.ops.resizing import resize_maps
from destseg.pictures.framing import Framing, View
from destseg.pictures.roi import RegionOfInterest
from destseg.pictures.store import Picture

PATIENCE = 2.0  # seconds after which the progress of a picture in tiles is shown
TOP_SHARE = 100 / (256 * 256)  # of the pixels of one input: the paper's 100 of 256 x 256


class Scored(NamedTuple):
    """A picture with its anomaly map and scores."""

    pixels: np.ndarray  # (h, w, 3) uint8, the picture itself
    anomaly_map: np.ndarray  # float32 in [0, 1], of the size that the picture was scaled to
    score: float
    pixel_score: float  # see `scores`
    roi: RegionOfInterest | None = None  # what counts; None for everything

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the picture itself."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def region(self, size: tuple[int, int]) -> np.ndarray | None:
        """Return which pixels count, (h, w) bool at the given height and width; None for all of them."""
        return None if self.roi is None else self.roi.mask(self.size, size)

    def resized_map(self, size: tuple[int, int]) -> np.ndarray:
        """Return the anomaly map at the given height and width, (h, w) float32; 0 is what does not count."""
        anomaly_map: np.ndarray = resize_maps(self.anomaly_map[None], size)[0]
        region = self.region(size)
        return anomaly_map if region is None else anomaly_map * region


def score(scorer: Scorer, framing: Framing, pictures: Sequence[Picture]) -> list[Scored]:
    """Score pictures that were scaled by this framing; their frames share the scorer's batches.

    Raises RuntimeError where the network gives NaN, which would exceed no threshold and count as normal.
    """
    views = [picture.view for picture in pictures]
    return [
        _scored(picture, anomaly_map, framing)
        for picture, anomaly_map in zip(pictures, framed_maps(scorer, framing, views), strict=True)
    ]


def framed_maps(scorer: Scorer, framing: Framing, views: Sequence[View]) -> list[np.ndarray]:
    """Return the anomaly map of each scaled picture, (h, w) float32 in [0, 1], put together of its frames'.

    Padding is cut off; where frames overlap, the map fades from one to the other. It is 0 where there is no
    frame, because nothing there counts. Many frames show their progress on a terminal.
    """
    maps = [np.zeros(view.pixels.shape[:2], np.float32) for view in views]
    places = [(k, frame) for k, view in enumerate(views) for frame in framing.frames(view)]
    firsts = range(0, len(places), scorer.batch)
    hidden = None if len(firsts) > 1 else True
    for first in tqdm(firsts, "tiles", leave=False, delay=PATIENCE, disable=hidden):
        batch = places[first : first + scorer.batch]
        inputs = np.stack([framing.cut(views[k], frame) for k, frame in batch])
        for (k, frame), own in zip(batch, scorer.maps(inputs), strict=True):
            maps[k][frame.rows, frame.columns] += frame.weights * own[frame.inside]
    return [whole.clip(max=1, out=whole) for whole in maps]  # the weights' sums are 1 but for rounding


def _scored(picture: Picture, anomaly_map: np.ndarray, framing: Framing) -> Scored:
    region = framing.region(picture.view)
    counting = anomaly_map if region is None else anomaly_map[region]
    image_score, pixel_score = scores(counting, framing.size)
    if not math.isfinite(image_score):
        raise RuntimeError(
            "the network gives NaN: its training has diverged, or its weights are damaged; "
            'fit again, with precision="float32" or another seed. On a GPU inference_precision="float16" may '
            "be too narrow for them: calibrate with another one"
        )
    return Scored(picture.pixels, anomaly_map, image_score, pixel_score, framing.roi)


def top_count(size: tuple[int, int]) -> int:
    """Return how many of the largest values make the score, for an input of this height and width."""
    return max(1, round(TOP_SHARE * size[0] * size[1]))


def scores(values: np.ndarray, size: tuple[int, int]) -> tuple[float, float]:
    """Return the image score and the pixel score of a map, of those of its pixels that count.

    Of the largest T values the image score is the mean, and the pixel score the smallest. T is 100 / 65536 of
    the pixels of one network input - 100 of 256 x 256 - whatever the number of frames, the padding and the
    region of interest, or all that count if they are fewer: a defect has the same score in a large picture
    as in a small one, and a part of a region never scores higher than the whole, if it has T pixels.

    Since the image score is never below the pixel score, nor are thresholds made from them, so the map of a
    picture that is called anomalous exceeds the pixel threshold somewhere. That holds at this size: resized
    to that of a smaller picture, the map may lose its highest values.

    Args:
        values: float32 of any shape, at least one value; NaN counts as the largest.
        size: height and width of the network's input.
    """
    highest = largest(values, top_count(size))
    return float(highest.mean()), float(highest[0])
