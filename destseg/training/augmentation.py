"""Changes of normal pictures in training, drawn anew each time: turns, mirroring, light and place.

`rotate` turns pictures by up to so many degrees either way, or, with "90", by quarter turns and up to 5
degrees. Pictures that are not square make half turns where square ones make quarter turns. Pixels brought in
from outside become grey, as published.

`flip` mirrors half of the pictures: horizontally, vertically, or half in each direction.

`augment="light"` is for cameras, lamps and parts that do not stay quite as they are. All channels change
alike:

    gain      0.75 to 1.25, uniform      the brightness is multiplied by it
    contrast  0.85 to 1.15, uniform      differences from the mean value are multiplied by it
    gamma     0.85 to 1.15, log-uniform  exponent of the values in [0, 1]
    shift     up to 5 % of each side     either way, in whole pixels of the input; edge pixels are repeated

Turns by a few degrees stay with `rotate`. A picture changes as a whole, before an anomaly is put on it: the
student learns the teacher's features of the changed picture. Its ROI moves with it. If it has one, pixels
brought in from outside do not count.
"""

import math
from typing import NamedTuple

import numpy as np
import PIL.Image

from destseg.pictures.changes import relight, shift

Rotate = float | str

FILL = (114, 114, 114)  # the published colour of pixels that a rotation brings in from outside
SMALL_TURN = 5.0  # degrees either way, beside quarter turns

GAIN = (0.75, 1.25)
CONTRAST = (0.85, 1.15)
GAMMA = (0.85, 1.15)
SHIFT = 0.05  # of each side


class Augmentation(NamedTuple):
    """The random numbers that change one picture, in the order in which they are used."""

    gain: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0
    down: int = 0  # pixels
    right: int = 0
    turn: float = 0.0  # degrees against the clock
    mirrored: tuple[int, ...] = ()  # axes: 1 horizontally, 0 vertically


def draw_augmentation(
    generator: np.random.Generator, size: tuple[int, int], rotate: Rotate, flip: str, augment: str
) -> Augmentation:
    """Draw the changes of one picture of this height and width.

    Args:
        generator: what is not wanted takes no numbers from it.
        size: height and width in pixels.
        rotate, flip, augment: as `destseg.settings.Schedule` has them.
    """
    height, width = size
    turn, mirrored = 0.0, []
    if rotate == "90":
        turns = (0, 90, 180, 270) if height == width else (0, 180)
        turn = float(generator.choice(turns)) + generator.uniform(-SMALL_TURN, SMALL_TURN)
    elif float(rotate):
        turn = generator.uniform(-float(rotate), float(rotate))
    for axis, direction in ((1, "horizontal"), (0, "vertical")):
        if flip in (direction, "both") and generator.random() < 0.5:
            mirrored.append(axis)
    changes = Augmentation(turn=turn, mirrored=tuple(mirrored))
    if augment == "":
        return changes
    down, right = (
        int(generator.integers(-limit, limit, endpoint=True))
        for limit in (math.floor(SHIFT * side) for side in size)
    )
    gain, contrast = generator.uniform(*GAIN), generator.uniform(*CONTRAST)
    gamma = math.exp(generator.uniform(math.log(GAMMA[0]), math.log(GAMMA[1])))
    return changes._replace(gain=gain, contrast=contrast, gamma=gamma, down=down, right=right)


def augment_picture(picture: np.ndarray, changes: Augmentation) -> np.ndarray:
    """Change a picture, (h, w, 3) uint8: its light, then its place; a view where only flips are wanted."""
    light = changes[:3]
    if light != (1, 1, 1):
        picture = relight(picture, *light)
    if changes.down or changes.right:
        picture = shift(picture, changes.down, changes.right)
    return np.flip(_turn(picture, changes.turn, FILL), changes.mirrored)


def augment_roi(roi: np.ndarray, changes: Augmentation) -> np.ndarray:
    """Move an ROI, (h, w) bool, like its picture; what comes from outside does not count."""
    if changes.down or changes.right:
        framed = np.pad(roi, 1)  # the edge that is repeated does not count
        roi = shift(framed, changes.down, changes.right)[1:-1, 1:-1]
    level = _turn(roi * np.uint8(255), changes.turn, 0)
    return np.flip(level > 127, changes.mirrored)


def _turn(values: np.ndarray, degrees: float, fill: int | tuple[int, int, int]) -> np.ndarray:
    """Turn (h, w, 3) or (h, w) uint8 about its centre, against the clock; `fill` comes in from outside."""
    if not degrees:
        return values
    image = PIL.Image.fromarray(values)
    return np.asarray(image.rotate(degrees, PIL.Image.Resampling.BILINEAR, fillcolor=fill))
