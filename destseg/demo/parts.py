"""The part that the demo photographs, a chip on a brushed steel plate, and its possible defects.

Lengths are pixels at the part's own scale; x runs along the chip's long side from its centre, y down.
"""

import math

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from destseg.ops.perlin import perlin

FINER = 2  # points per pixel along each side: edges are drawn finely, then averaged
POINTS = 256 * FINER  # points along each side of the grid
BODY_X, BODY_Y, THICKNESS = 98.0, 49.0, 16.0  # half sides, and the height of the body's top
PINS, PITCH, PIN_LENGTH = 7, 27.0, 33.0  # pins in a row, the distance from one to the next, their length
LETTERING = (("DST4023N", 23, -13), ("BC 7 45 E1 TWN", 13, 9), ("A-2211317", 13, 25))  # text, size, y
DEFECTS = ("bent_pin", "broken_edge", "missing_print", "scratch", "stain")


class Part:
    """Layers over a grid of points, float32: `colour` is (3, POINTS, POINTS), all others (POINTS, POINTS).

    `x`, `y` and `height` are a point's place. `metal` is the share that mirrors the room; the rest scatters
    light, with a highlight of strength `gloss`. `body` and `flaw` are the shares that the chip's body and the
    defect cover. `unmarked` is the share of the lettering that is missing.
    """

    def __init__(self, generator: Generator) -> None:
        """Draw where the part lies, and paint the ground: steel, with brushed streaks of three lengths."""
        turn = math.radians(generator.uniform(-0.9, 0.9))
        scale = 1.08 * FINER * generator.uniform(0.995, 1.005)
        down, right = ((POINTS - 1) / 2 + FINER * generator.uniform(-2, 2) for _ in range(2))
        rows, columns = np.mgrid[0:POINTS, 0:POINTS].astype(np.float32)
        x, y, cosine, sine = (columns - right) / scale, (rows - down) / scale, math.cos(turn), math.sin(turn)
        self.x, self.y = cosine * x + sine * y, cosine * y - sine * x
        self.gloss, self.body, self.unmarked, self.flaw, streaks = np.zeros((5, POINTS, POINTS), np.float32)
        for across, strength in ((2, 0.030), (5, 0.045), (21, 0.040)):
            coarse = Image.fromarray(generator.standard_normal((POINTS, across), np.float32))
            streaks += strength * np.asarray(coarse.resize((POINTS, POINTS), Image.Resampling.BICUBIC))
        self.height, self.metal = 1.2 / FINER * streaks, np.ones_like(streaks)
        self.colour = (0.42 + streaks + 0.03 * noise(generator, 3)) * rgb(0.97, 1.0, 1.04)

    def paint(self, cover: ndarray, **layers: ndarray | float) -> None:
        """Blend new values into the named layers; `cover`, (POINTS, POINTS) in [0, 1], is their share."""
        for name, values in layers.items():
            layer = getattr(self, name)
            layer += cover * (values - layer)

    def lay_pins(self, flaw: Generator | None = None) -> None:
        """Paint two rows of tinned pins; if a generator is given, it chooses one to be bent sideways."""
        nearest = np.rint(self.x / PITCH + (PINS - 1) / 2).clip(0, PINS - 1)
        across, along = self.x - PITCH * (nearest - (PINS - 1) / 2), np.abs(self.y) - BODY_Y + 3
        pins = [(across, along, 0, 1)]  # x and y from the root; how much is flaw; how much is there
        if flaw is not None:
            turn = flaw.uniform(0.32, 0.6) * flaw.choice([-1, 1])
            side, number = 2 * int(flaw.integers(2)) - 1, int(flaw.integers(PINS))
            x, y = self.x - PITCH * (number - (PINS - 1) / 2), side * self.y - BODY_Y + 3
            cosine, sine, bend = math.cos(turn), math.sin(turn), 5.0  # bend: y where the pin bends
            gone = (nearest == number) & (side * self.y > 0)
            bent = cosine * x - sine * (y - bend), bend + sine * x + cosine * (y - bend)
            pins = [(across, along, gone, ~gone), (*bent, 1, 1)]
        for across, along, flawed, there in pins:
            half_width = 5.5 - 0.9 * rise(along, 9, 12)  # the shoulder is wider than the foot
            inside = inside_box(across, along - PIN_LENGTH / 2, half_width, PIN_LENGTH / 2 + 1, corner=1.6)
            height = 6.2 - 4.4 * rise(along, 10, 21) - 0.5 * rise(along, 30, 34)
            height -= 1.2 * (1 - (inside / 2.2).clip(0, 1)) ** 2  # the stamp rounds the edges
            self.flaw = np.maximum(self.flaw, coverage(inside) * flawed)
            self.paint(coverage(inside) * there, height=height, colour=rgb(0.80, 0.79, 0.76), metal=1)

    def lay_body(self, generator: Generator) -> None:
        """Paint the body: epoxy, bevelled and grained, with the notch and the dimple that mark pin 1."""
        inside = inside_box(self.x, self.y, BODY_X, BODY_Y, corner=5)
        bevel = (inside / 6).clip(0, 1)
        notch = 7 - np.hypot(self.x + BODY_X - 1, self.y)
        dimple = 6.5 - np.hypot(self.x + BODY_X - 20, self.y - BODY_Y + 19)
        fine, coarse = generator.standard_normal((2, POINTS, POINTS), np.float32)
        coarse = blur(coarse, 3)
        height = 5 + (THICKNESS - 5) * bevel**0.8 + 0.035 * fine + 0.12 * coarse
        height -= 3.0 * rise(notch, -0.5, 2.5) * bevel + 1.6 * rise(dimple, -0.3, 2.2)
        shade = 1 + 0.08 * fine + 0.16 * coarse + 0.08 * noise(generator, 4)
        self.body = coverage(inside)
        self.paint(self.body, height=height, colour=shade * rgb(0.052, 0.052, 0.055), metal=0, gloss=0.05)
        self.flaw *= 1 - self.body  # the body hides the root of a bent pin

    def lay_print(self) -> None:
        """Paint the lasered lettering: pale, matt, thinner where the epoxy is dark."""
        fine, width, height = 4, 784, 392  # pixels of the drawing per pixel of the picture, and its size
        drawn = Image.new("L", (width, height))
        for text, size, y in LETTERING:
            place, font = (width / 2 + 8 * fine, height / 2 + y * fine), ImageFont.load_default(size * fine)
            ImageDraw.Draw(drawn).text(place, text, 255, font, anchor="mm", stroke_width=1)
        drawn = drawn.filter(ImageFilter.GaussianBlur(1))
        steps = [(to[0, 1] - to[0, 0], to[1, 0] - to[0, 0], to[0, 0]) for to in (self.x, self.y)]
        affine = fine * np.array(steps, float) + [(0, 0, width / 2), (0, 0, height / 2)]  # points to pixels
        how = Image.Transform.AFFINE, affine.ravel().tolist(), Image.Resampling.BILINEAR
        printed = np.asarray(drawn.transform((POINTS, POINTS), *how), np.float32) / 255
        strength = 0.72 + 25 * blur(self.colour[0] - 0.052, 3)
        ink = (printed * self.body * (1 - self.unmarked) * strength).clip(0, 1)
        self.paint(ink, colour=rgb(0.44, 0.44, 0.42))
        self.gloss *= 1 - 0.8 * ink

    def scratch(self, generator: Generator) -> None:
        """Scratch a groove into the body: bowed, narrower towards its ends, with a pale ground."""
        angle = generator.uniform(-0.7, 0.7) + generator.choice([0, math.pi / 2], p=[0.7, 0.3])
        half_length, cosine, sine = generator.uniform(28, 48), math.cos(angle), math.sin(angle)
        x, y = self.x - generator.uniform(-50, 50), self.y - generator.uniform(-12, 12)
        along, across = cosine * x + sine * y, cosine * y - sine * x
        position = (along / half_length).clip(-1, 1)
        across -= generator.uniform(-6, 6) * position**2 + 0.5 * np.sin(along / 4 + generator.uniform(0, 6))
        across += 0.7 * noise(generator, 40)  # its sides are torn
        half_width = generator.uniform(1.8, 2.7) * (1 - position**4) + 0.01
        on_body = (np.abs(position) < 1) * self.body
        depth = (1 - np.abs(across) / half_width).clip(0, 1) * on_body
        self.flaw = coverage(half_width - np.abs(across)) * on_body
        self.height -= 1.3 * depth
        self.unmarked = (2 * depth).clip(0, 1)
        pale = (1.7 * depth * (1 + noise(generator, 56))).clip(0, 0.9)
        self.paint(pale, colour=rgb(0.38, 0.375, 0.37))

    def stain(self, generator: Generator) -> None:
        """Spill a drop of flux: a brown film, dried from its rim, over whatever lies below."""
        x, y = self.x - generator.uniform(-80, 80), self.y - generator.uniform(-45, 45)
        inside = generator.uniform(13, 21) - np.hypot(x, generator.uniform(0.8, 1.3) * y)
        inside += 7 * noise(generator, 10)
        self.flaw = film = rise(inside, -0.4, 1.2)
        rim = film * (1 - rise(inside, 1.5, 4.5))
        through, on_body = self.colour * rgb(0.62, 0.42, 0.20), (0.7 + 0.6 * rim) * rgb(0.20, 0.125, 0.05)
        brown = through + self.body * (on_body - through)
        self.paint(0.55 * film + 0.35 * rim, colour=brown)
        self.height += 0.5 * (film + rim)
        self.gloss += 0.12 * film
        self.unmarked += 0.5 * film

    def missing_print(self, generator: Generator) -> None:
        """Rub lettering off; the body is a little paler there, and polished."""
        x, y = self.x - generator.uniform(-45, 60), self.y - generator.uniform(-14, 18)
        inside = 1 - np.hypot(x / generator.uniform(24, 38), y / generator.uniform(13, 19))
        self.flaw = rubbed = rise(inside + 0.5 * noise(generator, 14), -0.05, 0.25) * self.body
        self.unmarked = 0.96 * rubbed
        self.colour += 0.022 * rubbed
        self.gloss += 0.02 * rubbed

    def broken_edge(self, generator: Generator) -> None:
        """Break a piece off a corner or a long side of the body; the fracture is rough, pale and matt."""
        at_corner, right, below = generator.random(3) < 0.5
        x = (BODY_X if right else -BODY_X) if at_corner else generator.uniform(-80, 80)
        y = BODY_Y if below else -BODY_Y
        inside = generator.uniform(17, 25) - np.hypot(self.x - x, self.y - y) + 9 * noise(generator, 14)
        self.flaw = self.unmarked = broken = rise(inside, 0, 1.2) * self.body
        rough = blur(generator.standard_normal((POINTS, POINTS), np.float32), 5)
        left = THICKNESS - 0.6 * inside.clip(0, 16) + 2.2 * rough + 1.5 * noise(generator, 40)
        height = np.minimum(left.clip(2), self.height - 0.6)
        colour = (1 + 0.4 * rough) * rgb(0.170, 0.166, 0.160)
        self.paint(broken, height=height, colour=colour, metal=0, gloss=0)


