"""The prediction for one picture: verdict, anomaly map, regions, and an overlay for people."""

import io
import itertools
import os
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.PngImagePlugin

from destseg.files import as_path, write_whole
from destseg.ops.components import components, mask_of
from destseg.page.look import ANOMALOUS, NORMAL, OPACITY, OUTLINE, blend_heat

_SMALLEST_FONT = 9
SOFTWARE = "destseg"  # what overlays and maps say in their PNG files


@dataclass(frozen=True)
class Region:
    """One connected part of a mask.

    bbox: left, top, right, bottom in pixels; right and bottom are exclusive.
    area: pixels. score: the highest value of the anomaly map in the region, in [0, 1].
    centroid: (x, y), the mean pixel index along each axis.
    """

    bbox: tuple[int, int, int, int]
    area: int
    score: float
    centroid: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Prediction:
    """The answer for one picture; h and w are its own size, after EXIF orientation.

    score: anomaly score of the whole picture. is_anomalous: whether the score exceeds the threshold.
    p_value: share of normal pictures expected to score at least as high; NaN without calibration.
    anomaly_map: (h, w) float32 in [0, 1], 0 outside the region of interest.
    pixel_threshold: what decides about the mask, see `destseg.ops.components.mask_of`.
    image: (h, w, 3) uint8, the picture itself. source: its path, or another name for it.
    """

    score: float
    threshold: float
    is_anomalous: bool
    p_value: float
    anomaly_map: np.ndarray = field(repr=False)
    pixel_threshold: float
    image: np.ndarray = field(repr=False)
    source: str

    @cached_property
    def mask(self) -> np.ndarray:
        """What is anomalous, (h, w) bool, see `destseg.ops.components.mask_of`."""
        return mask_of(self.anomaly_map, self.pixel_threshold)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The 8-connected components of the mask, highest score first."""
        return _regions(self.mask, self.anomaly_map)

    def overlay(self, *, opacity: float = OPACITY, caption: bool = True) -> PIL.Image.Image:
        """Draw the anomaly over the picture, at the picture's own size.

        The map is blended in as heat where it exceeds three quarters of the pixel threshold. The mask is
        outlined. The caption gives verdict, score and threshold, in the corner with the least of the mask. It
        is shortened or left out where it does not fit.

        Args:
            opacity: of the heat where the map reaches 1, in [0, 1].
            caption: whether to write the caption.

        Returns:
            An RGB image.
        """
        if not 0 <= opacity <= 1:
            raise ValueError(f"opacity must lie in [0, 1], got {opacity}")
        pixels = blend_heat(self.image, self.anomaly_map, self.pixel_threshold, opacity)
        width = max(1, round(min(self.mask.shape) / 200))
        outline = _dilate(self.mask, width) & ~self.mask  # outside the mask: thin defects stay visible
        casing = _dilate(outline, max(1, width // 2)) & ~outline & ~self.mask
        pixels[casing] //= 3
        pixels[outline] = OUTLINE
        picture = PIL.Image.fromarray(pixels)
        if caption:
            _draw_caption(picture, self)
        return picture

    def _repr_png_(self) -> bytes:
        """Show the overlay in a notebook."""
        file = io.BytesIO()
        self.overlay().save(file, format="PNG")
        return file.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Return the result, without its arrays, as plain Python values for one line of JSON.

        Numbers that JSON does not know, such as the p-value without calibration, become None.
        """
        return {
            "source": self.source,
            "score": _json_number(self.score),
            "threshold": _json_number(self.threshold),
            "is_anomalous": bool(self.is_anomalous),
            "p_value": _json_number(self.p_value),
            "regions": [asdict(region) for region in self.regions],
        }


