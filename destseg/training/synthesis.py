"""Batches of normal pictures with synthetic anomalies, the same whatever the number of workers."""

import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from destseg.model.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from destseg.ops.corruption import Corruption, corrupt
from destseg.pictures.prefetch import prefetch
from destseg.pictures.store import PictureStore
from destseg.settings import FLIPS, check_choice, checked_rotation
from destseg.training.textures import DrawTexture, Generator

FILL = (114, 114, 114)  # the published colour of pixels that a rotation brings in from outside
SMALL_TURN = 5.0  # degrees either way, beside quarter turns

Rotate = float | str


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
        rotate: 0, degrees (uniform either way), or "90" for multiples of 90 plus +-5; see `augment`.
        flip: "", "horizontal", "vertical" or "both"; each mirrors half of the inputs.
    """

    def __init__(
        self,
        normals: PictureStore,
        draw_texture: DrawTexture,
        batch_size: int,
        seed: int = 0,
        rotate: Rotate = 0,
        flip: str = "",
    ) -> None:
        check_choice("flip", flip, FLIPS)
        self.normals, self.draw_texture = normals, draw_texture
        self.batch_size, self.seed = batch_size, seed
        self.rotate, self.flip = checked_rotation(rotate), flip

    @property
    def changes_pictures(self) -> bool:
        """Whether clean pictures are rotated or flipped, so that nothing can be computed once and kept."""
        return bool(self.flip) or self.rotate != 0

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
        take: Callable[[int, Generator], tuple[Any, np.ndarray | None]],
        texture: Callable[[Generator], Any],
    ) -> Drawn:
        """Draw the ingredients of batch number `step`.

        Args:
            step: the batch's number.
            take: returns the picture and the ROI of an index, in any form.
            texture: draws a texture, in any form.
        """
        drawn = Drawn([], [], [], [], [])
        for k in range(self.batch_size):
            generator = np.random.default_rng([self.seed, step, k])
            index = self._index(step * self.batch_size + k)
            picture, roi = take(index, generator)
            drawn.pictures.append(picture)
            drawn.rois.append(roi)
            drawn.textures.append(texture(generator))
            drawn.corruptions.append(draw_corruption(generator))
            drawn.indices.append(index)
        return drawn

    def input(self, index: int, generator: Generator) -> tuple[np.ndarray, np.ndarray | None]:
        """Return an input and its ROI as a store does, rotated and mirrored if that is wanted."""
        picture, roi = self.normals.input(index)
        if self.changes_pictures:
            if roi is not None:
                roi = _augment_roi(roi, copy.deepcopy(generator), self.rotate, self.flip)
            picture = augment(picture, generator, self.rotate, self.flip)
        return picture, roi

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


def augment(picture: np.ndarray, generator: Generator, rotate: Rotate, flip: str) -> np.ndarray:
    """Rotate a picture (h, w, 3) uint8 about its centre and mirror it at random; see `Synthesis`.

    Pictures that are not square make half turns where square ones make quarter turns.
    """
    height, width, _ = picture.shape
    turn = 0.0
    if rotate == "90":
        turns = (0, 90, 180, 270) if height == width else (0, 180)
        turn = float(generator.choice(turns)) + generator.uniform(-SMALL_TURN, SMALL_TURN)
    elif float(rotate):
        turn = generator.uniform(-float(rotate), float(rotate))
    if turn:
        image = PIL.Image.fromarray(picture)
        picture = np.asarray(image.rotate(turn, PIL.Image.Resampling.BILINEAR, fillcolor=FILL))
    if flip in ("horizontal", "both") and generator.random() < 0.5:
        picture = picture[:, ::-1]
    if flip in ("vertical", "both") and generator.random() < 0.5:
        picture = picture[::-1]
    return picture


def _augment_roi(roi: np.ndarray, generator: Generator, rotate: Rotate, flip: str) -> np.ndarray:
    """Rotate and mirror an ROI (h, w) bool like its picture, with the same draws; FILL does not count."""
    level = np.repeat(roi[..., None], 3, axis=2) * np.uint8(255)
    return augment(level, generator, rotate, flip)[..., 0] > max(127, *FILL)


def stack_rois(rois: Sequence[np.ndarray | None], size: tuple[int, int]) -> Tensor | None:
    """Return ROIs, each (h, w) bool or None, in the form of a `Batch`; None where all of them are None."""
    if all(roi is None for roi in rois):
        return None
    everything = np.ones(size, bool)
    stack = np.stack([everything if roi is None else roi for roi in rois])
    return torch.from_numpy(stack[:, None].astype(np.uint8))
