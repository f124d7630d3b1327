"""Makes batches on a GPU from pictures and textures that stay there: the same batches as on the CPU."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from destseg.model.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from destseg.ops.corruption import Corruption, corrupt
from destseg.pictures.prefetch import prefetch
from destseg.pictures.store import PictureStore
from destseg.training.synthesis import Batch, Synthesis, stack_rois
from destseg.training.textures import PictureTextures


class Draft(NamedTuple):
    """The ingredients of a batch, in CPU memory that a GPU can read while the CPU goes on."""

    pictures: Tensor  # (n, h, w, 3) uint8, or (n,) int64, the indices of resident ones
    textures: Tensor  # likewise
    rois: Tensor | None  # (n, 1, h, w) uint8, 1 = counts; None: all pixels do, or the ROIs are resident
    corruptions: list[Corruption]
    indices: Tensor  # (n,) int64


class ResidentSynthesis:
    """Makes the batches of a `Synthesis` on a device.

    Workers on the CPU draw the same numbers as `Synthesis`; the device blends and normalises. Pictures with
    their ROIs, and textures, lie on the device as uint8 if they fit into `memory` bytes. If not, or if a
    batch makes them anew (changed pictures, procedural textures), they are sent there for every batch.
    Nothing waits for the device.
    """

    def __init__(self, synthesis: Synthesis, device: torch.device, memory: int) -> None:
        self.synthesis, self.device = synthesis, device
        self.pictures: Tensor | None = None
        self.rois: Tensor | None = None
        if not synthesis.changes_pictures:
            self.pictures, self.rois = load_resident(synthesis.normals, device, memory)
        source = synthesis.draw_texture
        self.texture_source = source if isinstance(source, PictureTextures) else None
        self.textures = None
        if self.texture_source is not None:
            self.textures, _ = load_resident(self.texture_source.store, device, memory)

    def batches(self, steps: range, workers: int) -> Iterator[Batch]:
        """Yield the batches of some steps; `workers` threads draw ahead."""
        return map(self.batch, prefetch(self.draft, steps, workers))

    def draft(self, step: int) -> Draft:
        """Draw the ingredients of batch number `step`."""
        synthesis, source = self.synthesis, self.texture_source
        take = synthesis.input if self.pictures is None else lambda index, generator: (index, index, None)
        texture = synthesis.draw_texture if source is None or self.textures is None else source.index
        drawn = synthesis.drawn(step, take, texture)
        pictures, textures, indices = (
            self._pin(torch.from_numpy(np.stack(values)))
            for values in (drawn.pictures, drawn.textures, drawn.indices)
        )
        rois = stack_rois(drawn.rois, synthesis.normals.size)
        rois = None if rois is None else self._pin(rois)
        return Draft(pictures, textures, rois, drawn.corruptions, indices)

    def batch(self, draft: Draft) -> Batch:
        """Make the batch on the device."""
        pictures, textures, indices = map(self._send, (draft.pictures, draft.textures, draft.indices))
        if self.pictures is not None:
            pictures = self.pictures[pictures]
        if self.textures is not None:
            textures = self.textures[textures]
        corrupted, masks = corrupt(pictures, textures, draft.corruptions, IMAGENET_MEAN, IMAGENET_STD)
        rois = None if draft.rois is None else self._send(draft.rois)
        if self.rois is not None:
            rois = self.rois[indices]
        return Batch(corrupted, masks, normalise(pictures), indices, rois)

    def _pin(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)


def load_resident(
    store: PictureStore, device: torch.device, memory: int
) -> tuple[Tensor | None, Tensor | None]:
    """Copy the inputs of a store and their ROIs to a device, if they fit into `memory` bytes.

    Returns:
        The inputs, (n, h, w, 3) uint8, or None if they do not fit; their ROIs, (n, 1, h, w) uint8, or None
        where all pixels count.
    """
    all_count = store.framing.checksum is None  # whole pictures, stretched
    count, (height, width) = len(store), store.size
    if (3 if all_count else 4) * count * height * width > memory:
        return None, None
    pictures = torch.empty((count, height, width, 3), dtype=torch.uint8, device=device)
    rois = None if all_count else torch.ones((count, 1, height, width), dtype=torch.uint8, device=device)
    partly = False
    for index, kept in enumerate(pictures):
        picture, roi = store.input(index)
        kept.copy_(torch.from_numpy(np.ascontiguousarray(picture)))
        if rois is not None and roi is not None:
            rois[index, 0].copy_(torch.from_numpy(np.array(roi)))
            partly = True
    return pictures, rois if partly else None
