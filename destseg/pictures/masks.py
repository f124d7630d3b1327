"""Reads the masks of defects."""

import os

import numpy as np

from destseg.pictures.decoding import read_image, to_rgb


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a ground-truth mask, (h, w) bool, True on the defect.

    A pixel is True where its value is at least half of full scale. Full scale is the smallest of 1, 255 and
    65535 that no value exceeds, so masks of 0 and 1 work like masks of 0 and 255. The value of a colour is
    its strongest channel.

    Raises:
        FileNotFoundError, IsADirectoryError, UnreadableImage: see `destseg.pictures.decoding.read_image`.
    """
    picture = read_image(path)
    if picture.mode in ("L", "I", "F") or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
    else:
        values = to_rgb(picture, os.fspath(path)).max(axis=2)
    full_scale = next((full for full in (1, 255) if values.max() <= full), 65535)
    return values >= full_scale / 2
