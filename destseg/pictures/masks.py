"""Reads the masks of defects, and finds those that are likely to be wrong."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from destseg.files import as_path
from destseg.pictures.dataset import Sample
from destseg.pictures.decoding import read_image, read_size, to_rgb, upright, wide_colour
from destseg.pictures.folders import name_some

logger = logging.getLogger("destseg")

LOSSY = ("JPEG", "WEBP")  # formats that blur a mask's values
NOISE = 16  # a mask of these whose values are all smaller is black: the codec alone makes such values
FEW = 8  # so many different values may be classes although no pixel has a neighbour of its own value
LEAST = 1 / 8  # of the largest value; noise and overshoots form no areas of more
NEARLY_ALL = 0.95  # of a picture, or of its edge, which a defect seldom covers


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a ground-truth mask, (h, w) bool, True on the defect.

    Background is 0, or black, or transparent, or, in a palette without black, the first colour. All other
    values are defects, whichever they are: classes, numbers, colours, of any bit depth. The value of a colour
    is its strongest channel.

    Grey levels are an exception: soft edges, and the noise that JPEG and lossy WebP leave beside edges. They
    differ from classes in that most values form no areas, where at least half of the pixels have two
    neighbours of the same value. Every file of these two kinds counts as grey levels. Then a defect is what
    has at least half of the smallest value that does form areas (of three such neighbours) and is an eighth
    of the largest or more; or else half of the largest. One that holds no value of 16 or more is empty.

    Raises:
        FileNotFoundError, IsADirectoryError, UnreadableImage: see `destseg.pictures.decoding.read_image`.
        ValueError: it holds NaN or infinity.
    """
    picture, name = read_image(path), os.fspath(path)
    data = as_path(path).read_bytes()
    is_lossy = picture.format in LOSSY and b"VP8L" not in data  # which tells a WebP without losses
    return _marked(_values(picture, name, wide_colour(data, name)), is_lossy)


def mask_in(picture: PIL.Image.Image, name: str) -> np.ndarray:
    """Return the mask that a Pillow image shows, (h, w) bool, as `read_mask` does; a WebP counts as lossy.

    Args:
        picture: the image; it is turned as its EXIF orientation says.
        name: what error messages call it.
    """
    return _marked(_values(upright(picture), name), picture.format in LOSSY)


def check_finite(values: np.ndarray, name: str) -> None:
    """Raise ValueError, naming the mask, if it holds NaN or infinity: neither background nor defect."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{name}: a mask must hold numbers, got NaN or infinity")


def mask_scale(samples: Sequence[Sample]) -> float:
    """Return the size of the masks in relation to their pictures', of the first for all; 1 if there are none.

    Raises:
        ValueError: the aspect of a mask is not its picture's. Rounding may change either side by a pixel.
    """
    scales, wrong = [], []
    for sample in samples:
        if sample.mask_path is None:
            continue
        try:
            (height, width), size = read_size(sample.mask_path), read_size(sample.path)
        except (OSError, ValueError):
            continue  # whoever decodes them tells
        scales.append(max(height, width) / max(size))
        if abs(height * size[1] - width * size[0]) > max(height + width, sum(size)):
            wrong.append(
                f"{sample.mask_path} is {height} x {width} pixels (height x width), "
                f"its picture {size[0]} x {size[1]}"
            )
    if wrong:
        more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ValueError(f"masks must have the aspect of their pictures: {wrong[0]}{more}")
    return scales[0] if scales else 1.0


class DoubtfulMasks:
    """Collects masks of defects that are likely to be wrong, to name them in one warning for each kind."""

    def __init__(self) -> None:
        self.count = 0
        self.empty: list[str] = []
        self.covering: list[str] = []

    def add(self, path: Path, mask: np.ndarray) -> None:
        """Look at a mask, (h, w) bool, as `read_mask` returns it."""
        self.count += 1
        edge = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        share = mask.mean()
        if not share:
            self.empty.append(str(path))
        elif share > NEARLY_ALL or (share > 0.5 and edge.mean() > NEARLY_ALL):
            self.covering.append(str(path))

    def report(self) -> None:
        """Log the warnings."""
        masks = f"of {self.count} mask{'s' if self.count > 1 else ''}"
        if self.empty:
            logger.warning(
                "%d %s are empty: %s. Their pictures count as defective, their pixels as normal; pictures of "
                "normal parts belong in test/good",
                *(len(self.empty), masks, name_some(self.empty)),
            )
        if self.covering:
            logger.warning(
                "%d %s mark nearly the whole picture, or more than half of it and its edge all around: %s. "
                "Are they inverted? Background must be 0 (black)",
                *(len(self.covering), masks, name_some(self.covering)),
            )


def _values(picture: PIL.Image.Image, name: str, colour: np.ndarray | None = None) -> np.ndarray:
    """Return the values of a mask, (h, w), 0 where there is background.

    `colour` are its pixels, (h, w, 3), where Pillow has not all bits of them.
    """
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        check_finite(values, name)
        return values
    values = (to_rgb(picture, name) if colour is None else colour).max(axis=2)
    if picture.mode == "P" and (not values.any() or values.all()):  # black tells nothing from anything else
        values = np.array(picture)
    if picture.has_transparency_data:
        values = np.where(np.asarray(picture.convert("RGBA"))[:, :, 3] == 0, 0, values)
    return values


def _marked(values: np.ndarray, is_lossy: bool) -> np.ndarray:
    """Return which values of a mask, (h, w), are those of defects, as `read_mask` tells."""
    defect, largest = values != 0, values.max()
    if is_lossy and largest < NOISE:
        return np.zeros_like(defect)
    if not defect.any() or np.array_equal(values == largest, defect):  # nearly all masks are that simple
        return defect
    kinds, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    neighbours = _like_neighbours(values).ravel()

    def are_areas(least: int) -> np.ndarray:
        return np.bincount(index.ravel(), neighbours >= least) >= counts / 2

    of_defects = are_areas(2)[kinds != 0]
    if not is_lossy and (of_defects.mean() > 0.5 or (len(kinds) <= FEW and not of_defects.any())):
        return defect
    areas = kinds[are_areas(3) & (kinds >= LEAST * largest)]
    return np.asarray(values >= min(areas, default=largest) / 2)


def _like_neighbours(values: np.ndarray) -> np.ndarray:
    """Return how many of the eight neighbours of each pixel have its value, (h, w) uint8."""
    height, width = values.shape
    count = np.zeros((height, width), np.uint8)
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):  # each pair of neighbours once
        first = (slice(0, height - down), slice(max(0, -right), width - max(0, right)))
        second = (slice(down, height), slice(max(0, right), width - max(0, -right)))
        equal = values[first] == values[second]
        count[first] += equal
        count[second] += equal
    return count
