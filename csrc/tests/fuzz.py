"""Calls every compiled function with random and hostile arguments; csrc/tests/run builds it with sanitizers.

Arguments that a function must take are drawn first, and its results are compared with its reference's. Then
some of the arguments are replaced: by other shapes, dtypes, addresses, orders and values, by empty arrays of
long sides, by one another, by what is no array at all. The function must take them or raise TypeError or
ValueError; the sanitizers see to the rest. Calls are made in blocks, each in a process of its own. If one
crashes or never ends, its block is made again, and the call is printed. All randomness comes from the number
of the block.
"""

import argparse
import collections
import contextlib
import importlib.util
import json
import os
import pathlib
import resource
import sys
import tempfile
import time
import traceback

import numpy as np
import torch

sys.path.insert(
    0, str(pathlib.Path(__file__).resolve().parents[2])
)  # this checkout's package: its references

from calls import FUNCTIONS, LONG, Draw

BLOCK = 5000  # calls
BLOCK_SECONDS = 60  # of processor time; a block that takes longer has a call that never ends
HOSTILE = 12  # calls after one with valid arguments

INTEGERS = (-(2**63), -(2**62), -(2**31), -1, 0, 1, 2, 2**31, 2**32 - 1, 2**62, 2**63 - 1)
FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 5e-324, 1e-40, -1.5, 3e38, 1e308)
DTYPES = ("?", "u1", "i1", "i4", "i8", "u8", "f2", "f4", "f8", "c16", ">f4", ">i8", "M8[s]", "S1", "O", "V3")


def reshaped(draw, array):
    """A new array of nearly the same shape, or an empty one, perhaps with long sides."""
    shape = list(array.shape) or [1]
    place = draw.randrange(len(shape))
    shape[place] = draw.choice((0, 1, shape[place] + 1, max(shape[place] - 1, 0), 2 * shape[place]))
    shape = draw.choice((shape, shape, shape[::-1], shape[1:], [1, *shape], [2, *shape]))
    if shape and (draw.random() < 0.4 or max(shape) >= min(LONG)):
        shape = [draw.choice((side, side, *LONG)) for side in shape]
        shape[draw.randrange(len(shape))] = 0
    try:
        return np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)
    except ValueError:  # of more bytes than 64 bits count
        return np.zeros(0, array.dtype)


def revalued(draw, array):
    """The array with hostile values in one place or everywhere."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            value = np.array(draw.choice(FLOATS)).astype(array.dtype)
    else:
        limits = np.iinfo(array.dtype)
        value = min(max(draw.choice(INTEGERS), limits.min), limits.max)
    array, everywhere = array.copy(), draw.random() < 0.3
    array.reshape(-1)[slice(None) if everywhere else draw.randrange(array.size)] = value
    return array


def relaid(draw, array):
    """The array strided, turned, in Fortran's order, at an odd address, or with no right to write."""
    change = draw.randrange(5)
    if change == 0:
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if change == 1:
        return array[::-1]
    if change == 2:
        return np.asfortranarray(array)
    if change == 3:
        memory = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        memory[...] = array
        return memory
    fixed = array.copy()
    fixed.flags.writeable = False
    return fixed


def hostile_array(draw, array):
    change = draw.random()
    if change < 0.45 or array.size == 0 or array.ndim == 0:
        return reshaped(draw, array)
    if change < 0.7 and array.dtype.kind in "iuf":
        return revalued(draw, array)
    if change < 0.9 and array.dtype.kind in "iuf":
        return relaid(draw, array)
    return np.zeros(array.shape, draw.choice(DTYPES))


def hostile(draw, argument, others):
    """What comes in place of an argument."""
    if draw.random() < 0.05:
        return draw.choice((None, 0, "x", b"", [], (), 0.5, True, object(), np.float32(1), *others))
    if isinstance(argument, np.ndarray):
        return hostile_array(draw, argument)
    if isinstance(argument, list) and argument:
        place = draw.randrange(len(argument))
        instead = [hostile(draw, argument[place], argument)] * draw.choice((0, 1, 1, 1, 1, 2, 3))
        return argument[:place] + instead + argument[place + 1 :]
    if isinstance(argument, bool):
        return not argument
    return draw.choice(INTEGERS if isinstance(argument, int) else FLOATS)


