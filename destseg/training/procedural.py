"""Textures made of noise and waves alone, for synthetic anomalies that resemble no normal picture.

They are meant to differ from one another as much as photographs of all kinds of materials do: fine and
coarse, smooth and sharp-edged, grey and coloured, stretched in any direction, regular and irregular. Noise
grows with the picture; waves and grain have their size in pixels.
"""

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from destseg.ops.perlin import perlin

Values = NDArray[np.float32]

OCTAVES = 4  # of noise
FINEST = 7  # octave: 128 cells a side
ELONGATED = 8  # times as many pixels as the picture has are too many to turn
LEVELS = np.linspace(-1, 1, 256)  # values of noise or waves; each has its colour


def procedural_texture(size: tuple[int, int], generator: Generator) -> np.ndarray:
    """Make a texture, (h, w, 3) uint8: noise or waves, equally often, in a few colours, with grain."""
    values = _noise(size, generator) if generator.random() < 0.5 else _waves(size, generator)
    levels = ((values + 1) * 127.5).clip(0, 255).astype(np.uint8)
    grain = generator.standard_normal((*size, 1), np.float32) * np.float32(generator.uniform(0, 25))
    return (_palette(generator)[levels] + grain).clip(0, 255).astype(np.uint8)


def _noise(size: tuple[int, int], generator: Generator) -> Values:
    """Return Perlin noise of several octaves, (h, w) with a standard deviation of 1/2, turned by any angle.

    Rows and columns start at octaves of their own, so most of it is stretched. In a long and narrow picture
    it is not turned: the square that covers the picture in any direction would have too many pixels.
    """
    side = math.ceil(math.hypot(*size))  # all of it but a corner pixel, at times, comes from inside
    first, rotation = generator.integers(0, 6, 2), generator.uniform(-math.pi / 2, math.pi / 2)
    share = generator.uniform(0.4, 1)  # of an octave's weight that the next one has
    height, width = side, side
    if side**2 > ELONGATED * size[0] * size[1]:
        (height, width), rotation = size, 0.0
    total = np.zeros((height, width), np.float32)
    for octave in range(OCTAVES):
        rows, columns = (2 ** min(int(start) + octave, FINEST) for start in first)
        angles = generator.uniform(0, 2 * math.pi, (rows + 1, columns + 1)).astype(np.float32)
        noise = perlin(angles, (height, width), rotation)
        noise *= np.float32(share**octave)
        total += noise
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    inside = total[top : top + size[0], left : left + size[1]]
    return inside / np.float32(max(2 * float(inside.std()), 1e-6))


def _waves(size: tuple[int, int], generator: Generator) -> Values:
    """Return waves of 4 to 90 pixels, (h, w) in [-1, 1], in any direction, warped more often than not.

    Half of the time others, half to twice as long, cross them.
    """
    direction, number = generator.uniform(0, math.pi), 2 * math.pi / 2 ** generator.uniform(2, 6.5)
    y = np.arange(size[0], dtype=np.float32)[:, None] * np.float32(number)
    x = np.arange(size[1], dtype=np.float32) * np.float32(number)
    cosine, sine = np.float32(math.cos(direction)), np.float32(math.sin(direction))
    phase = np.zeros(size, np.float32)
    if generator.random() < 0.7:
        phase = _noise(size, generator) * np.float32(generator.uniform(0, 3))
    values = np.sin(cosine * x + sine * y + phase)
    if generator.random() < 0.5:
        across = (cosine * y - sine * x) * np.float32(2 ** generator.uniform(-1, 1))
        values *= np.sin(across + phase)
    return values


def _palette(generator: Generator) -> Values:
    """Return the colours (256, 3) of `LEVELS`: two to six, fading into one another, or with edges.

    Half of the time they are grey: on grey parts, colour would give the anomaly away.
    """
    count = int(generator.integers(2, 7))
    places = np.sort(generator.uniform(-1, 1, count))
    saturation = generator.random() ** 2 if generator.random() < 0.5 else 0.0
    colours = generator.uniform(0, 255, (count, 1)) + saturation * generator.uniform(-128, 128, (count, 3))
    if generator.random() < 0.5:
        faded = [np.interp(LEVELS, places, channel) for channel in colours.T]
        return np.stack(faded, axis=-1).astype(np.float32)
    return colours[np.searchsorted(places[:-1], LEVELS)].astype(np.float32)
