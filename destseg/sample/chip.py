"""The part: a chip with two rows of pins and lasered lettering, lying on a brushed plate.

Lengths are pixels of the finished picture at the part's own scale; x runs along the chip's long side from its
centre, y down.
"""

import math
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import PIL.ImageFont
import torch

from destseg.ops.perlin import perlin
from destseg.sample.rendering import Generator, Surface, blurred

SIDE = 256  # pixels of a picture
FINER = 2  # points to a pixel along each side: edges are drawn finely, then averaged
POINTS = SIDE * FINER
SCALE = 1.08  # of the part in the picture

BODY_X, BODY_Y = 98.0, 49.0  # half sides
CORNER, BEVEL = 5.0, 6.0
LIFT, THICKNESS = 5.0, 16.0  # heights of the body's lower edge and of its top
PINS, PITCH, PIN_WIDTH, PIN_LENGTH = 7, 27.0, 11.0, 33.0
BEND = 5.0  # from a pin's root to where it bends
LETTERING = (("DST4023N", 23, -13), ("BC 7 45 E1 TWN", 13, 9), ("A-2211317", 13, 25))  # text, size, y
LETTERING_X, LETTERING_FINER = 8, 4


def rgb(red: float, green: float, blue: float) -> np.ndarray:
    """Return a colour as (3, 1, 1) float32, 1 for all light given back."""
    return np.array((red, green, blue), np.float32)[:, None, None]


EPOXY = rgb(0.052, 0.052, 0.055)
TIN = rgb(0.80, 0.79, 0.76)
STEEL = rgb(0.97, 1.0, 1.04)
MARKING = rgb(0.44, 0.44, 0.42)


class BentPin(NamedTuple):
    """Which pin is bent sideways, and how far."""

    row: int  # 0 above the body, 1 below
    number: int  # from the left
    turn: float  # radians


def _layer() -> np.ndarray:
    return np.zeros((POINTS, POINTS), np.float32)


@dataclass
class Part:
    """Layers over the grid of points, float32, painted one after the other."""

    x: np.ndarray  # where on the part each point lies
    y: np.ndarray
    height: np.ndarray = field(default_factory=_layer)
    colour: np.ndarray = field(default_factory=lambda: np.zeros((3, POINTS, POINTS), np.float32))
    metal: np.ndarray = field(default_factory=_layer)
    gloss: np.ndarray = field(default_factory=_layer)
    body: np.ndarray = field(default_factory=_layer)  # share of the point that the chip's body covers
    unmarked: np.ndarray = field(default_factory=_layer)  # share of the lettering that is missing
    flaw: np.ndarray = field(default_factory=_layer)  # share of the point that a defect covers

    def paint(self, cover: np.ndarray, height: np.ndarray, colour: np.ndarray, metal: float) -> None:
        """Lay something over what is there, where `cover`, (h, w) in [0, 1], says so."""
        self.height += cover * (height - self.height)
        self.tint(cover, colour)
        self.metal += cover * (metal - self.metal)

    def tint(self, cover: np.ndarray, colour: np.ndarray) -> None:
        """Change the colour alone."""
        self.colour += cover * (colour - self.colour)

    def surface(self) -> Surface:
        """What the camera looks at."""
        return Surface(self.height * np.float32(FINER), self.colour, self.metal, self.gloss)


def placed(generator: Generator) -> Part:
    """Lay a part down, each time a little turned, shifted, nearer or farther; nothing is painted yet."""
    turn = math.radians(generator.uniform(-0.9, 0.9))
    scale = FINER * SCALE * generator.uniform(0.995, 1.005)
    down, right = ((POINTS - 1) / 2 + FINER * generator.uniform(-2, 2) for _ in range(2))
    rows, columns = np.mgrid[0:POINTS, 0:POINTS].astype(np.float32)
    rows, columns = (rows - down) / scale, (columns - right) / scale
    cosine, sine = math.cos(turn), math.sin(turn)
    return Part(x=cosine * columns + sine * rows, y=cosine * rows - sine * columns)


