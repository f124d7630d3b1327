"""Small pictures of what was found, for the report page.

A thumbnail has two layers: the picture, and a second one of the anomaly map, in levels, the ground truth and
the mask. From the levels the browser makes the masks of other pixel thresholds. A pixel of the second layer
stands for a block of the map's and has the highest of its values, so that nothing small gets lost.
"""

import io
import os
from typing import NamedTuple

import numpy as np
import PIL.Image

from destseg.ops.components import mask_of

SIDE = 256  # the longer one of a thumbnail, in pixels
MANY = 1500  # pictures, from which on a page is kept small by thumbnails of half the side
QUALITY = 80  # of the picture


class Thumbnail(NamedTuple):
    """A picture and what is known about its pixels, both as WebP files."""

    picture: bytes
    layers: bytes  # without loss; red: the map's level, see `Gallery`; green: the truth; blue: the mask
    size: tuple[int, int]  # width and height of the picture


class Gallery:
    """Collects thumbnails.

    Args:
        pixel_threshold: the model's; None: not known.
        pictures: how many there will be, which decides about the thumbnails' size.

    Attributes:
        edges: (255,) float32, rising from 0. A value of the map has the level k, 0..255, if it exceeds k of
            them. They are denser where they are small, and the pixel threshold is one of them.
        pixel_threshold: as given.
        paths: the absolute path of each picture, by its name.
        thumbnails: by the picture's name.
    """

    def __init__(self, pixel_threshold: float | None, pictures: int = 0) -> None:
        self.edges = (np.linspace(0, 1, 256)[:-1] ** 3).astype(np.float32)
        if pixel_threshold is not None:
            self.edges[np.abs(self.edges - pixel_threshold).argmin()] = pixel_threshold
        self.pixel_threshold = pixel_threshold
        self.side = SIDE if pictures < MANY else SIDE // 2
        self.paths: dict[str, str] = {}
        self.thumbnails: dict[str, Thumbnail] = {}

    def add(
        self,
        name: str,
        path: str | os.PathLike[str],
        pixels: np.ndarray,
        anomaly_map: np.ndarray,
        truth: np.ndarray | None = None,
    ) -> None:
        """Add a picture.

        Args:
            name: what it is called.
            path: its file.
            pixels: (h, w, 3) uint8.
            anomaly_map: (h', w') float32 of the same picture.
            truth: (h', w') bool, True on defects; None: not known.
        """
        image = PIL.Image.fromarray(pixels)
        image.thumbnail((self.side, self.side))
        levels = np.searchsorted(self.edges, _pooled(anomaly_map, image.size)).astype(np.uint8)
        layers = np.zeros((*levels.shape, 3), np.uint8)
        layers[..., 0] = levels
        if truth is not None:
            layers[..., 1] = 255 * _pooled(truth, image.size)
        if self.pixel_threshold is not None:
            layers[..., 2] = 255 * _pooled(mask_of(anomaly_map, self.pixel_threshold), image.size)
        self.paths[name] = os.path.abspath(path)
        self.thumbnails[name] = Thumbnail(
            _webp(image, quality=QUALITY, method=2),
            _webp(PIL.Image.fromarray(layers), lossless=True, exact=True, method=0, quality=20),
            image.size,
        )


def _pooled(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the highest value of each block, no more of them than size = (width, height)."""
    for axis, wanted in enumerate(size[::-1]):
        length = values.shape[axis]
        count = min(wanted, length)
        values = np.maximum.reduceat(values, np.arange(count) * length // count, axis=axis)
    return values


def _webp(image: PIL.Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format="WEBP", **options)
    return file.getvalue()
