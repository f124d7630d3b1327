"""What the compiled functions do with arguments that destseg.ops would not hand them.

They refuse what would corrupt memory, end at once where there is nothing to do, and report what befalls
their threads. `csrc/tests/fuzz.py` looks for what this file forgets.
"""

import math
import subprocess
import sys

import numpy as np
import pytest

from destseg.ops import kernels
from destseg.ops.components import split
from destseg.ops.perlin import perlin
from destseg.ops.ranking import count_above, rank

pytestmark = pytest.mark.skipif(kernels.cpu is None, reason="without the compiled kernels")


def floats(*shape):
    return np.zeros(shape, np.float32)


def doubles(*shape):
    return np.zeros(shape, np.float64)


def integers(*shape):
    return np.zeros(shape, np.int64)


def pixels(*shape):
    return np.zeros(shape, np.uint8)


def labels(*shape):
    return np.zeros(shape, np.int32)


def claimed(dtype, *shape):
    """An array that claims more memory than it has; only good for being refused."""
    memory = np.zeros(1024, dtype)
    interface = {
        "data": (memory.ctypes.data, False),
        "shape": shape,
        "typestr": memory.dtype.str,
        "version": 3,
    }
    return np.asarray(type("Claim", (), {"__array_interface__": interface, "memory": memory})())


def corruption(n=1, height=2, width=3, cells=(1, 1), lattice=4, rotation=0.0):
    inputs = [pixels(n, height, width, 3), pixels(n, height, width, 3), floats(n * lattice)]
    anomalies = [np.tile(np.array(cells, np.int64), (n, 1)), np.full(n, rotation), floats(n)]
    outputs = [floats(n, height, width, 3), pixels(n, height, width)]
    return [*inputs, *anomalies, 0.5, floats(3), floats(3), 2, *outputs]


def features(n=1):
    return [floats(n, 2, 3, 4), floats(n, 5, 2, 2)]


def distances(n=1):
    return [floats(n, 3, 4), floats(n, 2, 2)]


TAKEN = {
    "perlin": lambda: [floats(2, 3), 0.5, floats(4, 5)],
    "corrupt": lambda: corruption(n=2),
    "components": lambda: [pixels(1, 3, 4), True, labels(1, 3, 4)],
    "split": lambda: [floats(2, 3), np.eye(2, 3, dtype=np.uint8), floats(4), floats(2)],
    "rank": lambda: [floats(3), np.array([1, 2]), floats(3), integers(3), doubles(3)],
    "count_above": lambda: [floats(3), floats(2), integers(2), integers(2)],
    "similarity_input": lambda: [features(), features(), False, 2, floats(1, 7, 3, 4)],
    "cosine_distances": lambda: [features(), features(), False, 2, distances()],
    "cosine_gradients": lambda: [features(), features(), False, 2, distances(), features()],
    "destmap": lambda: [distances(), 2, floats(1, 5, 6)],
    "destmap_of_features": lambda: [features(), features(), False, 2, floats(1, 5, 6)],
}


def call(name, arguments):
    return getattr(kernels.cpu, name)(*arguments)


def each_changed(arguments, change):
    """Give the arguments once for every array among them or in their lists, with that array changed."""
    for k, argument in enumerate(arguments):
        if isinstance(argument, np.ndarray):
            if change not in (misplaced, swapped) or argument.itemsize > 1:
                yield [*arguments[:k], change(argument), *arguments[k + 1 :]]
        elif isinstance(argument, list):
            for changed in each_changed(argument, change):
                yield [*arguments[:k], changed, *arguments[k + 1 :]]


def misplaced(array):
    """The array at an address that is no multiple of its items' size."""
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    return memory.view(array.dtype).reshape(array.shape)


def swapped(array):
    """The array with the bytes of its items in the other order."""
    return array.astype(array.dtype.newbyteorder())


def strided(array):
    return np.repeat(array, 2, axis=-1)[..., ::2]


def half(array):
    return array.astype(np.float16)


def listed(array):
    return array.tolist()


def missing(_):
    return None


@pytest.mark.parametrize("name", TAKEN)
def test_every_function_takes_what_it_is_for(name):
    assert set(TAKEN) == {name for name in dir(kernels.cpu) if not name.startswith("_")}
    call(name, TAKEN[name]())


@pytest.mark.parametrize("change", [misplaced, swapped, strided, half, listed, missing])
@pytest.mark.parametrize("name", TAKEN)
def test_arrays_are_taken_as_they_are_or_refused(name, change):
    for arguments in each_changed(TAKEN[name](), change):
        with pytest.raises(
            (TypeError, ValueError), match=r"aligned|incompatible function arguments|contiguous"
        ):
            call(name, arguments)


@pytest.mark.parametrize("name", TAKEN)
def test_arrays_are_no_lists_of_arrays(name):
    """An empty one may have more items than there is memory or time for."""
    arguments = TAKEN[name]()
    for k, argument in enumerate(arguments):
        if isinstance(argument, list):
            with pytest.raises(TypeError, match="incompatible function arguments"):
                call(name, [*arguments[:k], floats(2**31, 0, 65536), *arguments[k + 1 :]])


