"""Textures for synthetic anomalies, from a texture source or from the normal pictures themselves."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from destseg.pictures.decoding import resize
from destseg.pictures.store import PictureStore
from destseg.training.procedural import procedural_texture

DrawTexture = Callable[[Generator], np.ndarray]
"""Draws one texture, (h, w, 3) uint8, with random numbers from a generator."""

MOST_PAIRS = 30  # of pictures that are compared
ALIKE = 1.5  # times as far from one another are pictures of parts that lie alike, once one is displaced


class PictureTextures:
    """Draws pictures of a store as textures, each equally likely."""

    def __init__(self, store: PictureStore) -> None:
        self.store = store

    def index(self, generator: Generator) -> int:
        """Draw the index of a picture."""
        return int(generator.integers(len(self.store)))

    def __call__(self, generator: Generator) -> np.ndarray:
        return self.store[self.index(generator)]


def from_normals(store: PictureStore) -> DrawTexture:
    """Draw textures without a texture source: half are shuffled normal pictures, half procedural.

    Where parts lie alike, a quarter are displaced normal pictures, the others fewer. They show background
    in the place of the part, and its pieces where they do not belong.
    """
    displaced = 0.25 if lie_alike(store) else 0.0

    def draw(generator: Generator) -> np.ndarray:
        kind = generator.random()
        if (1 - displaced) / 2 <= kind < 1 - displaced:
            return procedural_texture(store.size, generator)
        change = shuffle_patches if kind < 0.5 else displace
        return change(store[int(generator.integers(len(store)))], generator)

    return draw


def lie_alike(store: PictureStore) -> bool:
    """Whether parts lie in the same place and direction in all pictures.

    Then a picture is much farther from another one once it is displaced. On a surface, or among parts that
    lie anyhow, it is not, and a displaced piece would be no anomaly. The ratio of the mean absolute
    differences was 2.6 on MVTec transistor, and 1.0 to 1.2 on magnetic tile, KolektorSDD and AITEX fabric 2.
    """
    generator = np.random.default_rng(len(store))
    order = generator.permutation(len(store))[: 2 * MOST_PAIRS]
    apart = displaced = 0.0
    for first, second in zip(order[::2], order[1::2], strict=False):
        picture, other = store[int(first)], store[int(second)].astype(np.float32)
        apart += float(np.abs(picture - other).mean())
        displaced += float(np.abs(displace(picture, generator) - other).mean())
    return displaced > ALIKE * apart


def shuffle_patches(picture: np.ndarray, generator: Generator) -> np.ndarray:
    """Cut a picture (h, w, 3) uint8 into 2 x 2 to 8 x 8 patches, shuffle, mirror, turn and recolour them.

    Patches are mirrored in both directions, and square ones are turned by a quarter, each half of the time.
    """
    height, width, _ = picture.shape
    cells = int(2 ** generator.integers(1, 4))
    patch_height, patch_width = height // cells, width // cells
    patches = picture[: cells * patch_height, : cells * patch_width]
    patches = patches.reshape(cells, patch_height, cells, patch_width, 3).swapaxes(1, 2)
    patches = patches.reshape(cells * cells, patch_height, patch_width, 3)[
        generator.permutation(cells * cells)
    ]
    for axis in (1, 2):
        mirrored = generator.random(cells * cells) < 0.5
        patches[mirrored] = np.flip(patches[mirrored], axis)
    if patch_height == patch_width:
        turned = generator.random(cells * cells) < 0.5
        patches[turned] = patches[turned].swapaxes(1, 2)
    mosaic = patches.reshape(cells, cells, patch_height, patch_width, 3).swapaxes(1, 2)
    mosaic = mosaic.reshape(cells * patch_height, cells * patch_width, 3)
    return resize(recolour(mosaic, generator), (height, width))


def displace(picture: np.ndarray, generator: Generator) -> np.ndarray:
    """Shift a picture (h, w, 3) uint8 by an eighth of each side or more; what leaves it enters opposite.

    It is mirrored in both directions, each half of the time, and keeps its colours.
    """
    least = np.array(picture.shape[:2]) // 8
    down, right = generator.integers(least, picture.shape[:2] - least + 1)
    moved = np.roll(picture, (int(down), int(right)), (0, 1))
    for axis in (0, 1):
        if generator.random() < 0.5:
            moved = np.flip(moved, axis)
    return np.ascontiguousarray(moved)


def recolour(picture: np.ndarray, generator: Generator) -> np.ndarray:
    """Permute the channels of (h, w, 3) uint8, and change contrast (or invert) and brightness.

    Half of the time all channels change alike: on grey parts, colour would give the anomaly away.
    """
    channels = 1 if generator.random() < 0.5 else 3
    gain = generator.uniform(0.5, 1.5, channels) * generator.choice([-1.0, 1.0])
    level = generator.uniform(64, 192, channels)
    values = picture[..., generator.permutation(3)].astype(np.float32)
    values = (values - values.mean(axis=(0, 1))) * gain + level
    return values.clip(0, 255).astype(np.uint8)
