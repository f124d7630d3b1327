"""Types of the compiled kernels for NVIDIA GPUs, csrc/cuda/bindings.cpp.

An int that stands for an array is its address in the device's memory. A type is "float32", "float16" or
"bfloat16". A place is the device's number and the address of one of its streams.
"""

from collections.abc import Sequence
from typing import TypeAlias

_Place: TypeAlias = tuple[int, int]
_Level: TypeAlias = tuple[int, int, Sequence[int]]  # taught, learnt, (c, h, w)

def similarity_input(
    levels: Sequence[_Level],
    n: int,
    type: str,
    products: int,
    out_type: str,
    out: int,
    place: _Place,
) -> None: ...
def anomalies(rows: Sequence[tuple[float, int, int, float]]) -> bytes: ...
def corrupt(
    pictures: int,
    textures: int,
    table: int,
    angles: int,
    angle_count: int,
    gradients: int,
    size: Sequence[int],  # (n, h, w)
    threshold: float,
    scale: Sequence[float],  # of three channels
    offset: Sequence[float],
    corrupted: int,
    masks: int,
    place: _Place,
) -> None: ...
