"""Types of the compiled kernels, csrc/bindings.cpp. Arrays are C-contiguous and never converted.

The last arrays of each call are outputs: the caller allocates them, the kernel writes them.
"""

from typing import overload

import numpy as np
from numpy.typing import NDArray

def similarity_input(
    taught: list[NDArray[np.float32]],
    learnt: list[NDArray[np.float32]],
    channels_last: bool,
    threads: int,
    output: NDArray[np.float32],
) -> None: ...
def cosine_distances(
    taught: list[NDArray[np.float32]],
    learnt: list[NDArray[np.float32]],
    channels_last: bool,
    threads: int,
    distances: list[NDArray[np.float32]],
) -> None: ...
def cosine_gradients(
    taught: list[NDArray[np.float32]],
    learnt: list[NDArray[np.float32]],
    channels_last: bool,
    threads: int,
    slopes: list[NDArray[np.float32]],
    gradients: list[NDArray[np.float32]],
) -> None: ...
def destmap(distances: list[NDArray[np.float32]], threads: int, output: NDArray[np.float32]) -> None: ...
def destmap_of_features(
    taught: list[NDArray[np.float32]],
    learnt: list[NDArray[np.float32]],
    channels_last: bool,
    threads: int,
    output: NDArray[np.float32],
) -> None: ...
def perlin(angles: NDArray[np.float32], rotation: float, noise: NDArray[np.float32]) -> None: ...
def corrupt(
    pictures: NDArray[np.uint8],
    textures: NDArray[np.uint8],
    lattices: NDArray[np.float32],
    cells: NDArray[np.int64],
    rotations: NDArray[np.float64],
    shares: NDArray[np.float32],
    threshold: float,
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
    threads: int,
    corrupted: NDArray[np.float32],
    masks: NDArray[np.uint8],
) -> None: ...
def components(masks: NDArray[np.uint8], corners: bool, labels: NDArray[np.int32]) -> NDArray[np.int64]: ...
@overload
def split(  # type: ignore[overload-overlap]  # mypy takes float32 and float64 for overlapping
    scores: NDArray[np.float32],
    mask: NDArray[np.uint8],
    normals: NDArray[np.float32],
    positives: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...
@overload
def split(
    scores: NDArray[np.float64],
    mask: NDArray[np.uint8],
    normals: NDArray[np.float64],
    positives: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]: ...
def rank(
    positives: NDArray[np.float32],
    sizes: NDArray[np.int64],
    scores: NDArray[np.float32],
    counts: NDArray[np.int64],
    overlap: NDArray[np.float64],
) -> int: ...
@overload
def count_above(
    rising: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    above: NDArray[np.int64],
    at_or_above: NDArray[np.int64],
) -> None: ...
@overload
def count_above(
    rising: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    above: NDArray[np.int64],
    at_or_above: NDArray[np.int64],
) -> None: ...
