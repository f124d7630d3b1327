"""Advice on a folder of normal pictures: what spoils a model, and the remedy."""

from collections.abc import Sequence

import numpy as np

from destseg.pictures.folders import name_some
from destseg.pictures.framing import Framing
from destseg.pictures.store import PictureStore

FEW = 20  # pictures, of which half would calibrate
VANISHING = 4.0  # pixels of a picture to one of its input; the paper's pictures have that many
SIZES, ASPECTS = 2.0, 1.5  # the largest side or aspect in relation to the smallest
DARK = 64  # of 255: a quarter of the range
RARE = 0.001  # a smaller share of the values, of broken pixels or gleams, does not count as used


def advice_on(store: PictureStore) -> list[str]:
    """Return one sentence or two on each thing that is likely to spoil a model; usually there is none."""
    advice = [_on_number(store.pictures), _on_flat(store), _on_range(store)]
    sizes = np.array(store.sizes, np.float64)  # (n, 2): heights and widths
    advice += [_on_details(sizes, store.framing), _on_sizes(sizes, store.framing)]
    return [sentence for sentence in advice if sentence]


def advice_on_outliers(names: Sequence[str], dropped: bool) -> str:
    """Return what to do about normal pictures that stand far out, of which there is at least one."""
    found = f"{len(names)} normal picture{'s' if len(names) > 1 else ''}"
    if dropped:
        remedy = "look at them; drop_outliers=False (--keep-outliers) keeps them"
        return f"{found} left out that may be defective: {name_some(names)}; {remedy}"
    return f"{found} may be defective: {name_some(names)}; take defective ones out of the folder"


def _on_number(pictures: int) -> str:
    if pictures >= FEW:
        return ""
    return (
        f"only {pictures} normal picture{'s' if pictures > 1 else ''}: the model knows little, and no small "
        "false-positive rate can be guaranteed. Take a hundred; if parts may lie otherwise, rotate= and "
        "flip= make more of each"
    )


def _on_flat(store: PictureStore) -> str:
    if not store.flat:
        return ""
    return f"of one colour throughout, perhaps taken without light: {name_some([s.name for s in store.flat])}"


def _on_range(store: PictureStore) -> str:
    depth, shares = store.framing.bit_depth, np.cumsum(store.levels) / store.levels.sum()
    low, high = (int(np.searchsorted(shares, share)) for share in (RARE, 1 - RARE))
    used = high if depth is None else high - low  # of 8 bits all levels are left, whatever the lowest is
    if used >= DARK or len(store.flat) == store.pictures:
        return ""
    remedy = "expose longer"
    if depth is not None:
        remedy += f", take fewer bits than bit_depth={depth}, or stretch the values before"
    return (
        f"pictures use a fraction of their range: nearly all values lie in {low} to {high} of 0 to 255, so "
        f"that few levels are left: {remedy}"
    )


def _on_details(sizes: np.ndarray, framing: Framing) -> str:
    scaled = np.array([framing.scaled_size((int(height), int(width))) for height, width in sizes])
    factors = (sizes / scaled).max(axis=1)
    factor = float(np.median(factors))
    if factor <= VANISHING:
        return ""
    height, width = (int(side) for side in sizes[np.argsort(factors)[len(factors) // 2]])
    remedy = f"cut pictures into tiles, as with tile={2 * min(framing.size)}, or take a larger image_size"
    return (
        f"pictures of {height} x {width} pixels shrink to {_text(framing.size)}: a defect {factor:.0f} "
        f"pixels wide becomes a single one. If such defects matter, {remedy}"
    )


def _on_sizes(sizes: np.ndarray, framing: Framing) -> str:
    if framing.tile is not None:
        return ""
    smallest, largest = sizes[sizes.prod(axis=1).argmin()], sizes[sizes.prod(axis=1).argmax()]
    aspects = sizes[:, 1] / sizes[:, 0]
    differ = "" if largest.max() <= SIZES * smallest.max() else "size"
    if aspects.max() > ASPECTS * aspects.min() and not framing.keep_aspect:
        remedy = "keep_aspect=True stretches none of them"
        differ = f"{differ} and shape" if differ else "shape"
    else:
        remedy = "crop them alike, or fit a model to each kind"
    if not differ:
        return ""
    return (
        f"pictures differ in {differ}, from {_text(smallest)} to {_text(largest)} pixels, and all become "
        f"{_text(framing.size)}, so that a part does not always look the same: {remedy}"
    )


def _text(size: Sequence[float] | np.ndarray) -> str:
    return f"{int(size[0])} x {int(size[1])}"
