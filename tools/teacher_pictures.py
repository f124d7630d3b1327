"""The embedded teacher's training pictures: photographs, textures, drawings, and random views of them."""

import math
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch
import torch.nn.functional as F
from torch import Tensor

from destseg.model.normalisation import normalise
from destseg.ops.corruption import Corruption, corrupt
from destseg.ops.perlin import perlin
from destseg.pictures.decoding import resize, to_rgb

SIDE = 256  # pixels of every source picture
GREY = (0.299, 0.587, 0.114)


def read_folder(folder: Path) -> np.ndarray:
    """Read all pictures of a folder, in the order of their names, (n, 256, 256, 3) uint8."""
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    return np.stack([resize(to_rgb(path), (SIDE, SIDE)) for path in paths])


def drawings(count: int, seed: int) -> np.ndarray:
    """Draw pictures of gradients, gratings, noise, shapes, lines and print, (count, 256, 256, 3) uint8."""
    return np.stack([drawing(np.random.default_rng([seed, k])) for k in range(count)])


def drawing(generator: np.random.Generator) -> np.ndarray:
    colours = generator.integers(0, 256, (2, 3))
    blend = ground(generator)[:, :, None]
    pixels = (1 - blend) * colours[0] + blend * colours[1]
    picture = PIL.Image.fromarray(pixels.astype(np.uint8))
    draw = PIL.ImageDraw.Draw(picture)
    for _ in range(generator.integers(0, 12)):
        shape(draw, generator)
    noisy = np.asarray(picture) + generator.normal(0, generator.uniform(0, 12), (SIDE, SIDE, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def ground(generator: np.random.Generator) -> np.ndarray:
    """Return (256, 256) in [0, 1]: a gradient, a grating, a weave, or noise of several scales."""
    turn = generator.uniform(0, 2 * math.pi)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    period = 2 * math.pi * 2 ** generator.uniform(0, 6)
    kind = generator.integers(0, 4)
    if kind == 0:
        values = along
    elif kind == 1:
        values = np.sin(period * along) ** generator.choice([1, 3, 5])
    elif kind == 2:
        values = np.sin(period * along) * np.sin(period * generator.uniform(0.5, 2) * across)
    else:
        values = sum(0.6**k * noise(generator, 2 ** (k + 1)) for k in range(generator.integers(1, 7)))
    return (values - values.min()) / (np.ptp(values) + 1e-6)


def noise(generator: np.random.Generator, cells: int) -> np.ndarray:
    angles = generator.uniform(0, 2 * math.pi, (cells + 1, cells + 1))
    return perlin(angles, (SIDE, SIDE))


def shape(draw: PIL.ImageDraw.ImageDraw, generator: np.random.Generator) -> None:
    colour = tuple(int(value) for value in generator.integers(0, 256, 3))
    corner, side = generator.uniform(-0.1, 1, 2) * SIDE, 2 ** generator.uniform(1, 7.5, 2)
    box = [*corner.tolist(), *(corner + side).tolist()]
    width = int(2 ** generator.uniform(0, 4))
    kind = generator.integers(0, 5)
    if kind == 0:
        draw.rectangle(box, fill=colour if generator.random() < 0.5 else None, outline=colour, width=width)
    elif kind == 1:
        draw.ellipse(box, fill=colour if generator.random() < 0.5 else None, outline=colour, width=width)
    elif kind == 2:
        draw.line((generator.uniform(0, SIDE, 2 * generator.integers(2, 5))).tolist(), colour, width)
    elif kind == 3:
        draw.polygon((generator.uniform(0, SIDE, 2 * generator.integers(3, 7))).tolist(), colour)
    else:
        letters = "".join(chr(c) for c in generator.integers(33, 127, generator.integers(1, 12)))
        draw.text(box[:2], letters, colour, font_size=8 * width**0.7)


def views(pictures: Tensor, side: int, generator: np.random.Generator) -> Tensor:
    """Return a random view of each picture, in the form that the teacher takes.

    A view is a crop of an eighth to all of the picture's sides. With some probability each, it is turned,
    mirrored, recoloured, blurred, made noisy, and corrupted by another picture as in training.

    Args:
        pictures: (n, 256, 256, 3) uint8.
        side: pixels of the views.

    Returns:
        (n, 3, side, side) float32, normalised.
    """
    cropped = recolour(crops(pictures, side, generator), generator)
    pixels = (cropped.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    corrupted = generator.random(len(pixels)) < 0.4
    lattices = [tuple(2 ** generator.integers(0, 6, 2)) for _ in pixels]
    corruptions = [
        Corruption(
            generator.uniform(0, 2 * math.pi, (y + 1, x + 1)).astype(np.float32),
            float(generator.uniform(-math.pi / 2, math.pi / 2)),
            float(generator.uniform(0, 0.8)) if wanted else 1.0,
        )
        for (y, x), wanted in zip(lattices, corrupted, strict=True)
    ]
    blended, _ = corrupt(pixels, pixels.roll(1, 0), corruptions, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return normalise((blended * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous())


def crops(pictures: Tensor, side: int, generator: np.random.Generator) -> Tensor:
    """Cut random crops (n, 3, side, side) float32 in [0, 1] out of pictures, turned and mirrored."""
    n = len(pictures)
    scale = 2.0 ** (-3 * generator.random(n) ** 1.5)  # large crops are more likely
    turn = generator.uniform(-math.pi, math.pi, n) * (generator.random(n) < 0.5)
    mirror = generator.choice([-1.0, 1.0], n)
    matrix = np.zeros((n, 2, 3))
    matrix[:, 0, 0], matrix[:, 0, 1] = mirror * scale * np.cos(turn), -scale * np.sin(turn)
    matrix[:, 1, 0], matrix[:, 1, 1] = mirror * scale * np.sin(turn), scale * np.cos(turn)
    matrix[:, :, 2] = generator.uniform(-1, 1, (n, 2)) * (1 - scale[:, None])
    grid = F.affine_grid(torch.from_numpy(matrix).float(), [n, 3, side, side], align_corners=False)
    source = pictures.permute(0, 3, 1, 2).float() / 255
    coarse = torch.from_numpy(scale > side / SIDE)  # sampling would skip pixels of these
    source[coarse] = blur(source[coarse])
    return F.grid_sample(source, grid, padding_mode="reflection", align_corners=False)


def recolour(values: Tensor, generator: np.random.Generator) -> Tensor:
    """Change contrast, brightness, hue and gamma; make some views grey, inverted, blurred or noisy."""

    def some(probability: float) -> Tensor:
        return torch.from_numpy(generator.random(len(values)) < probability)

    def factors(count: int, low: float, high: float, channels: int = 1) -> Tensor:
        return torch.from_numpy(generator.uniform(low, high, (count, channels, 1, 1))).float()

    chosen = some(0.2)
    values[chosen] = blur(values[chosen])
    mixing = torch.from_numpy(np.eye(3) + generator.normal(0, 0.15, (len(values), 3, 3))).float()
    mixing[some(0.5)] = torch.eye(3)
    mixing[some(0.35)] = torch.tensor(GREY).expand(3, 3)
    values = (mixing @ values.flatten(2)).view_as(values)
    chosen = some(0.1)
    values[chosen] = 1 - values[chosen]
    mean = values.mean(dim=(1, 2, 3), keepdim=True)
    n = len(values)
    values = (values - mean) * factors(n, 0.4, 1.6) + mean * factors(n, 0.5, 1.5) * factors(n, 0.9, 1.1, 3)
    chosen = some(0.3)
    values[chosen] = values[chosen].clamp(1e-4, 1) ** factors(int(chosen.sum()), 0.5, 2.0)
    chosen = some(0.3)
    grain = torch.from_numpy(generator.standard_normal(values[chosen].shape, np.float32))
    values[chosen] += grain * factors(len(grain), 0, 0.08)
    return values


def blur(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, 3, 1, 1, count_include_pad=False)