def rgb(red: float, green: float, blue: float) -> ndarray:
    """Return a colour as (3, 1, 1) float32; 1 reflects all light."""
    return np.array((red, green, blue), np.float32)[:, None, None]


def inside_box(x: ndarray, y: ndarray, half_x: ndarray | float, half_y: float, corner: float) -> ndarray:
    """Return how far inside a box with round corners about the origin each point lies; negative outside."""
    over_x, over_y = np.abs(x) - half_x + corner, np.abs(y) - half_y + corner
    return corner - np.hypot(over_x.clip(0), over_y.clip(0)) - np.minimum(np.maximum(over_x, over_y), 0)


def coverage(inside: ndarray) -> ndarray:
    """Return the share of each point that a shape covers; `inside` is how far inside the point lies."""
    return (FINER * inside + 0.5).clip(0, 1)


def rise(values: ndarray, low: float, high: float) -> ndarray:
    """Return a smooth step: 0 up to `low`, 1 from `high` on."""
    t = ((values - low) / (high - low)).clip(0, 1)
    return t * t * (3 - 2 * t)


def noise(generator: Generator, cells: int) -> ndarray:
    """Return Perlin noise over the grid, (POINTS, POINTS) float32, with `cells` cells along each side."""
    angles = generator.uniform(0, 2 * math.pi, (cells + 1, cells + 1)).astype(np.float32)
    return perlin(angles, (POINTS, POINTS))


def blur(values: ndarray, width: int) -> ndarray:
    """Average (h, w) float32 twice over squares of an odd `width`; edges are repeated."""
    for _ in range(4):  # down, right, down, right
        around = np.pad(values, ((width // 2, width // 2), (0, 0)), mode="edge")
        values = np.sum([around[k : k + len(values)] for k in range(width)], axis=0).T / np.float32(width)
    return values