def write_map(path: str | os.PathLike[str], anomaly_map: np.ndarray) -> None:
    """Write an anomaly map as 16-bit grey (.png, value * 65535 rounded) or as float32 (.npy).

    The file appears whole or not at all; missing directories are made.

    Args:
        path: file to write or replace.
        anomaly_map: (h, w) float in [0, 1].

    Raises:
        ValueError: another suffix, shape, dtype or range.
    """
    path = as_path(path)
    if path.suffix.lower() not in (".png", ".npy"):
        raise ValueError(f"an anomaly map is written as .png or .npy, got {path.name}")
    if anomaly_map.ndim != 2 or anomaly_map.dtype.kind != "f" or anomaly_map.size == 0:
        got = f"{anomaly_map.dtype} of shape {anomaly_map.shape}"
        raise ValueError(f"anomaly map must be (h, w) float with at least one pixel, got {got}")
    low, high = float(anomaly_map.min()), float(anomaly_map.max())
    if not (low >= 0 and high <= 1):  # NaN fails, too
        raise ValueError(f"anomaly map must lie in [0, 1], got values from {low:g} to {high:g}")
    if path.suffix.lower() == ".npy":
        write_whole(path, lambda file: np.save(file, anomaly_map.astype(np.float32)))
    else:
        levels = np.rint(anomaly_map.astype(np.float64) * 65535).astype(np.uint16)
        write_whole(path, lambda file: save_png(PIL.Image.fromarray(levels), file))


def save_png(image: PIL.Image.Image, file: BinaryIO) -> None:
    """Write an overlay or a map as PNG that says who made it, so that it is not taken for a picture."""
    made_by = PIL.PngImagePlugin.PngInfo()
    made_by.add_text("Software", SOFTWARE)
    image.save(file, format="PNG", pnginfo=made_by)


def _regions(mask: np.ndarray, anomaly_map: np.ndarray) -> tuple[Region, ...]:
    """Measure every component at once: the cost does not grow with their number."""
    labels, areas = components(mask[None])
    y, x = np.nonzero(labels[0])
    label = labels[0, y, x] - 1
    count = len(areas)
    left, top = np.full(count, mask.shape[1]), np.full(count, mask.shape[0])
    right, bottom = np.zeros(count, np.int64), np.zeros(count, np.int64)
    score = np.zeros(count, anomaly_map.dtype)
    np.minimum.at(left, label, x)
    np.minimum.at(top, label, y)
    np.maximum.at(right, label, x + 1)
    np.maximum.at(bottom, label, y + 1)
    np.maximum.at(score, label, anomaly_map[y, x])
    centre_x = np.bincount(label, weights=x, minlength=count) / areas
    centre_y = np.bincount(label, weights=y, minlength=count) / areas
    boxes = np.stack([left, top, right, bottom], axis=1).tolist()
    centroids = np.stack([centre_x, centre_y], axis=1).tolist()
    return tuple(
        Region(tuple(boxes[k]), int(areas[k]), float(score[k]), tuple(centroids[k]))
        for k in np.argsort(-score, kind="stable")
    )


def _dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Grow a mask by radius pixels, diagonals included."""
    for axis in (0, 1):
        grown = mask.copy()
        for step in range(1, min(radius, mask.shape[axis] - 1) + 1):
            ahead = np.moveaxis(grown, axis, 0)
            source = np.moveaxis(mask, axis, 0)
            ahead[step:] |= source[:-step]
            ahead[:-step] |= source[step:]
        mask = grown
    return mask


def _draw_caption(picture: PIL.Image.Image, prediction: Prediction) -> None:
    """Write verdict, score and threshold on a dark plate, in the longest wording and largest font to fit."""
    verdict, sign = ("anomalous", ">") if prediction.is_anomalous else ("normal", "<=")
    score, threshold = f"{prediction.score:.3f}", f"{prediction.threshold:.3f}"
    wordings = (
        f"{verdict}   score {score}   threshold {threshold}",
        f"{score} {sign} {threshold}",
        score[:4],
    )
    largest = max(12, round(min(picture.size) / 22))
    draw = PIL.ImageDraw.Draw(picture, "RGBA")
    for text, font_size in itertools.product(wordings, range(largest, _SMALLEST_FONT - 1, -1)):
        font = PIL.ImageFont.load_default(font_size)
        margin = font_size // 3
        width, height = round(draw.textlength(text, font=font)) + 2 * margin, font_size + margin
        if width <= picture.width and height <= 0.4 * picture.height:
            break
    else:
        return
    corners = [(x, y) for y in (0, picture.height - height) for x in (0, picture.width - width)]
    x, y = min(corners, key=lambda corner: _mask_area(prediction.mask, corner, (width, height)))
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=(16, 16, 20, 200))
    colour = ANOMALOUS if prediction.is_anomalous else NORMAL
    draw.text((x + margin, y + height / 2), text, font=font, fill=colour, anchor="lm")


def _mask_area(mask: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> int:
    (x, y), (width, height) = corner, size
    return int(mask[y : y + height, x : x + width].sum())


def _json_number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
