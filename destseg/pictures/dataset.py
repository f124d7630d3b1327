"""Test sets in the MVTec layout: pictures of normal parts, and of defects with their masks."""

import os
from dataclasses import dataclass
from pathlib import Path

from destseg.files import as_path
from destseg.pictures.folders import (
    SUFFIXES,
    Source,
    is_picture,
    name_some,
    picture_paths,
    visible_files,
    warn_about,
)
from destseg.pictures.layouts import is_normal, namesakes, refuse_masks

TRUTH, MASK = "ground_truth", "_mask"  # the folder of the masks, and the end of a mask's name


@dataclass(frozen=True)
class Sample:
    """One test picture of the MVTec layout.

    The mask is None for pictures of normal parts, and for all of a data set without masks.
    """

    path: Path
    defect: str  # the folder it lies in; "good" for normal parts, whatever theirs is called
    mask_path: Path | None
    name: str  # its path below the data set's folder

    @property
    def is_anomalous(self) -> bool:
        """Whether the picture lies in a folder of defects."""
        return self.defect != "good"

    @property
    def source(self) -> Source:
        """The picture, not yet decoded."""
        return Source(str(self.path), self.path)


def read_mvtec(directory: str | os.PathLike[str]) -> list[Sample]:
    """List the test pictures of a data set in the MVTec layout, sorted by defect and name.

    Pictures lie in `test/<defect>/`, at any depth, those of normal parts in `test/good`, or in a folder that
    `destseg.pictures.layouts.is_normal` knows, such as `ok`. The mask of
    `test/<defect>/<name>.<suffix>` is `ground_truth/<defect>/<name>_mask.<suffix>`, or else `<name>.<suffix>`
    in the same directory. Where there is no `ground_truth`, there are no masks. Warnings name pictures that
    lie in `test` itself, which are left out, and masks without a picture.

    Raises:
        FileNotFoundError: the `test` directory is missing, or a mask in `ground_truth`.
        ValueError: `test` holds no pictures, or masks beside them.
    """
    root = as_path(directory)
    test, truth = root / "test", root / TRUTH
    if not test.is_dir():
        raise FileNotFoundError(
            f"{directory} is not in the MVTec layout: there is no directory {test}, "
            "which should hold good/ and one directory per defect"
        )
    homes = "they should lie in good/ and one directory per defect"
    try:
        paths = picture_paths(test)
    except ValueError as error:
        raise ValueError(f"{error}; {homes}") from error
    folders = {path: path.relative_to(test).parts[0] for path in paths if path.parent != test}
    kinds = {path: "good" if is_normal(folder) else folder for path, folder in folders.items()}
    refuse_masks(paths)
    loose = [path for path in paths if path not in kinds]
    if not kinds:
        raise ValueError(f"{test} holds no pictures: {homes}, not loose as {name_some(loose)}")
    warn_about("left out:", loose, "picture", f"in {test} itself; {homes}")
    masks, has_masks = _masks_below(truth), truth.exists()
    samples = []
    for path, kind in kinds.items():
        mask_path = _mask_path(path, test, masks) if has_masks and kind != "good" else None
        samples.append(Sample(path, kind, mask_path, path.relative_to(root).as_posix()))
    used = {sample.mask_path for sample in samples}
    unused = [
        path
        for path in masks.values()
        if path not in used and not is_normal(path.relative_to(truth).parts[0])
    ]
    warn_about("not used:", unused, "mask", "without a picture in the test set")
    return sorted(samples, key=lambda sample: (sample.defect, sample.path))


def _masks_below(truth: Path) -> dict[Path, Path]:
    """Return the masks below a folder by their paths without endings.

    The first of SUFFIXES wins; a warning names the others.
    """
    masks = sorted(
        filter(is_picture, visible_files(truth)),
        key=lambda path: (SUFFIXES.index(path.suffix.lower()), path),
    )
    warn_about("not used:", namesakes(masks), "mask", "with the name of another but for its ending")
    return {path.with_suffix("").relative_to(truth): path for path in reversed(masks)}


def _mask_path(picture: Path, test: Path, masks: dict[Path, Path]) -> Path:
    """Find the mask of a defect picture."""
    place = picture.with_suffix("").relative_to(test)
    wanted = place.with_name(f"{place.name}{MASK}")
    for key in (wanted, place):
        if key in masks:
            return masks[key]
    expected = test.parent / TRUTH / wanted
    raise FileNotFoundError(
        f"{picture} has no mask: expected {expected.with_name(expected.name + '.png')}; without a folder "
        f"{TRUTH} there would be no pixel metrics, but the others"
    )
