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


_PLAIN, _PRECISIONS = (torch.Tensor, torch.nn.Parameter), (torch.float32, torch.float64)

kernels = _find()  # the compiled module, or None


def usable(*tensors: torch.Tensor) -> bool:
    """Whether the CPU kernels can take these tensors: compiled, in CPU memory, float32 or float64, eager.

    Everything else - meta and fake tensors, half precision, torch.compile and torch.export, no compiler -
    belongs to the reference, so that an exported or traced graph holds standard operators only.
    """
    if kernels is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    for tensor in tensors:  # a plain loop: it is asked before every call, for many small tensors
        if type(tensor) not in _PLAIN or not tensor.is_cpu or tensor.dtype not in _PRECISIONS:
            return False
    return True