def lay_plate(part: Part, generator: Generator) -> None:
    """Paint the ground: steel, brushed along x with streaks of many lengths."""
    streaks = _layer()
    for length, strength in ((512, 0.030), (96, 0.045), (24, 0.040)):
        coarse = grain(generator, (POINTS, max(2, POINTS // length)))
        stretched = PIL.Image.fromarray(coarse).resize((POINTS, POINTS), PIL.Image.Resampling.BICUBIC)
        streaks += strength * np.asarray(stretched)
    part.colour += (0.42 + streaks + 0.03 * noise(generator, 3)) * STEEL
    part.height += 1.2 / FINER * streaks
    part.metal += 1


def lay_pins(part: Part, bent: BentPin | None = None) -> None:
    """Paint both rows of pins, tinned gull wings: out of the body, down, and flat on the plate."""
    nearest = np.rint(part.x / PITCH + (PINS - 1) / 2).clip(0, PINS - 1)
    across = part.x - PITCH * (nearest - (PINS - 1) / 2)
    for row, outwards in enumerate((-1, 1)):
        along = outwards * part.y - BODY_Y + 3  # from the root, which the body hides
        if bent is None or bent.row != row:
            _lay_pin(part, across, along)
            continue
        _lay_pin(part, np.where(nearest == bent.number, np.inf, across), along)
        sideways, onwards = part.x - PITCH * (bent.number - (PINS - 1) / 2), along - BEND
        cosine, sine = math.cos(bent.turn), math.sin(bent.turn)
        turned = cosine * sideways - sine * onwards, BEND + sine * sideways + cosine * onwards
        straight = coverage(_inside_pin(sideways, along))
        part.flaw = np.maximum(
            straight, coverage(_inside_pin(*turned))
        )  # where it is, and where it should be
        _lay_pin(part, *turned)


def _inside_pin(across: np.ndarray, along: np.ndarray) -> np.ndarray:
    half_width = PIN_WIDTH / 2 - 0.9 * rise(along, 9, 12)  # the shoulder is wider than the foot
    return inside_box(across, along - PIN_LENGTH / 2, half_width, PIN_LENGTH / 2 + 1, 1.6)


def _lay_pin(part: Part, across: np.ndarray, along: np.ndarray) -> None:
    inside = _inside_pin(across, along)
    height = 6.2 - 4.4 * rise(along, 10, 21) - 0.5 * rise(along, 30, 34)
    height -= 1.2 * (1 - (inside / 2.2).clip(0, 1)) ** 2  # edges are rounded by the stamp
    part.paint(coverage(inside), height, TIN, metal=1)


def lay_body(part: Part, generator: Generator) -> None:
    """Paint the body: epoxy, bevelled and grained, with the notch and the dimple that tell pin 1."""
    inside = inside_box(part.x, part.y, BODY_X, BODY_Y, CORNER)
    slope = (inside / BEVEL).clip(0, 1)
    notch = 7 - np.hypot(part.x + BODY_X - 1, part.y)
    dimple = 6.5 - np.hypot(part.x + BODY_X - 20, part.y - BODY_Y + 19)
    fine, coarse = grain(generator), blurred(grain(generator), 3)
    height = LIFT + (THICKNESS - LIFT) * slope**0.8 + 0.035 * fine + 0.12 * coarse
    height -= 3.0 * rise(notch, -0.5, 2.5) * slope + 1.6 * rise(dimple, -0.3, 2.2)
    shade = 1 + 0.08 * fine + 0.16 * coarse + 0.08 * noise(generator, 4)
    part.body = coverage(inside)
    part.paint(part.body, height, shade * EPOXY, metal=0)
    part.gloss += 0.05 * part.body
    part.flaw *= 1 - part.body  # of a pin, what the body hides


def lay_print(part: Part) -> None:
    """Lasered lettering: pale, matt, thinner where the epoxy is dark."""
    drawn = _lettering()
    affine: list[float] = []  # from points to the drawing's pixels, along x, then along y
    for place, centre in ((part.x, drawn.width / 2), (part.y, drawn.height / 2)):
        steps = place[0, 1] - place[0, 0], place[1, 0] - place[0, 0], place[0, 0]
        a, b, c = (LETTERING_FINER * float(step) for step in steps)
        affine += [a, b, c + centre]
    bilinear = PIL.Image.Resampling.BILINEAR
    lettering = drawn.transform((POINTS, POINTS), PIL.Image.Transform.AFFINE, affine, bilinear)
    strength = 0.72 + 25 * blurred(part.colour[0] - EPOXY[0], 3)
    ink = np.asarray(lettering, np.float32) / 255 * part.body * (1 - part.unmarked) * strength
    ink = ink.clip(0, 1)
    part.tint(ink, MARKING)
    part.gloss *= 1 - 0.8 * ink


@cache
def _lettering() -> PIL.Image.Image:
    fine = LETTERING_FINER
    drawn = PIL.Image.new("L", (int(2 * BODY_X) * fine, int(2 * BODY_Y) * fine))
    draw = PIL.ImageDraw.Draw(drawn)
    for text, size, down in LETTERING:
        place = drawn.width / 2 + LETTERING_X * fine, drawn.height / 2 + down * fine
        draw.text(place, text, 255, PIL.ImageFont.load_default(size * fine), anchor="mm", stroke_width=1)
    return drawn.filter(PIL.ImageFilter.GaussianBlur(fine / 4))


def inside_box(
    x: np.ndarray, y: np.ndarray, half_x: np.ndarray | float, half_y: float, corner: float
) -> np.ndarray:
    """Return how far inside a box with round corners about the origin each point lies; negative outside."""
    over_x, over_y = np.abs(x) - half_x + corner, np.abs(y) - half_y + corner
    return corner - np.hypot(over_x.clip(0), over_y.clip(0)) - np.minimum(np.maximum(over_x, over_y), 0)


def coverage(inside: np.ndarray) -> np.ndarray:
    """Return the share of each point that a shape covers, from how far inside of it the point lies."""
    return (FINER * inside + 0.5).clip(0, 1)


def rise(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise smoothly from 0 to 1 between two values."""
    t = ((values - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def noise(generator: Generator, cells: int) -> np.ndarray:
    """Return Perlin noise over the grid, so many cells a side."""
    angles = generator.uniform(0, 2 * math.pi, (cells + 1, cells + 1)).astype(np.float32)
    return perlin(torch.from_numpy(angles), (POINTS, POINTS)).numpy()


def grain(generator: Generator, size: tuple[int, int] = (POINTS, POINTS)) -> np.ndarray:
    """Return independent normal values, float32."""
    return generator.standard_normal(size, np.float32)
