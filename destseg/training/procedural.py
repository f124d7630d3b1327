"""Textures made of noise and waves alone, for synthetic anomalies that resemble no normal picture.

They are meant to be as different from one another as photographs of all kinds of materials: fine and coarse,
smooth and sharp-edged, grey and coloured, stretched, regular and irregular, alike everywhere or not.
"""

import math

import numpy as np
from numpy.typing import NDArray

from destseg.ops.perlin import perlin

Generator = np.random.Generator
Values = NDArray[np.float32]

FINEST = 6  # octave of noise: 64 cells a side
LEVELS = np.linspace(-1, 1, 256)  # of noise and waves, each of which gets a colour


def procedural_texture(size: tuple[int, int], generator: Generator) -> np.ndarray:
    """Make a texture, (h, w, 3) uint8: noise or waves in a few colours, half of the time two of them.

    Half of the time it is lit unevenly, too.
    """
    texture = _material(size, generator)
    if generator.random() < 0.5:
        other = _material(size, generator)
        here = _noise(size, generator, generator.integers(0, 4, 2), 3, 0.5) > generator.uniform(-0.5, 0.5)
        texture = np.where(here[..., None], texture, other)
    if generator.random() < 0.5:
        strength = np.float32(generator.uniform(0, 0.5))
        octave = (0, 0) if generator.random() < 0.5 else (1, 1)
        texture *= 1 + strength * _noise(size, generator, octave, 1, 1)[..., None]
    return texture.clip(0, 255).astype(np.uint8)


def _material(size: tuple[int, int], generator: Generator) -> Values:
    """Return a texture as yet unlit, (h, w, 3): smooth noise, noise of any kind, or waves, equally often."""
    kind = generator.random()
    if kind < 1 / 3:
        values = _noise(size, generator, generator.integers(0, 4, 2), 3, 0.4)
    elif kind < 2 / 3:
        values = _noise(size, generator, generator.integers(0, 7, 2), 3, generator.uniform(0.4, 1))
    else:
        values = _waves(size, generator)
    levels = ((values + 1) * 127.5).clip(0, 255).astype(np.uint8)
    colours = _palette(generator)[levels]
    if generator.random() < 0.5:
        grain = generator.standard_normal((*size, 1), np.float32)
        colours += grain * np.float32(generator.uniform(0, 20))
    return colours


def _palette(generator: Generator) -> Values:
    """Return the colours (256, 3) of `LEVELS`: two to five, one fading into the next, or with edges.

    Half of the time they are grey: on grey parts, colour would give the anomaly away.
    """
    count = int(generator.integers(2, 6))
    places = np.sort(generator.uniform(-1, 1, count))
    saturation = generator.random() if generator.random() < 0.5 else 0.0
    colours = generator.uniform(0, 255, (count, 1)) + saturation * generator.uniform(-64, 64, (count, 3))
    if generator.random() < 2 / 3:
        faded = [np.interp(LEVELS, places, channel) for channel in colours.T]
        return np.stack(faded, axis=-1).astype(np.float32)
    return colours[np.searchsorted(places, LEVELS).clip(max=count - 1)].astype(np.float32)


def _noise(
    size: tuple[int, int],
    generator: Generator,
    first: np.ndarray | tuple[int, int],
    octaves: int,
    share: float,
) -> Values:
    """Return octaves of Perlin noise, (h, w), nearly all within [-1, 1].

    Args:
        size: height and width in pixels.
        generator: draws the directions of the gradients.
        first: the first octave of rows and columns; octave k has 2^k cells, at most 2^FINEST.
        octaves: how many.
        share: of an octave's weight that the next one has.
    """
    total, power = np.zeros(size, np.float32), 0.0
    for octave in range(octaves):
        rows, columns = (2 ** min(int(start) + octave, FINEST) for start in first)
        angles = generator.uniform(0, 2 * math.pi, (rows + 1, columns + 1)).astype(np.float32)
        total += np.float32(share**octave) * perlin(angles, size)
        power += share ** (2 * octave)
    return total * np.float32(2.2 / math.sqrt(power))


def _waves(size: tuple[int, int], generator: Generator) -> Values:
    """Return waves of 4 to 128 pixels, (h, w) in [-1, 1]; half of the time warped, or crossed by others."""
    direction, number = generator.uniform(0, math.pi), 2 * math.pi / 2 ** generator.uniform(2, 7)
    y = np.arange(size[0], dtype=np.float32)[:, None] * np.float32(number)
    x = np.arange(size[1], dtype=np.float32) * np.float32(number)
    cosine, sine = np.float32(math.cos(direction)), np.float32(math.sin(direction))
    warp = _noise(size, generator, generator.integers(1, 4, 2), 2, 0.5)
    warp *= np.float32(generator.choice([0, 1]) * generator.uniform(0, 3))
    values = np.sin(cosine * x + sine * y + warp)
    if generator.random() < 0.5:
        across = (cosine * y - sine * x) * np.float32(2 ** generator.uniform(-1, 1))
        values *= np.sin(across + warp)
    return values
