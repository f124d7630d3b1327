"""From pixels to anomaly maps and scores: the one way that prediction, calibration and evaluation share."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from destseg.images import normalise, resize
from destseg.networks import DeSTSegNet, Output

Network: TypeAlias = DeSTSegNet | Callable[[np.ndarray], Tensor]
"""What makes the maps: a network, or a function like `anomaly_maps` of one, as exported networks have."""


class Scored(NamedTuple):
    """What the network makes of one picture."""

    anomaly_map: Tensor  # (h, w) float32 in [0, 1] at the network's input size
    score: float
    pixel_score: float  # see `scores`
    size: tuple[int, int]  # height and width of the picture itself


TOP_SHARE = 100 / (256 * 256)  # of the map's pixels: the paper's 100 of 256 x 256


def scored(network: Network, size: tuple[int, int], pixels: np.ndarray) -> Scored:
    """Score one picture (h, w, 3) uint8 of any size with a network whose input has the given one.

    Raises RuntimeError where the network gives NaN, which would exceed no threshold and count as normal.
    """
    maps = anomaly_maps(network, resize(pixels, size)[None])
    image_scores, pixel_scores = (values.item() for values in scores(maps))
    if not math.isfinite(image_scores):  # the mean of the largest values: NaN counts as one of them
        raise RuntimeError(
            "the network gives NaN: its training has diverged, or its weights are damaged; "
            'fit again, with precision="float32" or another seed'
        )
    return Scored(maps[0], image_scores, pixel_scores, (pixels.shape[0], pixels.shape[1]))


def anomaly_maps(network: Network, pixels: np.ndarray) -> Tensor:
    """Return the anomaly maps of pictures at the network's input size.

    Args:
        network: in evaluation mode, on any device; or an exported one on its engine.
        pixels: (n, h, w, 3) uint8, already of the input size.

    Returns:
        (n, h, w) float32 in [0, 1] on the network's device: the probability of the segmentation network, or
        without one the DeST map, resized bilinearly (align_corners=False).
    """
    if not isinstance(network, nn.Module):
        return network(pixels)
    device = next(network.parameters()).device
    with torch.inference_mode():
        output = network(normalise(torch.from_numpy(pixels).to(device)))
        return resized_maps(map_of(output), (pixels.shape[1], pixels.shape[2]))


def map_of(output: Output) -> Tensor:
    """Return what counts as the anomaly map in a network's output, (n, h/4, w/4) float32 in [0, 1]."""
    result = output.destmap if output.probability is None else output.probability
    # Features are not negative, so distances lie in [0, 1] but for rounding.
    return result[:, 0].float().clamp(0, 1)


def resized_maps(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (n, h, w) bilinearly (align_corners=False) to the given height and width."""
    if tuple(maps.shape[1:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]


def scores(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image score and the pixel score of each map, (n,) float64 each.

    Of the largest 100 / 65536 of a map's (n, h, w) pixels - 100 of 256 x 256 - the image score is the mean,
    and the pixel score the smallest. Since the one is never below the other, nor are thresholds made from
    them, so the map of a picture that is called anomalous exceeds the pixel threshold somewhere. That holds
    at this size: resized to that of a smaller picture, the map may lose its highest values.
    """
    flat = maps.flatten(1)
    largest = flat.topk(max(1, round(TOP_SHARE * flat.shape[1]))).values.double()
    return largest.mean(dim=1), largest[:, -1]
