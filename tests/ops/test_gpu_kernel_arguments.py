"""What the compiled functions for GPUs refuse: sizes that lead outside of memory, and no address at all."""

import math

import numpy as np
import pytest

MEMORY = np.zeros(4096, np.float32)  # of the emulated GPU
A, PLACE, SCALES = MEMORY.ctypes.data, (0, 0), ([1.0] * 3, [0.0] * 3)
AROUND = 2**62 + 1  # four times this many is 4 in 64 bits


def positions(*levels, n=1, dtype="float32"):
    return [(A, A, level) for level in levels], n, dtype, False


REFUSED_FOR_GPUS = {
    "no levels": ("cosine_distances", (*positions(), [], PLACE), "there must be levels"),
    "a level of no pixel": ("cosine_distances", (*positions((1, 0, 1)), [A], PLACE), "sides must be"),
    "pictures below 0": (
        "cosine_distances",
        (*positions((1, 1, 1), n=-1), [A], PLACE),
        "must not be negative",
    ),
    "doubles": ("cosine_distances", (*positions((1, 1, 1), dtype="float64"), [A], PLACE), "or bfloat16"),
    "no distances": ("cosine_distances", (*positions((1, 1, 1)), [], PLACE), "one output a level"),
    "no room": ("cosine_distances", (*positions((1, 1, 1)), [0], PLACE), "addresses must"),
    "no features": (
        "cosine_distances",
        ([(0, A, (1, 1, 1))], 1, "float32", False, [A], PLACE),
        "addresses must",
    ),
    "many positions": ("cosine_distances", (*positions((1, 2**20, 2**20)), [A], PLACE), "too many"),
    "an overflow": ("cosine_distances", (*positions((1, AROUND, 4)), [A], PLACE), "sides must be"),
    "many channels": ("cosine_distances", (*positions((2**32, 1, 1)), [A], PLACE), "sides must be"),
    "no slopes": ("cosine_gradients", (*positions((1, 1, 1)), [], [A], PLACE), "one of each a level"),
    "no products": (
        "similarity_input",
        (*positions((1, 2, 2), (1, 1, 1)), 0, "float32", A, PLACE),
        "room for the products is missing",
    ),
    "no distances of a map": ("destmap", ([], 1, "float32", A, (1, 1), A, PLACE), "there must be distances"),
    "an overflow of distances": (
        "destmap",
        ([(A, (AROUND, 4))], 1, "float32", A, (1, 1), A, PLACE),
        "sides must",
    ),
    "an overflow of the map": (
        "destmap",
        ([(A, (1, 1))], 1, "float32", A, (AROUND, 4), A, PLACE),
        "sides must",
    ),
    "a coarse level beyond 32 bits": (
        "destmap",
        ([(A, (1, 1)), (A, (2**32 + 1, 1))], 1, "float32", A, (1, 1), A, PLACE),
        "sides must be",
    ),
    "many distances": ("destmap", ([(A, (2**16, 2**15))], 1, "float32", A, (1, 1), A, PLACE), "too many"),
    "no product": ("destmap", ([(A, (1, 1))], 1, "float32", 0, (2, 2), A, PLACE), "room for the product is"),
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
