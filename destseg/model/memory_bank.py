"""A memory of normal features, and how far the features of a picture are from it.

A student that saw few pictures, or parts that lie anyhow, does not know all that is normal. The nearest
neighbour among kept features needs no training, and errs elsewhere: where both see an anomaly there is one.
Source of the comparison: Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (2106.08265).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

KEPT = 1000  # positions in the memory
SEEN = 60_000  # positions, about, that they are chosen from
PROJECTED = 64  # dimensions in which they are compared when they are chosen
USUAL, FAR = 0.999, 3  # a distance of FAR times this quantile of normal ones is as anomalous as can be
# Shares in the geometric mean that makes a map, see docs/quality_log.md; the network has the rest.
WEIGHT = 3 / 8  # of the bank's maps
WEIGHT_OF_FEW, FEW = 1 / 2, 40  # the same, where fewer pictures than FEW are trained on
DISTANCE_WEIGHT = 1 / 4  # of the distances of student and teacher
LEAST = 1e-3  # of the scale: among equal pictures every distance would be large
NEAR = 0.01  # the least share: below it rounding decides, which a root would enlarge


class Normal(NamedTuple):
    """The teacher's features of one normal input, and where they come from."""

    levels: list[Tensor]  # three of (1, c_k, h_k, w_k)
    owner: int  # the number of the picture
    counts: Tensor | None = None  # (h, w) bool, which pixels of the input count; None: all of them


class MemoryBank(nn.Module):
    """Unit features of normal pictures from the teacher's second and third level, KEPT positions of both.

    Called with the teacher's features of n inputs, three levels of (n, c_k, h_k, w_k), it returns
    (n, 1, h_2, w_2) float32 from NEAR to 1: how far each position of the second level is from the nearest
    kept one, 1 - the mean cosine similarity of both levels, as a share of FAR times the distance that normal
    positions rarely exceed.
    """

    kept: Tensor  # (KEPT, both levels' channels, 1, 1), the weights of a convolution
    scale: Tensor
    weight: Tensor  # this and the next lie in the file: thresholds belong to the maps that they make
    distance_weight: Tensor

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(KEPT, sum(channels), 1, 1))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("weight", torch.tensor(WEIGHT))
        self.register_buffer("distance_weight", torch.tensor(DISTANCE_WEIGHT))

    def forward(self, taught: list[Tensor]) -> Tensor:
        features, kept = _features(taught), self.kept.float()
        if features.is_cuda:  # whose convolutions may round to TF32
            similarity = (kept.flatten(1) @ features.flatten(2)).unflatten(2, features.shape[2:])
        else:
            similarity = F.conv2d(features, kept)
        return ((1 - similarity.amax(1, keepdim=True) / 2) / self.scale.float()).clamp(NEAR, 1.0)

    @torch.no_grad()
    def fill(self, normals: Iterable[Normal], count: int, seed: int) -> None:
        """Choose what is kept: of some positions of each normal input those that lie farthest apart.

        Each is farther from all that were chosen before than any other, as far as a random projection tells.
        The scale is set by the distances of all of them to what is kept of other pictures, the weight by how
        many pictures there are.

        Args:
            normals: the inputs.
            count: how many they are.
            seed: of the random numbers.
        """
        generator = np.random.default_rng([seed, count, 3])
        parts: list[Tensor] = []
        numbers: list[int] = []
        for normal in normals:
            inside = _inside(normal)
            some = torch.from_numpy(generator.permutation(len(inside))[: -(-SEEN // count)])
            some = inside[some.to(inside.device)]
            parts.append(_features(normal.levels)[0].flatten(1).T[some])
            numbers += [normal.owner] * len(some)
        features, owners = torch.cat(parts), torch.tensor(numbers)
        chosen = farthest(features, generator)
        kept, kept_owners = features[chosen], owners[chosen.cpu()]
        self.kept.copy_(kept[..., None, None])
        distances = []
        for some, owner in zip(features.split(4096), owners.split(4096), strict=True):
            similarity = some @ kept.T / 2
            if len(set(numbers)) > 1:
                own = (owner[:, None] == kept_owners).to(similarity.device)
                similarity = similarity.masked_fill(own, -1)
            distances.append(1 - similarity.amax(1))
        rising = torch.cat(distances).sort().values
        self.scale.copy_((FAR * rising[int(USUAL * (len(rising) - 1))]).clamp(min=LEAST))
        self.weight.fill_(WEIGHT_OF_FEW if len(set(numbers)) < FEW else WEIGHT)


def farthest(features: Tensor, generator: np.random.Generator) -> Tensor:
    """Return KEPT indices of features (m, c), the first one drawn, each next one farthest from those before.

    Where there are fewer features, they come again and again.
    """
    projection = generator.standard_normal((features.shape[1], PROJECTED)).astype(np.float32)
    projected = F.normalize(features @ torch.from_numpy(projection).to(features.device), dim=1)
    chosen = [int(generator.integers(len(features)))]
    nearest = projected @ projected[chosen[0]]
    for _ in range(min(KEPT, len(features)) - 1):
        chosen.append(int(nearest.argmin()))
        nearest = torch.maximum(nearest, projected @ projected[chosen[-1]])
    return torch.tensor(chosen, device=features.device).repeat(-(-KEPT // len(chosen)))[:KEPT]


def _inside(normal: Normal) -> Tensor:
    """Return the numbers of the second level's positions that count: half of whose pixels do, or the most."""
    (height, width), device = normal.levels[1].shape[2:], normal.levels[1].device
    if normal.counts is None:
        return torch.arange(height * width, device=device)
    share = F.adaptive_avg_pool2d(normal.counts[None].float(), (height, width)).flatten()
    return (share >= min(0.5, float(share.max()))).nonzero()[:, 0].to(device)


def _features(taught: list[Tensor]) -> Tensor:
    """Return the second and third level at the second's positions, (n, both levels' channels, h, w) float32.

    Each level is brought to unit length; before that each position is the mean of the 3 x 3 around it.
    """
    second, third = (F.avg_pool2d(level.float(), 3, 1, 1) for level in taught[1:])
    third = F.interpolate(third, size=second.shape[2:], mode="bilinear", align_corners=False)
    return torch.cat([F.normalize(level, dim=1) for level in (second, third)], dim=1)
