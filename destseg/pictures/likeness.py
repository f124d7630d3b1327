"""Finds pictures so alike that they probably show the same part: a copy, or a second photograph of it.

Parts of one kind look alike, too, and a fixed ground is the same in every picture. What tells two pictures of
one part is their fine detail, everywhere: scratches, grain, dust. So

1. each picture's likeliest partner is found on thumbnails, by the mean correlation of their blocks;
2. of both, only what exceeds the mean of the pixels around is kept, less what all pictures have in common;
3. they are laid over one another, a few pixels apart at most, and cut into blocks, about 8 x 8 of them. They
   count as the same part if three in four blocks correlate by at least 0.7.

Measured on the normal pictures of four data sets, at 256 x 256. No pair counts in MVTec transistor, whose
parts lie alike (at most 0.63, one part on two grounds), nor in AITEX fabric, whose crops show the same edge.
One counts in KolektorSDD, and 22 do in magnetic tile: they show one part twice. Of 20 pictures of each set,
copied into it, all or all but one are found: saved as JPEG of quality 80, 3 % brighter, shifted by a pixel.
What is missed: parts that are turned or shifted farther, and small parts on a ground that is the same in all
pictures.
"""

from collections.abc import Sequence

import numpy as np
import PIL.Image

from destseg.pictures.framing import View

MOST = 5000  # pictures that are compared, the first ones: their thumbnails' products take seconds
CLOSEST = 300  # pairs, the likeliest, whose detail is compared
SIDE = 256  # pixels: larger pictures are compared at this size
THUMB, THUMB_BLOCK = 32, 8  # pixels
CANDIDATE = 0.8  # least mean correlation of the thumbnails' blocks
SAME = 0.7  # least correlation of a block's detail
UNLIKE = 0.25  # share of the blocks that may correlate less
SHIFT = 3  # pixels between two pictures, at most
FLAT = 0.5  # grey levels: a block with a smaller deviation in both pictures says nothing
TYPICAL = 100  # pictures that tell what all of them have in common


def alike(views: Sequence[View | None], units: Sequence[int]) -> list[tuple[int, int]]:
    """Return pairs of pictures that seem to show the same part, the likeliest first.

    Args:
        views: scaled pictures; None: not to be looked at.
        units: pictures with the same number are known to belong together; the first of them stands for all.
    """
    firsts = dict(zip(reversed(units), reversed(range(len(units))), strict=True))
    kept = [(k, view.pixels) for k in sorted(firsts.values()) if (view := views[k]) is not None]
    kept = [(k, pixels) for k, pixels in kept if min(pixels.shape[:2]) >= THUMB][:MOST]
    if len(kept) < 2:
        return []
    pictures, pixels = zip(*kept, strict=True)
    common: dict[tuple[int, ...], tuple[list[int], np.ndarray]] = {}  # by the size of the pictures
    found = []
    for pair in _candidates(_thumbnails(pixels)):
        size = pixels[pair[0]].shape
        if pixels[pair[1]].shape == size:
            if size not in common:
                common[size] = _common([k for k, one in enumerate(pixels) if one.shape == size], pixels)
            likeness = _likeness(*_own_details(pair, pixels, *common[size]))
            if likeness >= SAME:
                found.append((likeness, pictures[pair[0]], pictures[pair[1]]))
    return [(first, second) for _, first, second in sorted(found, key=lambda one: -one[0])]


