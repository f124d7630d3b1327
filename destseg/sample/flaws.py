"""The defects: how each changes a part. Places and sizes are drawn anew for each part."""

import math
from collections.abc import Callable

import numpy as np

from destseg.sample.chip import (
    BODY_X,
    BODY_Y,
    PINS,
    THICKNESS,
    BentPin,
    Part,
    coverage,
    grain,
    noise,
    rgb,
    rise,
)
from destseg.sample.rendering import Generator, blurred

SCRATCHED = rgb(0.38, 0.375, 0.37)
FLUX = rgb(0.20, 0.125, 0.05)  # as it lies on the dark body
FLUX_FILTER = rgb(0.62, 0.42, 0.20)  # what it lets through of bright metal
FRACTURE = rgb(0.170, 0.166, 0.160)


def draw_bent_pin(generator: Generator) -> BentPin:
    """Draw which pin is bent, and how far, to either side."""
    turn = generator.uniform(0.32, 0.6) * generator.choice([-1, 1])
    return BentPin(int(generator.integers(2)), int(generator.integers(PINS)), float(turn))


def scratch(part: Part, generator: Generator) -> None:
    """Draw a groove across the body, bowed, narrower towards its ends, with a pale ground."""
    angle = generator.uniform(-0.7, 0.7) + generator.choice([0, math.pi / 2], p=[0.7, 0.3])
    half_length = generator.uniform(28, 48)
    x, y = part.x - generator.uniform(-50, 50), part.y - generator.uniform(-12, 12)
    along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    position = (along / half_length).clip(-1, 1)
    across -= generator.uniform(-6, 6) * position**2 + 0.5 * np.sin(along / 4 + generator.uniform(0, 6))
    across += 0.7 * noise(generator, 40)  # its sides are torn
    half_width = generator.uniform(1.8, 2.7) * (1 - position**4) + 0.01
    part.flaw = coverage(half_width - np.abs(across)) * (np.abs(position) < 1) * part.body
    depth = (1 - np.abs(across) / half_width).clip(0, 1) * (np.abs(position) < 1) * part.body
    part.height -= 1.3 * depth
    part.unmarked = np.maximum(part.unmarked, (2 * depth).clip(0, 1))
    part.tint((1.7 * depth * (1 + noise(generator, 56))).clip(0, 0.9), SCRATCHED)


def stain(part: Part, generator: Generator) -> None:
    """Spill a drop of flux: a brown film that dried from its rim, over whatever lies there."""
    x, y = part.x - generator.uniform(-80, 80), part.y - generator.uniform(-45, 45)
    inside = generator.uniform(13, 21) - np.hypot(x, generator.uniform(0.8, 1.3) * y)
    inside += 7 * noise(generator, 10)
    film = rise(inside, -0.4, 1.2)
    rim = film * (1 - rise(inside, 1.5, 4.5))
    on_body = FLUX * (0.7 + 0.6 * rim)
    brown = part.colour * FLUX_FILTER + part.body * (on_body - part.colour * FLUX_FILTER)
    part.flaw = film
    part.tint(0.55 * film + 0.35 * rim, brown)
    part.height += 0.5 * (film + rim)
    part.gloss += 0.12 * film
    part.unmarked = np.maximum(part.unmarked, 0.5 * film)


def missing_print(part: Part, generator: Generator) -> None:
    """Rub lettering off; the body is a little paler there, and polished."""
    x, y = part.x - generator.uniform(-45, 60), part.y - generator.uniform(-14, 18)
    inside = 1 - np.hypot(x / generator.uniform(24, 38), y / generator.uniform(13, 19))
    rubbed = rise(inside + 0.5 * noise(generator, 14), -0.05, 0.25) * part.body
    part.flaw = rubbed
    part.unmarked = np.maximum(part.unmarked, 0.96 * rubbed)
    part.colour += 0.022 * rubbed
    part.gloss += 0.02 * rubbed


def broken_edge(part: Part, generator: Generator) -> None:
    """Break a piece off a corner or a long side of the body; the fracture is rough, pale and matt."""
    at_corner, right, below = generator.random(3) < 0.5
    place = (BODY_X if right else -BODY_X) if at_corner else generator.uniform(-80, 80)
    inside = generator.uniform(17, 25) - np.hypot(part.x - place, part.y - (BODY_Y if below else -BODY_Y))
    inside += 9 * noise(generator, 14)
    broken = rise(inside, 0, 1.2) * part.body
    part.flaw = broken
    rough = blurred(grain(generator), 5)
    left = THICKNESS - 0.6 * inside.clip(0, 16) + 2.2 * rough + 1.5 * noise(generator, 40)
    height = np.minimum(left.clip(2), part.height - 0.6)
    part.paint(broken, height, (1 + 0.4 * rough) * FRACTURE, metal=0)
    part.gloss *= 1 - broken
    part.unmarked = np.maximum(part.unmarked, broken)


CHANGES: dict[str, Callable[[Part, Generator], None]] = {
    "broken_edge": broken_edge,
    "missing_print": missing_print,
    "scratch": scratch,
    "stain": stain,
}
DEFECTS = ("bent_pin", *CHANGES)
