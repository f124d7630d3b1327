"""Batches of normal pictures with synthetic anomalies, the same whatever the number of workers."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from destseg.model.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from destseg.ops.corruption import Corruption, corrupt
from destseg.pictures.prefetch import prefetch
from destseg.pictures.store import PictureStore
from destseg.settings import AUGMENTATIONS, FLIPS, check_choice, checked_rotation
from destseg.training.augmentation import Rotate, augment_picture, augment_roi, draw_augmentation
from destseg.training.textures import DrawTexture


class Batch(NamedTuple):
    """n training inputs; corrupted and clean are (n, 3, h, w) float32 normalised."""

    corrupted: Tensor
    masks: Tensor  # (n, 1, h, w) uint8, 1 = anomaly
    clean: Tensor
    indices: list[int] | Tensor  # of the inputs in their store
    rois: Tensor | None = None  # (n, 1, h, w) uint8, 1 = counts; None where all pixels do


class Drawn(NamedTuple):
    """The ingredients of a batch, one of each for every input."""

    pictures: list[Any]
    rois: list[np.ndarray | None]  # (h, w) bool, which pixels count; None: all of them
    textures: list[Any]
    corruptions: list[Corruption]
    indices: list[int]  # of the inputs in their store


class Synthesis:
    """Draws training batches; batch number `step` is always the same, in whatever order batches are drawn.

    Args:
        normals: network inputs of the normal pictures.
        draw_texture: draws the texture of an anomaly.
        batch_size: inputs in a batch; if there are fewer inputs, some come more than once.
        seed: seed of all random numbers.
        rotate, flip, augment: how inputs change at each draw, see `destseg.training.augmentation`.
    """

    def __init__(
        self,
        normals: PictureStore,
        draw_texture: DrawTexture,
        batch_size: int,
        seed: int = 0,
        rotate: Rotate = 0,
        flip: str = "",
        augment: str = "",
    ) -> None:
        check_choice("flip", flip, FLIPS)
        check_choice("augment", augment, AUGMENTATIONS)
        self.normals, self.draw_texture = normals, draw_texture
        self.batch_size, self.seed = batch_size, seed
        self.rotate, self.flip, self.augment = checked_rotation(rotate), flip, augment

    @property
    def changes_pictures(self) -> bool:
        """Whether clean pictures change at each draw, so that nothing can be computed once and kept."""
        return bool(self.flip or self.augment) or self.rotate != 0

    def batch(self, step: int) -> Batch:
        """Return batch number `step`, counted from 0 over both stages of training."""
        drawn = self.drawn(step, self.input, self.draw_texture)
        pictures, textures = (
            torch.from_numpy(np.stack(arrays)) for arrays in (drawn.pictures, drawn.textures)
        )
        corrupted, masks = corrupt(pictures, textures, drawn.corruptions, IMAGENET_MEAN, IMAGENET_STD)
        rois = stack_rois(drawn.rois, self.normals.size)
        return Batch(corrupted, masks, normalise(pictures), drawn.indices, rois)

    def batches(self, steps: range, workers: int) -> Iterator[Batch]:
        """Yield the batches of some steps, made ahead by `workers` threads."""
        return prefetch(self.batch, steps, workers)

    def drawn(
        self,
        step: int,
        take: Callable[[int, Generator], tuple[int, Any, np.ndarray | None]],
        texture: Callable[[Generator], Any],
    ) -> Drawn:
        """Draw the ingredients of batch number `step`.

        Args:
            step: the batch's number.
            take: returns the index, the picture and the ROI of an index, in any form; those of another one
                where that picture cannot be read any more.
            texture: draws a texture, in any form.
        """
        drawn = Drawn([], [], [], [], [])
        for k in range(self.batch_size):
            generator = np.random.default_rng([self.seed, step, k])
            index = self._index(step * self.batch_size + k)
            index, picture, roi = take(index, generator)
            drawn.pictures.append(picture)
            drawn.rois.append(roi)
            drawn.textures.append(texture(generator))
            drawn.corruptions.append(draw_corruption(generator))
            drawn.indices.append(index)
        return drawn

    def input(self, index: int, generator: Generator) -> tuple[int, np.ndarray, np.ndarray | None]:
        """Return `PictureStore.readable_input`, picture and ROI changed alike if that is wanted."""
        index, picture, roi = self.normals.readable_input(index)
        return index, *self._changed(picture, roi, generator)

    def view(self, index: int, generator: Generator) -> tuple[int, np.ndarray, np.ndarray | None]:
        """Return what `input` does, but pixels brought in from outside never count."""
        index, picture, roi = self.normals.readable_input(index)
        if roi is None and self.changes_pictures:
            roi = np.ones(self.normals.size, bool)
        return index, *self._changed(picture, roi, generator)

    def _changed(
        self, picture: np.ndarray, roi: np.ndarray | None, generator: Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if not self.changes_pictures:
            return picture, roi
        changes = draw_augmentation(generator, self.normals.size, self.rotate, self.flip, self.augment)
        return augment_picture(picture, changes), None if roi is None else augment_roi(roi, changes)

    def clean(self, indices: Iterable[int]) -> Tensor:
        """Return the clean inputs of these indices, as stored, (n, 3, h, w) float32 normalised."""
        return normalise(np.stack([self.normals[index] for index in indices]))

    def _index(self, position: int) -> int:
        """Return the input at a position of the endless sequence, in which each epoch is a permutation."""
        epoch, place = divmod(position, len(self.normals))
        return int(_order(self.seed, epoch, len(self.normals))[place])


@functools.lru_cache(maxsize=4)  # batches made at the same time lie in few epochs
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return the order of the inputs in an epoch, a permutation (count,); do not change it, it is cached."""
    # Four words where `drawn` has three: epochs have a branch of seeds of their own.
    return np.random.default_rng([seed, epoch, 0, 1]).permutation(count)


def draw_corruption(generator: Generator) -> Corruption:
    """Draw the numbers of one synthetic anomaly. Source: DeSTSeg (arXiv 2211.11317), section 3.1."""
    cells_y, cells_x = (int(2**exponent) for exponent in generator.integers(0, 6, 2))
    angles = generator.uniform(0, 2 * math.pi, (cells_y + 1, cells_x + 1)).astype(np.float32)
    rotation = generator.uniform(-math.pi / 2, math.pi / 2)
    return Corruption(angles, rotation, 0.8 * generator.random())


def stack_rois(rois: Sequence[np.ndarray | None], size: tuple[int, int]) -> Tensor | None:
    """Return ROIs, each (h, w) bool or None, in the form of a `Batch`; None where all of them are None."""
    if all(roi is None for roi in rois):
        return None
    everything = np.ones(size, bool)
    stack = np.stack([everything if roi is None else roi for roi in rois])
    return torch.from_numpy(stack[:, None].astype(np.uint8))