def _thumbnails(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return thumbnails, (n, k) float32, whose inner products are mean correlations of blocks."""
    small = np.stack([_grey(one, (THUMB, THUMB)) for one in pictures])
    blocks, deviations = _blocks(small, THUMB_BLOCK)
    blocks[deviations < FLAT / 2] = 0
    full = np.maximum((deviations >= FLAT / 2).sum(1), 1)
    return (blocks / np.sqrt(full)[:, None, None]).reshape(len(small), -1)


def _candidates(thumbnails: np.ndarray, rows: int = 512) -> list[tuple[int, int]]:
    """Return each picture with the most similar later one, if they are similar, the most similar first."""
    best: list[tuple[float, int, int]] = []
    for start in range(0, len(thumbnails) - 1, rows):
        products = thumbnails[start : start + rows] @ thumbnails[start:].T
        products[np.tril_indices_from(products)] = -1  # itself and earlier ones
        partners = products.argmax(1)
        for k, partner in enumerate(partners.tolist()):
            if products[k, partner] >= CANDIDATE:
                best.append((float(products[k, partner]), start + k, start + partner))
    best.sort(key=lambda pair: -pair[0])
    return [(first, second) for _, first, second in best[:CLOSEST]]


def _grey(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a picture in grey at a height and width, float32."""
    image = PIL.Image.fromarray(pixels).convert("L").convert("F")
    return np.asarray(image.resize((size[1], size[0]), PIL.Image.Resampling.BOX))


def _detail(pixels: np.ndarray) -> np.ndarray:
    """Return by how much each pixel exceeds the mean of the 5 x 5 around it, (h, w) float32."""
    grey = _grey(pixels, (min(SIDE, pixels.shape[0]), min(SIDE, pixels.shape[1])))
    mean = grey
    for axis in (0, 1):
        padding = [(2, 2) if k == axis else (0, 0) for k in (0, 1)]
        padded, length = np.pad(mean, padding, "edge"), grey.shape[axis]
        mean = np.mean([padded.take(range(k, k + length), axis) for k in range(5)], 0)
    return grey - mean


def _common(places: list[int], pixels: Sequence[np.ndarray]) -> tuple[list[int], np.ndarray]:
    """Return some typical ones of these pictures, and the sum of their details."""
    typical = places[:: -(-len(places) // TYPICAL)]
    return typical, np.sum([_detail(pixels[k]) for k in typical], 0)


def _own_details(
    pair: tuple[int, int], pixels: Sequence[np.ndarray], typical: list[int], total: np.ndarray
) -> list[np.ndarray]:
    """Return the details of two pictures without their shares of what the others have in common."""
    details = [_detail(pixels[k]) for k in pair]
    for k, detail in zip(pair, details, strict=True):
        total = total - detail if k in typical else total
    power = max(float((total * total).sum()), 1e-9)
    return [detail - (detail * total).sum() / power * total for detail in details]


def _likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation that all blocks but the least similar quarter reach."""
    height, width = first.shape
    spectrum = np.fft.rfft2(first).conj() * np.fft.rfft2(second)
    near = np.roll(np.fft.irfft2(spectrum, first.shape), (SHIFT, SHIFT), (0, 1))
    near = near[: 2 * SHIFT + 1, : 2 * SHIFT + 1]
    down, right = divmod(int(near.argmax()), near.shape[1])  # SHIFT, SHIFT where they are not shifted
    inner = first[SHIFT : height - SHIFT, SHIFT : width - SHIFT]
    moved = second[down : down + inner.shape[0], right : right + inner.shape[1]]
    blocks, deviations = _blocks(np.stack([inner, moved]), min(first.shape) // 8)
    telling = deviations.max(0) >= FLAT
    if telling.mean() < UNLIKE:
        return 0.0
    return float(np.quantile((blocks[0] * blocks[1]).sum(1)[telling], UNLIKE))


def _blocks(pictures: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut pictures (n, h, w) into blocks (n, b, side * side) of mean 0, norm 1; with their deviations."""
    n, rows, columns = len(pictures), pictures.shape[1] // side, pictures.shape[2] // side
    whole = pictures[:, : rows * side, : columns * side].reshape(n, rows, side, columns, side)
    blocks = whole.transpose(0, 1, 3, 2, 4).reshape(n, rows * columns, side * side)
    blocks = blocks - blocks.mean(2, keepdims=True)
    norms = np.linalg.norm(blocks, axis=2)
    return blocks / np.maximum(norms, 1e-6)[..., None], norms / side
