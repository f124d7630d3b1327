"""Finds the compiled kernels once, and says when they may be used; nothing else asks whether they exist."""

import logging
import os
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


kernels = _find()  # the compiled module, or None


def usable(*tensors: torch.Tensor) -> bool:
    """Whether the CPU kernels can take these tensors: compiled, in CPU memory, float32 or float64, eager.

    Everything else - meta and fake tensors, half precision, torch.compile and torch.export, no compiler -
    belongs to the reference, so that an exported or traced graph holds standard operators only.
    """
    if kernels is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return all(
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.is_cpu
        and tensor.dtype in (torch.float32, torch.float64)
        for tensor in tensors
    )
