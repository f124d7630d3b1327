"""From pictures to anomaly maps and scores, for prediction, calibration and evaluation alike."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from destseg.inference.scorer import Scorer
from destseg.ops.ranking import largest
from destseg.ops.resizing import resize_maps
from destseg.pictures.framing import Framing, View
from destseg.pictures.roi import RegionOfInterest
from destseg.pictures.store import Picture
from destseg.progress import bar

ROUNDING = 1e-3  # by which the maps of engines may leave [0, 1]
PATIENCE = 2.0  # seconds before a progress bar appears for a picture in tiles
TOP_SHARE = 100 / (256 * 256)  # of the pixels of one input: the paper's 100 of 256 x 256


class Scored(NamedTuple):
    """A picture with its anomaly map and scores."""

    pixels: np.ndarray  # as of its `Picture`
    size: tuple[int, int]  # height and width of the picture itself
    anomaly_map: np.ndarray  # float32 in [0, 1], at the size of the scaled picture
    score: float
    pixel_score: float  # see `scores`
    roi: RegionOfInterest | None = None  # None: the whole picture counts

    def roi_mask(self, size: tuple[int, int]) -> np.ndarray | None:
        """Return which pixels count, (h, w) bool at the given height and width; None: all of them."""
        return None if self.roi is None else self.roi.mask(self.size, size)

    def resized_map(self, size: tuple[int, int]) -> np.ndarray:
        """Return the anomaly map at the given height and width, (h, w) float32, 0 where no pixel counts."""
        anomaly_map: np.ndarray = resize_maps(self.anomaly_map[None], size)[0]
        counts = self.roi_mask(size)
        return anomaly_map if counts is None else anomaly_map * counts


def score(
    scorer: Scorer, framing: Framing, pictures: Sequence[Picture], progress: bool = True
) -> list[Scored]:
    """Score pictures that this framing has scaled; their frames share the scorer's batches.

    With many frames it takes long, and `progress` shows how far it is.

    Raises RuntimeError where the network or the engine gives NaN, or anything else but maps in [0, 1].
    """
    views = [picture.view for picture in pictures]
    return [
        _scored(picture, anomaly_map, framing)
        for picture, anomaly_map in zip(pictures, framed_maps(scorer, framing, views, progress), strict=True)
    ]


def framed_maps(
    scorer: Scorer, framing: Framing, views: Sequence[View], progress: bool = True
) -> list[np.ndarray]:
    """Return the anomaly map of each scaled picture, (h, w) float32 in [0, 1], joined from its frames' maps.

    Padding is cut off. Where frames overlap, the map fades from one to the other. Where no pixel counts there
    is no frame, and the map is 0. If there are many frames, `progress` shows how far it is.
    """
    maps = [np.zeros(view.pixels.shape[:2], np.float32) for view in views]
    places = [(k, frame) for k, view in enumerate(views) for frame in framing.frames(view)]
    firsts = range(0, len(places), scorer.batch)
    for first in bar(firsts, "tiles", leave=False, delay=PATIENCE, wanted=progress and len(firsts) > 1):
        batch = places[first : first + scorer.batch]
        inputs = np.stack([framing.cut(views[k], frame) for k, frame in batch])
        for (k, frame), frame_map in zip(batch, _checked(scorer.maps(inputs), inputs.shape), strict=True):
            maps[k][frame.rows, frame.columns] += frame.weights * frame_map[frame.inside]
    return [whole.clip(max=1, out=whole) for whole in maps]  # rounding may take sums of weights above 1


def _checked(maps: np.ndarray, inputs: tuple[int, ...]) -> np.ndarray:
    """Return the maps that a scorer made of inputs of this shape; raise RuntimeError if they are no maps.

    An exported graph may compute anything. NaN would exceed no threshold and count as normal.
    """
    if maps.dtype != np.float32 or maps.shape != inputs[:3]:
        raise RuntimeError(f"maps must be float32 of shape {inputs[:3]}, got {maps.dtype} of {maps.shape}")
    low, high = maps.min(), maps.max()
    if np.isnan(low):
        raise RuntimeError(
            "the network gives NaN: its training has diverged, or its weights are damaged; "
            'fit again, with precision="float32" or another seed. On a GPU inference_precision="float16" may '
            "be too narrow for them: calibrate with another one"
        )
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise RuntimeError(f"maps must lie in [0, 1], got values from {low:g} to {high:g}: export again")
    return maps if low >= 0 and high <= 1 else maps.clip(0, 1)


def _scored(picture: Picture, anomaly_map: np.ndarray, framing: Framing) -> Scored:
    counts = framing.roi_mask(picture.view)
    values = anomaly_map if counts is None else anomaly_map[counts]
    image_score, pixel_score = scores(values, framing.size)
    return Scored(picture.pixels, picture.view.size, anomaly_map, image_score, pixel_score, framing.roi)


def top_count(size: tuple[int, int]) -> int:
    """Return how many of a map's largest values make its score, for an input of this height and width."""
    return max(1, round(TOP_SHARE * size[0] * size[1]))


def scores(values: np.ndarray, size: tuple[int, int]) -> tuple[float, float]:
    """Return the image score and the pixel score of a map, from those of its pixels that count.

    The image score is the mean of the T largest values, the pixel score the smallest of them. T is
    100 / 65536 of the pixels of one network input, 100 for 256 x 256, whatever the number of frames, the
    padding and the region of interest; where fewer pixels count, T is their number. So a defect scores the
    same in a large picture as in a small one, and a part of an ROI never scores higher than the whole ROI, if
    the part has T pixels.

    The image score is never below the pixel score, so the threshold is never below the pixel threshold, and
    the map of an anomalous picture exceeds the pixel threshold somewhere. That holds at this size. Resized to
    a smaller picture's size, the map may lose its highest values.

    Args:
        values: float32 of any shape, at least one value; NaN counts as the largest.
        size: height and width of the network's input.
    """
    highest = largest(values, top_count(size))
    return float(highest.mean()), float(highest[0])
