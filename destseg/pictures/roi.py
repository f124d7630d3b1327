"""The region of interest: the part of a picture that counts, as a mask or as a polygon."""

import os
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageDraw

from destseg.pictures.arrays import Tensor, is_tensor
from destseg.pictures.masks import check_finite, mask_in, read_mask

Mask: TypeAlias = str | os.PathLike[str] | PIL.Image.Image | np.ndarray | Tensor
Polygon: TypeAlias = Sequence[Sequence[float]] | np.ndarray | Tensor


class RegionOfInterest:
    """The part of a picture that counts. Nothing outside is scored or trained on; networks only see it.

    Args:
        roi: one of
            a mask: the path of a picture, a Pillow image, or an array or tensor (h, w). In an array all
            values but 0 are inside; in a picture what `destseg.pictures.masks.read_mask` takes for a defect.
            The mask is stretched over pictures of another size;
            a polygon: three or more points (x, y) in pixels of the picture, as a sequence or as an array
            (k, 2), k >= 3. Its outline is inside.

    Raises:
        FileNotFoundError, UnreadableImage: the mask cannot be read.
        ValueError: another shape, NaN, or nothing is inside.
        TypeError: another type.
    """

    def __init__(self, roi: "Roi") -> None:
        self.points: list[tuple[float, float]] | None = None  # of a polygon
        self.whole: np.ndarray | None = None  # a mask, (h, w) bool
        self._masks: dict[tuple[tuple[int, int], tuple[int, int]], np.ndarray] = {}
        if isinstance(roi, RegionOfInterest):
            self.points, self.whole = roi.points, roi.whole
        elif isinstance(roi, (str, os.PathLike)):
            self.whole = read_mask(roi)
        elif isinstance(roi, PIL.Image.Image):
            self.whole = mask_in(roi, "roi")
        elif isinstance(roi, (np.ndarray, list, tuple)) or is_tensor(roi):
            values = roi.detach().cpu().numpy() if is_tensor(roi) else _array(roi)
            is_mask = not isinstance(roi, (list, tuple)) and (
                values.dtype == np.bool_ or values.ndim != 2 or values.shape[1] != 2
            )
            if is_mask:
                self.whole = _mask(values)
            else:
                self.points = _points(values)
        else:
            kinds = "a mask (path, Pillow image or array (h, w)) or a polygon of points (x, y)"
            raise TypeError(f"roi must be {kinds}, got {type(roi).__name__}")
        if self.whole is not None and not self.whole.any():
            raise ValueError("roi must hold at least one pixel, got a mask without any")

    def mask(self, picture: tuple[int, int], size: tuple[int, int] | None = None) -> np.ndarray:
        """Return which pixels of a picture are inside, (h, w) bool.

        Args:
            picture: height and width of the picture; a polygon is given in its pixels.
            size: height and width of the mask; by default the picture's.

        Raises:
            ValueError: no pixel of the mask is inside.
        """
        size = picture if size is None else size
        mask = self._masks.get((picture, size))
        if mask is None:
            mask = shrink_mask(self._draw(picture), size)
            if not mask.any():
                height, width = picture
                where = f"a picture of {height} x {width} pixels (height x width)"
                seen = "" if size == picture else f", seen as {size[0]} x {size[1]}"
                raise ValueError(f"roi must hold at least one pixel, got none in {where}{seen}")
            mask.setflags(write=False)  # it will be returned again
            # Few are kept: pictures come in few sizes. Replaced, not changed: other threads may be reading.
            self._masks = dict([*self._masks.items()][-3:]) | {(picture, size): mask}
        return mask

    @property
    def checksum(self) -> int:
        """CRC-32 of the mask or of the points."""
        if self.whole is None:
            return zlib.crc32(repr(self.points).encode())
        return zlib.crc32(np.packbits(self.whole).tobytes(), zlib.crc32(repr(self.whole.shape).encode()))

    def stored(self) -> Any:
        """Return the ROI as a file holds it and the constructor takes it: an array (h, w) bool, or points."""
        if self.points is not None:
            return [list(point) for point in self.points]
        return np.array(self.whole)

    def __repr__(self) -> str:
        if self.points is not None:
            return f"polygon of {len(self.points)} points"
        assert self.whole is not None  # it is one of the two
        return f"mask of {self.whole.shape[0]} x {self.whole.shape[1]} pixels"

    def _draw(self, picture: tuple[int, int]) -> np.ndarray:
        """Return the mask itself, or the polygon drawn at the picture's size."""
        if self.whole is not None:
            return self.whole
        assert self.points is not None
        canvas = PIL.Image.new("L", (picture[1], picture[0]))
        PIL.ImageDraw.Draw(canvas).polygon(self.points, fill=255, outline=255)
        return np.asarray(canvas) > 0


Roi: TypeAlias = Mask | Polygon | RegionOfInterest
"""Everything that `RegionOfInterest` takes."""


def shrink_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask (h, w) bool to size = (height, width); pixels covered by half or more are inside."""
    if mask.shape == tuple(size):
        return mask
    image = PIL.Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize((size[1], size[0]), PIL.Image.Resampling.BILINEAR)) >= 0.5


def _array(values: Any) -> np.ndarray:
    if np.ma.is_masked(values):
        raise ValueError("roi must have no masked values: fill them, as with roi.filled(0)")
    try:
        return np.asarray(values)
    except ValueError:  # rows of several lengths
        return np.asarray(values, dtype=object)


def _mask(values: np.ndarray) -> np.ndarray:
    if values.ndim != 2 or not values.size or values.dtype.kind not in "buif":
        got = f"{values.dtype} of shape {values.shape}"
        raise ValueError(f"roi must be a mask (h, w) of bool or numbers, or a polygon (k, 2), got {got}")
    check_finite(values, "roi")
    return np.array(values != 0)


def _points(values: np.ndarray) -> list[tuple[float, float]]:
    if values.ndim != 2 or values.shape[1] != 2 or len(values) < 3 or values.dtype.kind not in "uif":
        got = f"{values.dtype} of shape {values.shape}"
        raise ValueError(f"roi must be a polygon of at least three points (x, y), or a mask, got {got}")
    if not np.isfinite(values).all():
        raise ValueError("the points of roi must be finite, got NaN or infinity")
    return [(float(x), float(y)) for x, y in values]
