"""Photographs of the part with exact masks, alone or as a data set of the MVTec layout."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
from tqdm import tqdm

from destseg.files import write_whole
from destseg.folders import is_picture, visible_files
from destseg.sample import chip, flaws
from destseg.sample.rendering import Light, developed, shaded, with_noise
from destseg.synthesis import prefetched


class Photograph(NamedTuple):
    """One picture of a part."""

    pixels: np.ndarray  # (256, 256, 3) uint8
    mask: np.ndarray  # (256, 256) bool, True on the defect


class Item(NamedTuple):
    """One picture of a data set, and where it lies."""

    path: Path
    mask_path: Path | None  # None of normal parts
    number: int
    defect: str


def photograph(seed: int, number: int, defect: str = "good") -> Photograph:
    """Make one part and photograph it.

    Args:
        seed, number: whole numbers of at least 0, of everything drawn: the same part, place, light and noise
            whatever the defect.
        defect: "good" or one of `destseg.sample.flaws.DEFECTS`.

    The mask is where the defect covers at least half of a pixel: of missing print all that was rubbed, of a
    bent pin where it is and where it should be, and never the shadow. Raises ValueError for another defect.
    """
    if defect not in ("good", *flaws.DEFECTS):
        raise ValueError(f"defect must be good or one of {', '.join(flaws.DEFECTS)}, got {defect!r}")
    generator, flaw, noise = (np.random.default_rng([seed, number, branch]) for branch in range(3))
    light, part = Light.draw(generator), chip.placed(generator)
    chip.lay_plate(part, generator)
    chip.lay_pins(part, flaws.draw_bent_pin(flaw) if defect == "bent_pin" else None)
    chip.lay_body(part, generator)
    if defect in flaws.CHANGES:
        flaws.CHANGES[defect](part, flaw)
    chip.lay_print(part)
    levels = developed(shaded(part.surface(), light), chip.SIDE)
    covered = PIL.Image.fromarray(part.flaw).reduce(chip.FINER)
    return Photograph(with_noise(levels, noise), np.asarray(covered) >= 0.5)


def items(folder: str | os.PathLike[str], train: int, test_good: int, test_defect: int) -> list[Item]:
    """List the pictures of a data set of the MVTec layout, none of them made yet.

    Args:
        train, test_good: how many pictures of normal parts.
        test_defect: how many of each defect.
    """
    kinds = [("train", "good")] * train + [("test", "good")] * test_good
    kinds += [("test", defect) for defect in flaws.DEFECTS for _ in range(test_defect)]
    listed = []
    for number, (split, defect) in enumerate(kinds):
        masks = None if defect == "good" else Path(folder) / "ground_truth" / defect
        path = Path(folder) / split / defect / f"{number:03}.png"
        listed.append(Item(path, masks and masks / f"{number:03}_mask.png", number, defect))
    return listed


def write_dataset(
    folder: str | os.PathLike[str],
    seed: int = 0,
    train: int = 100,
    test_good: int = 20,
    test_defect: int = 8,
    *,
    progress: bool = True,
    workers: int = 2,
) -> list[Item]:
    """Write a data set of the MVTec layout. Pictures of an earlier one of the same size are replaced.

    Args:
        folder: made where it is missing.
        seed: of everything drawn.
        train, test_good, test_defect: how many pictures, see `items`.
        progress: show a progress bar on a terminal.
        workers: threads that make pictures; the result does not depend on it.

    Raises ValueError, before anything is written, if the folder holds other pictures than those.
    """
    listed = items(folder, train, test_good, test_defect)
    ours = {path for item in listed for path in (item.path, item.mask_path)}
    foreign = sorted(set(filter(is_picture, visible_files(Path(folder)))) - ours)  # none without a folder
    if foreign:
        raise ValueError(f"{foreign[0]} is no picture of this data set: move it away, or name another folder")

    def make(k: int) -> Photograph:
        return photograph(seed, listed[k].number, listed[k].defect)

    made = prefetched(make, range(len(listed)), workers)
    bar = tqdm(listed, "making parts", disable=None if progress else True)
    for item, photo in zip(bar, made, strict=True):
        _write(item.path, photo.pixels)
        if item.mask_path is not None:
            _write(item.mask_path, photo.mask.astype(np.uint8) * 255)
    return listed


def _write(path: Path, pixels: np.ndarray) -> None:
    image = PIL.Image.fromarray(pixels)
    write_whole(path, lambda file: image.save(file, format="PNG"))
