"""Batches made on a GPU, from pictures and textures that stay there: the same batches as on the CPU."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from destseg.images import IMAGENET_MEAN, IMAGENET_STD, normalise
from destseg.ops.perlin import Corruption, corrupt
from destseg.store import PictureStore
from destseg.synthesis import Batch, Synthesis, prefetched, stacked
from destseg.textures import PictureTextures


class Draft(NamedTuple):
    """What a batch is made of, in CPU memory that a GPU can read while the CPU goes on."""

    pictures: Tensor  # (n, h, w, 3) uint8, or (n,) int64: which of the resident ones
    textures: Tensor  # likewise
    regions: Tensor | None  # (n, 1, h, w) uint8 of pictures that are sent; None where everything counts
    corruptions: list[Corruption]
    indices: Tensor  # (n,) int64


class ResidentSynthesis:
    """Makes the batches of a `Synthesis` on a device.

    Numbers are drawn by workers on the CPU, the same ones as there; blending and normalising is the device's
    work. What pictures and textures of a store fit into `memory` bytes, each, lies on the device as uint8;
    others, and those that a batch makes anew (rotated or mirrored pictures, procedural textures), are sent
    there for every batch. Regions go with their pictures. Nothing waits for the device.
    """

    def __init__(self, synthesis: Synthesis, device: torch.device, memory: int) -> None:
        self.synthesis, self.device = synthesis, device
        self.pictures = self.regions = None
        if not synthesis.changes_pictures:
            self.pictures = resident(synthesis.normals, device, memory)
        if self.pictures is not None:
            self.regions = resident_regions(synthesis.normals, device)
        source = synthesis.draw_texture
        self.texture_source = source if isinstance(source, PictureTextures) else None
        self.textures = None
        if self.texture_source is not None:
            self.textures = resident(self.texture_source.store, device, memory)

    def batches(self, steps: range, workers: int) -> Iterator[Batch]:
        """Yield the batches of some steps; `workers` threads draw ahead."""
        return map(self.batch, prefetched(self.draft, steps, workers))

    def draft(self, step: int) -> Draft:
        """Draw what batch number `step` is made of."""
        synthesis, source = self.synthesis, self.texture_source
        sample = synthesis.sample if self.pictures is None else lambda index, generator: (index, None)
        texture = synthesis.draw_texture if source is None or self.textures is None else source.index
        drawn = synthesis.drawn(step, sample, texture)
        pictures, textures, indices = (
            self._pinned(torch.from_numpy(np.stack(values)))
            for values in (drawn.pictures, drawn.textures, drawn.indices)
        )
        regions = stacked(drawn.regions, synthesis.normals.size)
        regions = None if regions is None else self._pinned(regions)
        return Draft(pictures, textures, regions, drawn.corruptions, indices)

    def batch(self, draft: Draft) -> Batch:
        """Make the batch on the device."""
        pictures, textures, indices = map(self._sent, (draft.pictures, draft.textures, draft.indices))
        if self.pictures is not None:
            pictures = self.pictures[pictures]
        if self.textures is not None:
            textures = self.textures[textures]
        corrupted, masks = corrupt(pictures, textures, draft.corruptions, IMAGENET_MEAN, IMAGENET_STD)
        regions = None if draft.regions is None else self._sent(draft.regions)
        if self.regions is not None:
            regions = self.regions[indices]
        return Batch(corrupted, masks, normalise(pictures), indices, regions)

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _sent(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)


def resident(store: PictureStore, device: torch.device, memory: int) -> Tensor | None:
    """Return a store's pictures on a device, (n, h, w, 3) uint8, or None beyond `memory` bytes."""
    if 3 * len(store) * store.size[0] * store.size[1] > memory:
        return None
    pictures = torch.empty((len(store), *store.size, 3), dtype=torch.uint8, device=device)
    for index, kept in enumerate(pictures):
        kept.copy_(torch.from_numpy(np.ascontiguousarray(store[index])))
    return pictures


def resident_regions(store: PictureStore, device: torch.device) -> Tensor | None:
    """Return what of a store's pictures counts on a device, (n, 1, h, w) uint8; None for everything."""
    regions = stacked([store.sample(index)[1] for index in range(len(store))], store.size)
    return None if regions is None else regions.to(device)