@pytest.mark.parametrize("name", TAKEN)
def test_outputs_that_must_not_be_written_are_refused(name):
    outputs = {"corrupt": 2, "split": 2, "rank": 3, "count_above": 2}.get(name, 1)
    for k in range(1, outputs + 1):
        arguments = TAKEN[name]()
        for array in arguments[-k] if isinstance(arguments[-k], list) else [arguments[-k]]:
            array.flags.writeable = False
        with pytest.raises(ValueError, match="not writeable"):
            call(name, arguments)


INF, NAN, BORDER = math.inf, math.nan, 2**31
REFUSED = {
    "too few sizes' positives": ("rank", [floats(0), np.full(4, 2**62), floats(0), integers(0), doubles(0)]),
    "sizes below zero": ("rank", [floats(1), np.array([2, -1]), floats(1), integers(1), doubles(1)]),
    "no room for counts": ("rank", [floats(1), np.array([1]), floats(1), integers(0), doubles(1)]),
    "no room for at_or_above": ("count_above", [floats(1), floats(2), integers(2), integers(1)]),
    "angles of no cell": ("perlin", [floats(1, 5), 0.0, floats(2, 2)]),
    "angles of more cells than 32 bits count": (
        "perlin",
        [claimed(np.float32, 2, BORDER), 0.0, floats(2, 2)],
    ),
    "more columns of noise": ("perlin", [floats(2, 2), 0.0, claimed(np.float32, 1, BORDER)]),
    "no rotation": ("perlin", [floats(2, 2), NAN, floats(2, 2)]),
    "an endless rotation": ("corrupt", corruption(rotation=INF)),
    "cells of no picture": ("corrupt", [*corruption()[:3], integers(0, 2), *corruption()[4:]]),
    "no cells": ("corrupt", corruption(cells=(0, 1), lattice=2)),
    "cells below zero": ("corrupt", corruption(cells=(-3, -3))),
    "cells whose number overflows to 0": ("corrupt", corruption(cells=(2**63 - 1, 2**63 - 1), lattice=0)),
    "cells whose angles overflow to 0": ("corrupt", corruption(cells=(2**32 - 1, 2**32 - 1), lattice=0)),
    "too few angles": ("corrupt", corruption(cells=(1, 2))),
    "too many angles": ("corrupt", corruption(lattice=5)),
    "masks too small": ("corrupt", [*corruption()[:-1], pixels(1, 2, 2)]),
    "masks too long for 32 bits": (
        "components",
        [claimed(np.uint8, 1, 1, BORDER - 8), True, claimed(np.int32, 1, 1, BORDER - 8)],
    ),
    "masks of too many pixels": (
        "components",
        [claimed(np.uint8, 1, 2**16, 2**16), True, claimed(np.int32, 1, 2**16, 2**16)],
    ),
    "labels too small": ("components", [pixels(2, 2, 2), True, labels(7)]),
    "positives too small": ("split", [floats(1, 2), np.ones((1, 2), np.uint8), floats(1), floats(1)]),
    "normals too small": ("split", [floats(1, 2), pixels(1, 2), floats(1), floats(0)]),
    "normals of no picture": ("split", [floats(0, 2), pixels(0, 2), floats(1), floats(0)]),
    "no levels": ("cosine_distances", [[], [], True, 1, []]),
    "a level without a student": ("cosine_distances", [features(), features()[:1], True, 1, distances()]),
    "a level of no pixel": ("cosine_distances", [[floats(1, 2, 0, 3)]] * 2 + [False, 1, [floats(0)]]),
    "levels of other batches": (
        "similarity_input",
        [[floats(1, 1, 1, 1), floats(2, 1, 1, 1)]] * 2 + [False, 1, floats(2)],
    ),
    "rows of features beyond 32 bits": (
        "cosine_distances",
        [[claimed(np.float32, 1, 1, BORDER, 1)]] * 2 + [False, 1, [claimed(np.float32, 1, BORDER, 1)]],
    ),
    "an input whose size overflows to 0": (
        "similarity_input",
        [[claimed(np.float32, 1, 1, 2**30, 16), claimed(np.float32, 1, 2**30 - 1, 1, 1)]] * 2
        + [False, 1, floats(0)],
    ),
    "slopes too small": (
        "cosine_gradients",
        [features(), features(), False, 1, [floats(12), floats(3)], features()],
    ),
    "gradients too small": (
        "cosine_gradients",
        [features(), features(), False, 1, distances(), [floats(24)] * 2],
    ),
    "distances without pixels": ("destmap", [[floats(1, 0, 3)], 1, floats(1, 2, 2)]),
    "rows of distances beyond 32 bits": (
        "destmap",
        [[claimed(np.float32, 1, BORDER, 1)], 1, floats(1, 2, 2)],
    ),
    "a map of other pictures": ("destmap_of_features", [features(), features(), False, 1, floats(2, 2, 2)]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_corrupt_memory_is_refused(case):
    name, arguments = REFUSED[case]
    with pytest.raises(ValueError, match=r"must"):
        call(name, arguments)


def alone(code, before="true"):
    """Run Python code in a process of its own, which may crash, hang or run out of memory."""
    command = ["sh", "-c", f'{before} && exec "$0" -c "$1"', sys.executable, code]
    # Elsewhere than here: the installed package is meant, and this folder's may have no compiled functions.
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


# Every function with arrays that are empty and have a side that no loop reaches the end of.
ENDLESS = """
import faulthandler
import numpy as np
from destseg import _C

def floats(*shape):
    return np.zeros(shape, np.float32)

def pixels(*shape):
    return np.zeros(shape, np.uint8)

faulthandler.dump_traceback_later(60, exit=True)
long, none, lattice, scale = 2**40, floats(0), floats(2, 2), floats(3)
for shape in (long, 0, 0), (1, long, 0), (1, 0, long), (0, 1, long):
    _C.components(pixels(*shape), True, np.zeros(shape, np.int32))
for shape in (long, 0), (0, long):
    _C.split(floats(*shape), pixels(*shape), none, none)
    _C.perlin(lattice, 0.5, floats(*shape))
    pictures, corrupted, masks = pixels(1, *shape, 3), floats(1, *shape, 3), pixels(1, *shape)
    anomaly = lattice, np.ones((1, 2), np.int64), np.zeros(1), floats(1)
    _C.corrupt(pictures, pictures, *anomaly, 0.5, scale, scale, 2, corrupted, masks)
    _C.destmap([floats(1, 2, 2)], 2, floats(1, *shape))
    _C.destmap_of_features([floats(1, 1, 2, 2)], [floats(1, 1, 2, 2)], False, 2, floats(1, *shape))
level = [floats(0, 1, 2**30, 1)]
_C.similarity_input(level, level, False, 2, none)
_C.cosine_distances(level, level, False, 2, [none])
_C.cosine_gradients(level, level, False, 2, [none], [none])
_C.destmap([floats(0, 2**30, 1)], 2, floats(0, 1, 1))
_C.destmap_of_features(level, level, False, 2, floats(0, 1, 1))
"""


def test_there_is_nothing_to_do_for_empty_arrays_however_long_their_sides():
    found = alone(ENDLESS)
    assert (found.stderr, found.returncode) == ("", 0)


# Corrupts 16 pictures of one pixel on 16 threads, with as much address space left as `room` says, in MiB.
SHORT_OF_MEMORY = """
import resource
import numpy as np
from destseg import _C

n, cells, room = 16, {cells}, {room} << 20
pictures, cells = np.full((n, 1, 1, 3), 100, np.uint8), np.full((n, 2), cells)
angles = np.zeros((cells + 1).prod(axis=1).sum(), np.float32)
anomalies = angles, cells, np.zeros(n), np.zeros(n, np.float32)
affine, corrupted = [np.ones(3, np.float32)] * 2, np.zeros((n, 1, 1, 3), np.float32)
in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + room, in_use + room))
try:
    _C.corrupt(pictures, pictures, *anomalies, 0.5, *affine, n, corrupted, pictures[..., 0].copy())
except MemoryError:
    print("no memory")
else:
    print(np.unique(corrupted))
"""

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits a process as Linux does")


@on_linux
def test_threads_that_cannot_start_leave_their_work_to_the_others():
    stacks_of_256_mib = "ulimit -S -s 262144"
    found = alone(SHORT_OF_MEMORY.format(cells=1, room=640), before=stacks_of_256_mib)
    assert (found.stdout, found.stderr, found.returncode) == ("[101.]\n", "", 0)


@on_linux
def test_memory_that_a_thread_does_not_get_is_an_error_of_the_call():
    found = alone(SHORT_OF_MEMORY.format(cells=2000, room=160))
    assert (found.stdout, found.stderr, found.returncode) == ("no memory\n", "", 0)


def test_operations_copy_arrays_at_addresses_that_the_kernels_refuse():
    random = np.random.default_rng(0)
    scores, mask = random.random((5, 6)).astype(np.float32), random.random((5, 6)) < 0.5
    sizes, rising = np.array([10, 20]), np.sort(scores.ravel())

    def moved(array):
        copy = misplaced(array)
        copy[...] = array
        return copy

    def results(as_given):
        normals = np.empty((~mask).sum(), np.float32)
        yield from split(as_given(scores), mask, normals)
        yield from rank(as_given(scores.ravel()), as_given(sizes))
        yield from count_above(as_given(rising), as_given(rising[::-3].copy()))
        yield perlin(as_given(scores), (7, 8))

    for found, expected in zip(results(moved), results(np.copy), strict=True):
        assert np.array_equal(found, expected)
