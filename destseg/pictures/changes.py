"""Changes of light and place that pictures undergo where they are taken: exposure, shifts and small turns."""

import math

import numpy as np
import PIL.Image


def relight(pixels: np.ndarray, gain: float = 1.0, contrast: float = 1.0, gamma: float = 1.0) -> np.ndarray:
    """Change the light of a picture, in all channels alike.

    With values v in [0, 1], first v becomes v ** gamma. Then differences from the mean of all values are
    multiplied by `contrast`, and at last everything by `gain`. Values are cut off at 0 and 1 and rounded.

    Args:
        pixels: (h, w, 3) uint8.
        gain: factor of the brightness, at least 0.
        contrast: factor of the contrast, at least 0.
        gamma: exponent, above 0; below 1 dark parts become brighter.

    Returns:
        (h, w, 3) uint8.

    Example:
        >>> relight(np.array([[[0, 100, 250]]], np.uint8), gain=1.2).tolist()
        [[[0, 120, 255]]]
    """
    values = (np.arange(256) / 255) ** gamma
    mean = np.bincount(pixels.ravel(), minlength=256) @ values / pixels.size
    values = gain * (mean + contrast * (values - mean))
    table: np.ndarray = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
    return table[pixels]


def shift(values: np.ndarray, down: int, right: int) -> np.ndarray:
    """Shift (h, w, ...) values by whole pixels, to the top and left if negative; edge pixels are repeated.

    Example:
        >>> shift(np.array([[1, 2, 3], [4, 5, 6]]), 0, 1).tolist()
        [[1, 1, 2], [4, 4, 5]]
    """
    height, width = values.shape[:2]
    rows = (np.arange(height) - down).clip(0, height - 1)
    columns = (np.arange(width) - right).clip(0, width - 1)
    return values[rows[:, None], columns]


def turn(values: np.ndarray, degrees: float) -> np.ndarray:
    """Turn (h, w, 3) uint8 or (h, w) bool about its centre, against the clock; edge pixels are repeated.

    Pictures are interpolated bilinearly; of a mask each pixel takes the value of the nearest one.
    """
    is_mask = values.dtype == np.bool_
    margin = 1 + math.ceil(max(values.shape[:2]) / 2 * abs(math.sin(math.radians(degrees))))
    padding = [(margin, margin)] * 2 + [(0, 0)] * (values.ndim - 2)
    image = PIL.Image.fromarray(np.pad(values.astype(np.uint8), padding, "edge"))
    filtering = PIL.Image.Resampling.NEAREST if is_mask else PIL.Image.Resampling.BILINEAR
    wide = np.asarray(image.rotate(degrees, filtering))
    return wide[margin:-margin, margin:-margin].astype(values.dtype)
