"""What the compiled functions for GPUs refuse: sizes that lead outside of memory, and no address at all."""

import math

import numpy as np
import pytest

MEMORY = np.zeros(4096, np.float32)  # of the emulated GPU
A, PLACE, SCALES = MEMORY.ctypes.data, (0, 0), ([1.0] * 3, [0.0] * 3)
AROUND = 2**62 + 1  # four times this many is 4 in 64 bits


def similarity_input(*levels, n=1, dtype="float32", taught=A, products=A, out=A):
    levels = [(taught, A, level) for level in levels]
    return "similarity_input", (levels, n, dtype, products, "float32", out, PLACE)


REFUSED_FOR_GPUS = {
    "no levels": (*similarity_input(), "there must be levels"),
    "a level of no pixel": (*similarity_input((1, 0, 1)), "sides must be"),
    "pictures below 0": (*similarity_input((1, 1, 1), n=-1), "must not be negative"),
    "doubles": (*similarity_input((1, 1, 1), dtype="float64"), "or bfloat16"),
    "another precision of the output": (
        "similarity_input",
        ([(A, A, (1, 1, 1))], 1, "float32", A, "float16", A, PLACE),
        "must be float32 or of the features' type",
    ),
    "no room": (*similarity_input((1, 1, 1), out=0), "addresses must"),
    "no features": (*similarity_input((1, 1, 1), taught=0), "addresses must"),
    "many positions": (*similarity_input((1, 2**20, 2**20)), "too many"),
    "an overflow": (*similarity_input((1, AROUND, 4)), "sides must be"),
    "many channels": (*similarity_input((2**32, 1, 1)), "sides must be"),
    "a coarse level beyond 32 bits": (*similarity_input((1, 1, 1), (1, 2**32 + 1, 1)), "sides must be"),
    "no products": (*similarity_input((1, 2, 2), (1, 1, 1), products=0), "room for the products is missing"),
    "no cells": ("anomalies", ([(0.5, 0, 1, 0.5)],), "sides must be"),
    "an overflow of cells": ("anomalies", ([(0.5, 2**63 - 1, 1, 0.5)],), "sides must be"),
    "an overflow of angles": ("anomalies", ([(0.5, 2**31 - 65, 2**31 - 65, 0.5)] * 3,), "fewer than"),
    "no rotation": ("anomalies", ([(math.nan, 1, 1, 0.5)],), "rotations must be finite"),
    "an overflow of pictures": (
        "corrupt",
        (A, A, A, A, 4, A, (1, AROUND, 4), 0.5, *SCALES, A, A, PLACE),
        "sides must be",
    ),
    "an overflow of angle_count": (
        "corrupt",
        (A, A, A, A, 2**63 - 1, A, (1, 1, 1), 0.5, *SCALES, A, A, PLACE),
        "fewer than",
    ),
    "no pictures": ("corrupt", (0, A, A, A, 4, A, (1, 1, 1), 0.5, *SCALES, A, A, PLACE), "addresses must"),
}


@pytest.mark.parametrize("case", REFUSED_FOR_GPUS)
def test_the_kernels_for_gpus_refuse_what_would_corrupt_memory(emulated_kernels, case):
    name, arguments, words = REFUSED_FOR_GPUS[case]
    with pytest.raises(ValueError, match=words):
        getattr(emulated_kernels, name)(*arguments)
