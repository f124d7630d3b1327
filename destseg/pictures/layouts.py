"""What data sets call their folders, so that nobody takes masks and defects for normal pictures."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

# Names of folders, of which only the letters count, in lower case.
NORMAL = ("good", "ok", "okay", "normal", "defectfree", "nodefect", "anomalyfree")
DEFECTIVE = (
    *("bad", "ng", "ko", "nok", "defect", "defects", "defective", "faulty"),
    *("anomaly", "anomalies", "anomalous", "abnormal"),
)
TRAINING, TEST, IMAGES = ("train", "training"), ("test", "testing"), ("images", "image", "imgs", "img", "rgb")
TRUTH, MASKS = ("groundtruth",), ("masks", "mask", "labels", "label", "gt")  # MASKS only beside IMAGES

MASK_END = re.compile("[-_ ](mask|gt)$", re.IGNORECASE)  # of a mask's name


def is_normal(folder: str) -> bool:
    """Whether a folder's name says that it holds normal pictures: good, OK, Normal, defect-free ..."""
    return _is_one_of(NORMAL, folder)


def normal_folder(root: Path) -> Path | None:
    """Return the folder of a data set's normal pictures, train/good, train or normal; None without one."""
    training = _child(root, TRAINING)
    homes = filter(None, (training, root, _child(root, IMAGES)))
    return next(filter(None, (_child(home, NORMAL) for home in homes)), training)


def refuse_masks(paths: Sequence[Path], wanted: str = "test") -> None:
    """Raise ValueError if some pictures are masks, by their folder or, among several, by their names.

    The message names the place of the wanted pictures, "test" or "normal".
    """
    for folder, path in _folders_of(paths).items():
        root = _root_of_masks(folder)
        if root is not None:
            raise _refusal(f"{path} is the mask of a defect", root, wanted)
    stems = {path.with_suffix("") for path in paths}
    masks = [path for path in paths if MASK_END.search(path.stem)] if len(paths) > 1 else []
    if len(masks) < len(paths):  # one in ten at least: a ski mask is a picture, even beside a ski
        masks = [path for path in masks if path.with_name(MASK_END.sub("", path.stem)) in stems]
        masks = masks if len(masks) >= len(paths) / 10 else []
    if masks:
        raise _refusal(f"{masks[0]} is the mask of a defect, by its name", None, wanted)


def refuse_others(paths: Sequence[Path], tops: Iterable[Path]) -> None:
    """Raise ValueError if some pictures are no normal ones, by their folders or names.

    The message says where the normal pictures lie.

    Args:
        paths: the pictures.
        tops: the folders that were passed. What they are called themselves, the user knows.
    """
    refuse_masks(paths, "normal")
    for folder, path in _folders_of(paths).items():
        root = _root_of_defects(folder)
        if root is not None:
            raise _refusal(f"{path} lies in a test set, among pictures of defects", root, "normal")
    for top in tops:
        root = Path(os.path.abspath(top))
        below = [path.relative_to(top) for path in paths if path.is_relative_to(top)]
        kinds = [_kind(path.parts[:-1]) for path in below]
        for odd, usual in (("defective", {"normal", "training", ""}), ("", {"normal"})):
            if odd in kinds and usual & {*kinds} and not is_normal(root.name):
                text = f"{top / below[kinds.index(odd)]} lies beside the normal pictures"
                raise _refusal(text, root, "normal")


def namesakes(paths: Iterable[Path]) -> list[Path]:
    """Return the paths that differ in their ending only from one before."""
    firsts: dict[Path, Path] = {}
    return [path for path in paths if firsts.setdefault(path.with_suffix(""), path) is not path]


def _is_one_of(names: Sequence[str], folder: str) -> bool:
    return re.sub("[^a-z]", "", folder.lower()) in names


def _kind(folders: Sequence[str]) -> str:
    """Return what the folders of a picture say of it, the innermost first; "" where none says anything."""
    for folder in reversed(folders):
        if is_normal(folder):
            return "normal"
        if _is_one_of(DEFECTIVE + TEST, folder):
            return "defective"
        if _is_one_of(TRAINING, folder):
            return "training"
    return ""


def _folders_of(paths: Sequence[Path]) -> dict[Path, Path]:
    """Return the absolute folders in which pictures lie, each with the first of them."""
    folders: dict[Path, Path] = {}
    for path in paths:
        folders.setdefault(Path(os.path.abspath(path.parent)), path)
    return folders


def _root_of_masks(folder: Path) -> Path | None:
    """Return the folder of the data set if this one, absolute, lies among its masks."""
    for place in (folder, *folder.parents):
        if _is_one_of(TRAINING + TEST, place.name):
            return None
        if _is_one_of(TRUTH, place.name) or (
            _is_one_of(MASKS, place.name) and _child(place.parent, IMAGES) is not None
        ):
            return place.parent
    return None


def _root_of_defects(folder: Path) -> Path | None:
    """Return the folder of the data set if this one, absolute, lies in its test set, but not in `good`."""
    chain = [*reversed(folder.parents), folder]
    for place, below in zip(chain, [*chain[1:], None], strict=True):
        if not _is_one_of(TEST, place.name) or (below is not None and is_normal(below.name)):
            continue
        training = _child(place.parent, TRAINING)
        if _child(place.parent, TRUTH) is not None or (training and _child(training, NORMAL)):
            return place.parent
    return None


def _refusal(text: str, root: Path | None, wanted: str) -> ValueError:
    """Return an error that names the place of the wanted pictures, "test" or "normal", in a data set."""
    place = None
    if root is not None and wanted == "test":
        place = _child(root, TEST) or _child(root, IMAGES)
    elif root is not None:
        place = normal_folder(root)
    kind = "pictures of parts" if wanted == "test" else "normal pictures"
    if place is None:
        return ValueError(f"{text}; pass files or folders of {kind} only")
    here = Path.cwd()
    shown = place.relative_to(here) if place.is_relative_to(here) else place
    return ValueError(f"{text}, and {kind} are wanted: did you mean {shown}?")


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first subfolder of one of these names."""
    try:
        below = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return None
    return next((path for path in below if _is_one_of(names, path.name)), None)
