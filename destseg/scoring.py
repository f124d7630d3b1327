"""From pixels to anomaly maps and scores: the one way that prediction, calibration and evaluation share."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from destseg.framing import Framing, View
from destseg.images import normalise
from destseg.networks import DeSTSegNet, Output
from destseg.ops.destmap import destmap_of_features
from destseg.roi import RegionOfInterest

Network: TypeAlias = DeSTSegNet | Callable[[np.ndarray], Tensor]
"""What makes the maps: a network, or a function like `anomaly_maps` of one, as exported networks have."""

FRAMES_AT_ONCE = 8  # that go through the network: memory does not grow with their number
PATIENCE = 2.0  # seconds after which a single picture's progress is shown


class Scored(NamedTuple):
    """What the network makes of one picture."""

    anomaly_map: Tensor  # (h, w) float32 in [0, 1] of the scaled picture, see `destseg.framing`
    score: float
    pixel_score: float  # see `scores`
    size: tuple[int, int]  # height and width of the picture itself
    roi: RegionOfInterest | None = None  # what counts; None for everything

    def region(self, size: tuple[int, int]) -> np.ndarray | None:
        """Return which pixels count, (h, w) bool at the given height and width; None for all of them."""
        return None if self.roi is None else self.roi.mask(self.size, size)

    def resized_map(self, size: tuple[int, int]) -> np.ndarray:
        """Return the anomaly map at the given height and width, (h, w) float32; 0 is what does not count."""
        anomaly_map = resized_maps(self.anomaly_map[None], size)[0].cpu().numpy()
        region = self.region(size)
        return anomaly_map if region is None else anomaly_map * region


TOP_SHARE = 100 / (256 * 256)  # of the pixels of one network input: the paper's 100 of 256 x 256


def scored(network: Network, framing: Framing, view: View) -> Scored:
    """Score one picture, scaled by the framing of a network. Raises RuntimeError as `scored_map` does."""
    return scored_map(framed_map(network, framing, view), framing, view)


def scored_map(anomaly_map: Tensor, framing: Framing, view: View) -> Scored:
    """Score one picture by its anomaly map, as `framed_map` returns it.

    Raises RuntimeError where the network gives NaN, which would exceed no threshold and count as normal.
    """
    region = framing.region(view)
    counting = anomaly_map if region is None else anomaly_map[torch.from_numpy(region.copy())]
    image_score, pixel_score = scores(counting, framing.size)
    if not math.isfinite(image_score):  # the mean of the largest values: NaN counts as one of them
        raise RuntimeError(
            "the network gives NaN: its training has diverged, or its weights are damaged; "
            'fit again, with precision="float32" or another seed. On a GPU inference_precision="float16" may '
            "be too narrow for them: calibrate with another one"
        )
    return Scored(anomaly_map, image_score, pixel_score, view.size, framing.roi)


def framed_map(network: Network, framing: Framing, view: View) -> Tensor:
    """Return the anomaly map of a scaled picture, (h, w) float32 in [0, 1], put together of its frames'.

    Padding is cut off; where frames overlap, the map fades from one to the other. It is 0 where there is no
    frame, because nothing there counts. A picture of many frames shows its progress on a terminal.
    """
    frames, size = framing.frames(view), view.pixels.shape[:2]
    if len(frames) == 1 and (len(frames[0].row_weights), len(frames[0].column_weights)) == size:
        alone = anomaly_maps(network, framing.cut(view, frames[0])[None])[0]
        return alone[frames[0].inside].clone()  # not in memory that a network uses again
    device = next(network.parameters()).device if isinstance(network, nn.Module) else None
    whole = torch.zeros(size, device=device)
    firsts = range(0, len(frames), FRAMES_AT_ONCE)
    several = len(firsts) > 1
    bar = tqdm(firsts, "tiles", leave=False, delay=PATIENCE, disable=None if several else True)
    for first in bar:
        batch = frames[first : first + FRAMES_AT_ONCE]
        maps = anomaly_maps(network, np.stack([framing.cut(view, frame) for frame in batch]))
        for frame, anomaly_map in zip(batch, maps, strict=True):
            weights = torch.from_numpy(np.outer(frame.row_weights, frame.column_weights))
            whole[frame.rows, frame.columns] += weights.to(maps.device) * anomaly_map[frame.inside]
    return whole.clamp_(max=1)  # the weights' sums are 1 but for rounding


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
    weights, size = next(network.parameters()), (pixels.shape[1], pixels.shape[2])
    with torch.inference_mode():
        images = normalise(torch.from_numpy(pixels).to(weights.device))
        if not weights.is_contiguous(memory_format=torch.channels_last):
            images = images.contiguous()  # torch goes channels last if either has it: the weights decide
        if isinstance(network, DeSTSegNet) and network.segmentation_net is None:
            return destmap_of_features(*network.features(images), size)[:, 0].clamp(0, 1)
        return resized_maps(map_of(network(images)), size)


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


def top_count(size: tuple[int, int]) -> int:
    """Return how many of the largest values make the score, for an input of this height and width."""
    return max(1, round(TOP_SHARE * size[0] * size[1]))


def scores(values: Tensor, size: tuple[int, int]) -> tuple[float, float]:
    """Return the image score and the pixel score of a map, of those of its pixels that count.

    Of the largest T values the image score is the mean, and the pixel score the smallest. T is 100 / 65536 of
    the pixels of one network input - 100 of 256 x 256 - whatever the number of frames, the padding and the
    region of interest, or all that count if they are fewer: a defect has the same score in a large picture
    as in a small one, and a part of a region never scores higher than the whole, if it has T pixels.

    Since the image score is never below the pixel score, nor are thresholds made from them, so the map of a
    picture that is called anomalous exceeds the pixel threshold somewhere. That holds at this size: resized
    to that of a smaller picture, the map may lose its highest values.

    Args:
        values: of any shape, at least one value.
        size: height and width of the network's input.
    """
    highest = largest(values.flatten(), size)
    return highest.mean().item(), highest[-1].item()


def largest(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the largest T values along the last dimension, falling, in double precision; see `scores`."""
    return values.topk(min(top_count(size), values.shape[-1])).values.double()
