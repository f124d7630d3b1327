"""Which tensors the kernels take, and how they are handed over."""

from collections.abc import Sequence

import torch

from destseg.ops import kernels

_PLAIN = (torch.Tensor, torch.nn.Parameter)
GPU_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)


def usable(*tensors: torch.Tensor) -> bool:
    """Whether the CPU kernels can take these tensors: compiled, in CPU memory, float32, eager.

    Everything else - meta and fake tensors, half and double precision, torch.compile and torch.export,
    no compiler - belongs to the reference, so that an exported or traced graph holds standard operators only.
    """
    if kernels.cpu is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    for tensor in tensors:  # a plain loop: it is asked before every call, for many small tensors
        if type(tensor) not in _PLAIN or not tensor.is_cpu or tensor.dtype != torch.float32:
            return False
    return True


def usable_on_gpu(*tensors: torch.Tensor, dtypes: Sequence[torch.dtype] = GPU_PRECISIONS) -> bool:
    """Whether the GPU kernels can take these tensors, at least one: on one GPU, of these dtypes, eager."""
    device = tensors[0].device
    if not on_gpu(tensors[0]) or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    for tensor in tensors:
        if type(tensor) not in _PLAIN or tensor.device != device or tensor.dtype not in dtypes:
            return False
    return kernels.gpu() is not None


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
