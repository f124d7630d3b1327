"""Categories of data sets: normal pictures to fit to, and a test set, whatever their folders are called."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from destseg.files import FilePath, as_path
from destseg.pictures.dataset import Sample, read_mvtec
from destseg.pictures.layouts import normal_folder

SPLIT = Path(
    "split_csv", "1cls.csv"
)  # which of VisA's normal pictures are for training, beside its categories


@dataclass(frozen=True)
class Category:
    """One kind of part of a data set.

    Attributes:
        normal: the folder of the normal pictures to fit to, or these pictures.
        samples: the test set.
    """

    normal: Path | list[Path]
    samples: list[Sample]


def find_categories(roots: Sequence[FilePath]) -> dict[str, Path]:
    """Return the folders of all categories below some folders, by name, in order.

    A category is a folder with `test` and a folder of normal pictures, `train/good`, `train/ok`, `normal` or
    the like, as MVTec AD, MPDD and BTAD have them; or one of VisA, with `Data/Images`. Each root may hold
    several, or be one.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a root holds no category, or two have the same name.
    """
    found: dict[str, Path] = {}
    for root in map(as_path, roots):
        if not root.is_dir():
            raise FileNotFoundError(f"there is no folder {root}")
        inside = [root] if _is_category(root) else sorted(filter(_is_category, root.iterdir()))
        if not inside:
            raise ValueError(
                f"{root} holds no category: a folder with test and train/good, with test and normal, or "
                "VisA's with Data/Images is wanted"
            )
        for folder in inside:
            name = folder.resolve().name
            if name in found:
                raise ValueError(f"two categories are called {name}: {found[name]} and {folder}")
            found[name] = folder
    return found


def read_category(folder: Path) -> Category:
    """List the pictures of a category; raises what `destseg.pictures.dataset.read_mvtec` raises."""
    if _is_visa(folder):
        return _read_visa(folder)
    normal = normal_folder(folder)
    if normal is None:
        raise ValueError(f"{folder} holds no folder of normal pictures such as train/good")
    return Category(normal, read_mvtec(folder))


def _is_category(folder: Path) -> bool:
    return _is_visa(folder) or ((folder / "test").is_dir() and normal_folder(folder) is not None)


def _is_visa(folder: Path) -> bool:
    return (folder / "Data" / "Images").is_dir()


def _read_visa(folder: Path) -> Category:
    """List a category as VisA's archive holds it; paths in its table begin at the folder above."""
    root = folder.resolve().parent
    with open(root / SPLIT, newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["object"] == folder.resolve().name]
    normal = [root / line["image"] for line in lines if line["split"] == "train"]
    tested = [line for line in lines if line["split"] == "test"]
    if not normal or not tested:
        raise ValueError(f"{root / SPLIT} names no pictures of {folder.name} to train on, or none to test")
    samples = []
    for line in tested:
        mask = root / line["mask"] if line["mask"] else None
        defect = "good" if line["label"] == "normal" else line["label"]
        samples.append(Sample(root / line["image"], defect, mask, line["image"]))
    return Category(normal, sorted(samples, key=lambda sample: (sample.defect, sample.path)))
