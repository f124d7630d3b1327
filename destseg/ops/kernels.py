"""Finds the compiled kernels once; no other module asks whether they exist. Needs no torch."""

import functools
import logging
import os
import sys
from typing import Any, TypeVar

import numpy as np

Array = TypeVar("Array", bound=np.ndarray)

logger = logging.getLogger("destseg.ops")


def _find() -> Any:
    if os.environ.get("DESTSEG_EXT") == "0":  # the same switch as at build time: run the references
        return None
    try:
        from destseg import _C
    except ImportError as error:
        logger.warning("destseg runs without its compiled kernels, and more slowly (%s)", error)
        return None
    return _C


cpu = _find()  # the compiled module, or None


@functools.cache
def gpu() -> Any:
    """Return the compiled module for NVIDIA GPUs, or None; the first tensor on a GPU makes it look."""
    if os.environ.get("DESTSEG_EXT") == "0":
        return None
    try:
        from destseg import _C_cuda
    except ImportError as error:
        logger.warning("destseg runs without its kernels for GPUs, and more slowly (%s)", error)
        return None
    return _C_cuda


def lay_out(array: Array) -> Array:
    """Return an array as the kernels take it, contiguous and aligned; a copy only if it is not."""
    return np.require(array, requirements=["C", "A"])  # type: ignore[return-value]


def thread_count() -> int:
    """Return how many threads an operation may use.

    That is torch's number where torch is loaded, else OMP_NUM_THREADS where it is set, else one per core.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
