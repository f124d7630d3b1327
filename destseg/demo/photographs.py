"""Photographs of the part with exact masks, one by one or as a data set in the MVTec layout."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import PIL.Image
from numpy import ndarray
from numpy.random import Generator

from destseg.demo.parts import DEFECTS, FINER, POINTS, Part, blur, rgb
from destseg.files import write_whole
from destseg.pictures.folders import is_picture, visible_files
from destseg.pictures.prefetch import prefetch
from destseg.progress import bar

# Lowest and highest values of: the lamp's azimuth and elevation in degrees; the change of brightness from the
# picture's centre to its right edge and to its lower edge; the exposure; red against blue.
LIGHT = (220, 38, -0.20, -0.18, 0.96, 0), (230, 42, -0.12, -0.10, 1.04, 0.04)


def photograph(seed: int, number: int, defect: str = "good") -> tuple[ndarray, ndarray]:
    """Make one part and photograph it: the same part, place, light and noise whatever the defect.

    Returns:
        Pixels, (256, 256, 3) uint8, and the mask, (256, 256) bool, True where the defect covers at least half
        of a pixel. Missing print covers all of the rubbed area; a bent pin, where it is and where it should
        be. Shadows are no defect.

    Raises:
        ValueError: `defect` is neither "good" nor one of DEFECTS.
    """
    if defect not in ("good", *DEFECTS):
        raise ValueError(f"defect must be good or one of {', '.join(DEFECTS)}, got {defect!r}")
    generator, flaw, noise = (np.random.default_rng([seed, number, branch]) for branch in range(3))
    light, part = generator.uniform(*LIGHT).tolist(), Part(generator)
    part.lay_pins(flaw if defect == "bent_pin" else None)
    part.lay_body(generator)
    if defect not in ("good", "bent_pin"):
        getattr(part, defect)(flaw)
    part.lay_print()
    covered = np.asarray(PIL.Image.fromarray(part.flaw).reduce(FINER))
    return with_noise(seen_from_above(part, light), noise), covered >= 0.5


def seen_from_above(part: Part, light: list[float]) -> ndarray:
    """Render the picture without noise, (256, 256, 3) float32 levels up to 255, in light drawn from LIGHT."""
    azimuth, elevation, right, down, exposure, warmth = light
    level, z = math.cos(math.radians(elevation)), math.sin(math.radians(elevation))
    direction = level * math.cos(math.radians(azimuth)), level * math.sin(math.radians(azimuth)), z
    lamp, above = np.array(direction, np.float32), np.array((0, 0, 1), np.float32)
    height = part.height * np.float32(FINER)  # in distances between points
    lit = 1 - shadow(height, direction)
    sky = 1 - 0.55 * ((blur(height, 15) - height) / 8).clip(0, 1)  # hidden by neighbours
    slope_y, slope_x = np.gradient(height)
    up = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    normal = np.stack([-slope_x * up, -slope_y * up, up])

    halfway = (lamp + above) / np.linalg.norm(lamp + above)
    shine = np.tensordot(halfway, normal, 1).clip(0) ** 18
    highlight = part.gloss * shine * (0.25 + 0.75 * lit)
    facing = np.tensordot(lamp, normal, 1).clip(0)
    scattered = 0.32 * sky + 0.95 * facing * lit + 0.5 * (1 - up)  # of the sky, the lamp and the ground

    mirrored = 2 * up * normal - above[:, None, None]  # the view from above, reflected
    room = 0.36 - 0.22 * (0.6 * mirrored[0] + 0.8 * mirrored[1])
    room += 0.62 * np.tensordot(lamp, mirrored, 1).clip(0) ** 2
    reflected = room.clip(0.04) * (0.35 + 0.65 * lit) * sky

    x = np.linspace(-1, 1, POINTS, dtype=np.float32)
    y = x[:, None]
    brightness = (1 + right * x + down * y - 0.07 * (x**2 + y**2)) * exposure  # the lens darkens, too
    diffuse = part.colour * (brightness * (scattered + part.metal * (reflected - scattered)))
    colours = (diffuse + brightness * highlight * (1 - part.metal)) * rgb(1 + warmth, 1, 1 - warmth)

    size, bicubic = (POINTS // FINER, POINTS // FINER), PIL.Image.Resampling.BICUBIC
    small = [np.asarray(PIL.Image.fromarray(colour).resize(size, bicubic)) for colour in colours]
    linear = np.stack(small, axis=-1).clip(0)
    return 255 * (linear / (1 + 0.12 * linear**2)) ** np.float32(1 / 1.9)  # highlights keep their detail


def shadow(height: ndarray, towards: tuple[float, float, float]) -> ndarray:
    """Return how much of the lamp is hidden from each point of a surface: (h, w) float32 in [0, 1].

    `height` is (h, w) float32 in distances between points; the surface repeats beyond its edges.
    """
    x, y, z = towards  # the lamp
    level, hidden = math.hypot(x, y), np.zeros_like(height)
    for reach in range(2, 41, 2):
        beside = np.roll(height, (-round(reach * y / level), -round(reach * x / level)), axis=(0, 1))
        hidden = np.maximum(hidden, beside - (height + reach * z / level))
    return blur((hidden / 2.5).clip(0, 1), 5)  # the lamp is wide: shadows have soft edges


def with_noise(levels: ndarray, generator: Generator) -> ndarray:
    """Add a sensor's noise to levels, more where there is more light, and return (h, w, 3) uint8."""
    colour, grey = (generator.normal(0, 1, (*levels.shape[:2], n)).astype(np.float32) for n in (3, 1))
    noise = (0.6 * colour + 0.8 * grey) * (0.8 + 1.4 * np.sqrt(levels / 255))
    return (levels + noise + 0.5).clip(0, 255).astype(np.uint8)


def write_dataset(folder: Path, seed: int, train: int, good: int, flawed: int, progress: bool = True) -> None:
    """Write a data set in the MVTec layout: `train` pictures to fit, `good` to test, `flawed` of each defect.

    Replaces the pictures of an earlier data set of the same size. `progress` shows a bar.
    Raises ValueError, before anything is written, if the folder holds other pictures than these.
    """
    kinds = ["train/good"] * train + ["test/good"] * good
    kinds += [f"test/{defect}" for defect in DEFECTS for _ in range(flawed)]
    paths = [folder / kind / f"{number:03}.png" for number, kind in enumerate(kinds)]
    masks = [folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png" for path in paths]
    foreign = sorted(set(filter(is_picture, visible_files(folder))) - {*paths, *masks})
    if foreign:
        raise ValueError(f"{foreign[0]} is no picture of this data set: move it away, or name another folder")

    made = prefetch(lambda k: photograph(seed, k, paths[k].parent.name), range(len(paths)), workers=2)
    shown = bar(paths, "making parts", wanted=progress)
    for path, mask_path, (pixels, mask) in zip(shown, masks, made, strict=True):
        write_whole(path, partial(PIL.Image.fromarray(pixels).save, format="PNG"))
        if path.parent.name != "good":
            write_whole(mask_path, partial(PIL.Image.fromarray(mask).convert("L").save, format="PNG"))
