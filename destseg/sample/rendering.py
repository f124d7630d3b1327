"""From a surface to a photograph of it: light, shadow, reflections, lens and sensor.

x runs to the right and y down; the camera looks straight down from far away.
"""

from dataclasses import dataclass

import numpy as np
import PIL.Image

Generator = np.random.Generator

UP = np.array((0, 0, 1), np.float32)
SKY, LAMP = 0.32, 0.95  # light from everywhere, and from the lamp, on what scatters it
BOUNCE = 0.5  # of the light that the ground throws onto what stands upright
SHADOW_REACH, SHADOW_STEP = 40, 2  # points along the ground
SHADOW_EDGE = 2.5  # height in points over which a shadow sets in
SHININESS = 18


@dataclass(frozen=True)
class Surface:
    """What lies under the camera, over a grid of h x w points."""

    height: np.ndarray  # (h, w) float32 above the ground, in distances between points
    colour: np.ndarray  # (3, h, w) float32 in [0, 1], the share of the light that is given back
    metal: np.ndarray  # (h, w) float32 in [0, 1]: metal mirrors the room, what is none scatters light
    gloss: np.ndarray  # (h, w) float32 in [0, 1]: of the lamp's highlight on what is no metal


@dataclass(frozen=True)
class Light:
    """One wide lamp, and the camera's exposure."""

    direction: tuple[float, float, float]  # unit vector towards the lamp; z is up
    falloff: tuple[float, float]  # change of brightness from the picture's centre to its edge, along x and y
    exposure: float
    warmth: float  # red against blue; 0 is neutral

    @classmethod
    def draw(cls, generator: Generator) -> "Light":
        """Draw a lamp to the upper left, nearly in the same place each time."""
        azimuth, elevation = np.deg2rad(generator.uniform(220, 230)), np.deg2rad(generator.uniform(38, 42))
        level = np.cos(elevation)
        x, y, z = level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)
        return cls(
            direction=(float(x), float(y), float(z)),
            falloff=(generator.uniform(-0.20, -0.12), generator.uniform(-0.18, -0.10)),
            exposure=generator.uniform(0.96, 1.04),
            warmth=generator.uniform(0, 0.04),
        )


def shaded(surface: Surface, light: Light) -> np.ndarray:
    """Return the light that reaches the lens from each point: (3, h, w) float32, 1 is a bright white."""
    slope_y, slope_x = np.gradient(surface.height)
    up = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    normal = np.stack([-slope_x * up, -slope_y * up, up])
    lamp = np.asarray(light.direction, np.float32)
    lit = 1 - shadow(surface.height, light.direction)
    sky = 1 - 0.55 * ((blurred(surface.height, 15) - surface.height) / 8).clip(0, 1)  # hidden by neighbours

    halfway = lamp + UP
    shine = np.tensordot(halfway / np.linalg.norm(halfway), normal, 1).clip(0) ** SHININESS
    facing = np.tensordot(lamp, normal, 1).clip(0)
    scattered = SKY * sky + LAMP * facing * lit + BOUNCE * (1 - up)
    highlight = surface.gloss * shine * (0.25 + 0.75 * lit)

    mirrored = 2 * up * normal - UP[:, None, None]  # where a look from above is thrown to
    towards_lamp = np.tensordot(lamp, mirrored, 1).clip(0)
    room = 0.36 - 0.22 * (0.6 * mirrored[0] + 0.8 * mirrored[1]) + 0.62 * towards_lamp**2
    reflected = room.clip(0.04) * (0.35 + 0.65 * lit) * sky

    rows, columns = surface.height.shape
    x = np.linspace(-1, 1, columns, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, rows, dtype=np.float32)[:, None]
    brightness = (
        1 + light.falloff[0] * x + light.falloff[1] * y - 0.07 * (x**2 + y**2)
    )  # the lens darkens, too
    brightness *= light.exposure
    given_back = brightness * (scattered + surface.metal * (reflected - scattered))
    seen = surface.colour * given_back + brightness * highlight * (1 - surface.metal)
    return seen * np.array((1 + light.warmth, 1, 1 - light.warmth), np.float32)[:, None, None]


def shadow(height: np.ndarray, towards: tuple[float, float, float]) -> np.ndarray:
    """Return how much of the lamp is hidden from each point of a surface: (h, w) float32 in [0, 1].

    Args:
        height: (h, w) float32 in distances between points.
        towards: vector towards the lamp, (x, y, z), z above 0.
    """
    x, y, z = towards
    level = float(np.hypot(x, y))
    rows, columns = height.shape
    around = np.pad(height, SHADOW_REACH, mode="edge")
    hidden = np.zeros_like(height)
    for reach in range(SHADOW_STEP, SHADOW_REACH + 1, SHADOW_STEP):
        down, right = SHADOW_REACH + round(reach * y / level), SHADOW_REACH + round(reach * x / level)
        beside = around[down : down + rows, right : right + columns]
        np.maximum(hidden, beside - (height + reach * z / level), out=hidden)
    return blurred((hidden / SHADOW_EDGE).clip(0, 1), 5)  # the lamp is wide: shadows have soft edges


def blurred(values: np.ndarray, width: int) -> np.ndarray:
    """Return (h, w) float32 averaged twice over squares, an odd number of points wide; edges are repeated."""
    for axis in (0, 1, 0, 1):
        length = values.shape[axis]
        padding = [(0, 0), (0, 0)]
        padding[axis] = (width // 2, width // 2)
        padded = np.moveaxis(np.pad(values, padding, mode="edge"), axis, 0)
        total = padded[:length].copy()
        for offset in range(1, width):
            total += padded[offset : offset + length]
        values = np.moveaxis(total, 0, axis) / np.float32(width)
    return values


def developed(seen: np.ndarray, side: int) -> np.ndarray:
    """Return the picture of a square (3, h, w) without noise: (side, side, 3) float32, levels up to 255."""
    size, bicubic = (side, side), PIL.Image.Resampling.BICUBIC
    channels = [np.asarray(PIL.Image.fromarray(channel).resize(size, bicubic)) for channel in seen]
    linear = np.stack(channels, axis=-1).clip(0)
    rolled_off = linear / (1 + 0.12 * linear**2)  # highlights keep their drawing
    return 255 * rolled_off ** np.float32(1 / 1.9)


def with_noise(levels: np.ndarray, generator: Generator) -> np.ndarray:
    """Return (h, w, 3) uint8: levels with a sensor's noise, more of it where there is more light."""
    height, width, _ = levels.shape
    colour, grey = (generator.normal(0, 1, (height, width, n)).astype(np.float32) for n in (3, 1))
    noise = (0.6 * colour + 0.8 * grey) * (0.8 + 1.4 * np.sqrt(levels / 255))
    return (levels + noise + 0.5).clip(0, 255).astype(np.uint8)
