"""A memory of normal features, and how far the features of a picture are from it.

A student that saw few pictures, or parts that lie anyhow, does not know all that is normal. The nearest
neighbour among kept features needs no training. Both together are what the segmentation network fuses.
Source of the comparison: Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (2106.08265).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

KEPT = 500  # positions in the memory
SEEN = 60_000  # positions, about, that they are chosen from
PROJECTED = 64  # dimensions in which they are compared when they are chosen
DISTANCES = 3  # channels of the output: by the second level, by the third, and by both


class Normal(NamedTuple):
    """The teacher's features of one normal input, and where they come from."""

    levels: list[Tensor]  # three of (1, c_k, h_k, w_k)
    owner: int  # the number of the picture
    counts: Tensor | None = None  # (h, w) bool, which pixels of the input count; None: all of them


class MemoryBank(nn.Module):
    """Unit features of normal pictures from the teacher's second and third level, KEPT positions of both.

    Called with the teacher's features of n inputs, it returns (n, 3, h_1, w_1) float32: 1 - cosine similarity
    to the nearest kept position by the second level, by the third, and by the mean of both. They are resized
    bilinearly (align_corners=False) to the size of the first level.

    Args of the call:
        taught: the teacher's features, three levels of (n, c_k, h_k, w_k).
        owners: (n,) numbers of pictures, in training: each input is compared with other pictures only, as
            later every picture will be. None, and where all positions come from one picture: with all.
    """

    second: Tensor
    third: Tensor
    owners: Tensor

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        self.register_buffer("second", torch.zeros(KEPT, channels[0]))
        self.register_buffer("third", torch.zeros(KEPT, channels[1]))
        self.register_buffer("owners", torch.zeros(KEPT, dtype=torch.int64))

    def forward(self, taught: list[Tensor], owners: Tensor | None = None) -> Tensor:
        with torch.autocast(taught[0].device.type, enabled=False):  # differences of small distances count
            near = [
                level @ kept.float().T
                for level, kept in zip(_positions(taught), (self.second, self.third), strict=True)
            ]
            near.append((near[0] + near[1]) / 2)
            if owners is not None and (self.owners != self.owners[0]).any():
                own = (owners[:, None] == self.owners)[:, None]
                near = [similarity.masked_fill(own, -1) for similarity in near]
            distances = torch.stack([1 - similarity.amax(2) for similarity in near], 1)
            distances = distances.unflatten(2, taught[1].shape[2:])
            return F.interpolate(distances, size=taught[0].shape[2:], mode="bilinear", align_corners=False)

    @torch.no_grad()
    def fill(self, normals: Iterable[Normal], count: int, seed: int) -> None:
        """Choose what is kept: of some positions of each normal input those that lie farthest apart.

        Each is farther from all that were chosen before than any other, as far as a random projection tells.

        Args:
            normals: the inputs.
            count: how many they are.
            seed: of the random numbers.
        """
        generator = np.random.default_rng([seed, count, 3])
        parts: list[tuple[Tensor, ...]] = []
        owners: list[int] = []
        for normal in normals:
            inside = _inside(normal)
            some = torch.from_numpy(generator.permutation(len(inside))[: -(-SEEN // count)])
            some = inside[some.to(inside.device)]
            parts.append(tuple(level[0, some] for level in _positions(normal.levels)))
            owners += [normal.owner] * len(some)
        seconds, thirds = (torch.cat(level) for level in zip(*parts, strict=True))
        chosen = farthest(torch.cat([seconds, thirds], 1), generator)
        self.second.copy_(seconds[chosen])
        self.third.copy_(thirds[chosen])
        self.owners.copy_(torch.tensor(owners)[chosen.cpu()])


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


def _positions(taught: list[Tensor]) -> list[Tensor]:
    """Return the second and third level as unit vectors at the second's positions, (n, h * w, c) float32.

    Each position is the mean of the 3 x 3 around it.
    """
    second, third = (F.avg_pool2d(level.float(), 3, 1, 1) for level in taught[1:])
    third = F.interpolate(third, size=second.shape[2:], mode="bilinear", align_corners=False)
    return [F.normalize(level, dim=1).flatten(2).transpose(1, 2) for level in (second, third)]
