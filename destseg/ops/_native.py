"""Finds the compiled kernels once, and says when they may be used; nothing else asks whether they exist."""

import functools
import logging
import os
from collections.abc import Sequence
from typing import Any

import torch

logger = logging.getLogger("destseg.ops")


def _find() -> Any:
    if os.environ.get("DESTSEG_EXT") == "0":  # the same switch as at build time: run the references
        return None
    try:
        from destseg import _C
    except ImportError as error:
        logger.warning(
            "destseg runs without its compiled kernels: same results, slower synthesis and metrics (%s)",
            error,
        )
        return None
    return _C


_PLAIN = (torch.Tensor, torch.nn.Parameter)
GPU_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)

kernels = _find()  # the compiled module, or None


def usable(*tensors: torch.Tensor) -> bool:
    """Whether the CPU kernels can take these tensors: compiled, in CPU memory, float32, eager.

    Everything else - meta and fake tensors, half and double precision, torch.compile and torch.export,
    no compiler - belongs to the reference, so that an exported or traced graph holds standard operators only.
    """
    if kernels is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    for tensor in tensors:  # a plain loop: it is asked before every call, for many small tensors
        if type(tensor) not in _PLAIN or not tensor.is_cpu or tensor.dtype != torch.float32:
            return False
    return True


@functools.cache
def gpu_kernels() -> Any:
    """Return the compiled module for NVIDIA GPUs, or None; it is looked for at the first tensor on one."""
    if os.environ.get("DESTSEG_EXT") == "0":
        return None
    try:
        from destseg import _C_cuda
    except ImportError as error:
        logger.warning("destseg runs without its kernels for GPUs: same results, more slowly (%s)", error)
        return None
    return _C_cuda


def usable_on_gpu(*tensors: torch.Tensor, dtypes: Sequence[torch.dtype] = GPU_PRECISIONS) -> bool:
    """Whether the GPU kernels can take these tensors, at least one: on one GPU, of these dtypes, eager."""
    device = tensors[0].device
    if not on_gpu(tensors[0]) or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    for tensor in tensors:
        if type(tensor) not in _PLAIN or tensor.device != device or tensor.dtype not in dtypes:
            return False
    return gpu_kernels() is not None


def on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.is_cuda


def place(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the number of a GPU tensor's device and the address of its current stream."""
    return tensor.get_device(), torch.cuda.current_stream(tensor.device).cuda_stream


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor in CPU memory to a device; to a GPU without waiting for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a dtype as the GPU kernels call it: "float32", "float16", "bfloat16"."""
    return str(dtype).removeprefix("torch.")