def has_empty(arguments):
    return any(has_empty(one) if isinstance(one, list) else np.size(one) == 0 for one in arguments)


def assert_close(pairs):
    for found, expected in pairs:
        found, expected = np.asarray(found), np.asarray(expected)
        assert found.shape == expected.shape, f"shape {found.shape}, not {expected.shape}"
        if found.dtype.kind == "f" and found.size:
            error, largest = np.abs(found - expected).max(), np.abs(expected).max()
            assert error <= 1e-4 * max(1, largest), f"{error} off, of up to {largest}"
        else:
            assert np.array_equal(found, expected), "other integers"


def described(argument):
    if isinstance(argument, list):
        return f"[{', '.join(described(one) for one in argument)}]"
    if not isinstance(argument, np.ndarray):
        return repr(argument)
    values = f" {argument.tolist()}" if 0 < argument.size <= 16 else ""
    layout = [name for name in ("CONTIGUOUS", "ALIGNED", "WRITEABLE") if argument.flags[name]]
    return f"{argument.dtype}{argument.shape} {'|'.join(layout)}{values}"


def make_calls(module, block, say):
    """Make the calls of one block; return how many were made of each function, taken and compared."""
    draw, counts = Draw(block), collections.Counter()

    def call(name, arguments):
        say(name, arguments)
        counts["made"] += 1
        counts[f"{name} made"] += 1
        returned = getattr(module, name)(*arguments)
        counts[f"{name} taken"] += 1
        return returned

    while counts["made"] < BLOCK:
        name = draw.choice(tuple(FUNCTIONS))
        draw_arguments, check = FUNCTIONS[name]
        valid = draw_arguments(draw)
        if not has_empty(valid):
            assert_close(check(valid, call(name, valid)))
            counts[f"{name} compared"] += 1
        for k in range(HOSTILE):
            arguments = list(valid)
            for _ in range(1 + k % 2 if k else 0):
                place = draw.randrange(len(arguments))
                arguments[place] = hostile(draw, arguments[place], arguments)
            with contextlib.suppress(TypeError, ValueError):
                call(name, arguments)
    return counts


def run_block(module, block, say=lambda name, arguments: None):
    """Make the calls of one block in a child process; return what it counted, or None if it failed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (BLOCK_SECONDS, BLOCK_SECONDS))
            os.write(write, json.dumps(make_calls(module, block, say)).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        counts = pipe.read()
    _, status = os.waitpid(child, 0)
    return json.loads(counts) if status == 0 else None


def last_call(module, block):
    """Make the calls of a block that failed once more; return the last one."""
    with tempfile.TemporaryFile("w+") as record:

        def say(name, arguments):
            record.seek(0)
            record.truncate()
            record.write(f"{name}({', '.join(map(described, arguments))})")
            record.flush()

        run_block(module, block, say)
        record.seek(0)
        return record.read()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("module", help="path of the compiled module")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="how long to go on")
    parser.add_argument("--executions", type=float, default=float("inf"), help="how many calls to make")
    parser.add_argument("--block", type=int, default=0, help="the first block of calls")
    chosen = parser.parse_args()
    specification = importlib.util.spec_from_file_location("_C", chosen.module)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    assert set(FUNCTIONS) == {name for name in dir(module) if not name.startswith("_")}
    torch.set_num_threads(1)
    np.set_printoptions(override_repr=lambda _: "array")  # a TypeError prints all arguments, which takes long

    counts, start, block = collections.Counter(), time.monotonic(), chosen.block
    while time.monotonic() - start < chosen.seconds and counts["made"] < chosen.executions:
        found = run_block(module, block)
        if found is None:
            raise SystemExit(f"block {block} failed, in {last_call(module, block)}")
        counts.update(found)
        block += 1
    for name in FUNCTIONS:
        numbers = (f"{counts[f'{name} {kind}']:9} {kind}" for kind in ("made", "taken", "compared"))
        print(f"{name:20}", *numbers)
    seconds = time.monotonic() - start
    print(f"{counts['made']} calls in {seconds:.0f} s, blocks {chosen.block} to {block - 1}: no findings")


if __name__ == "__main__":
    main()
