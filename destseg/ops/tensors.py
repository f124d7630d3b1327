"""Which tensors the kernels take, and how they take them."""

from collections.abc import Sequence

import torch

from destseg.ops import kernels

_PLAIN = (torch.Tensor, torch.nn.Parameter)
GPU_PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)


def usable(*tensors: torch.Tensor) -> bool:
    """Whether the CPU kernels can take these tensors: compiled, in CPU memory, float32, eager.

    The reference takes everything else: meta and fake tensors, half and double precision, torch.compile and
    torch.export, no compiler. So an exported or traced graph holds standard operators only.
    """
    if kernels.cpu is None or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    for tensor in tensors:  # a plain loop: this runs before every call, for many small tensors
        if type(tensor) not in _PLAIN or not tensor.is_cpu or tensor.dtype != torch.float32:
            return False
    return True


def usable_on_gpu(*tensors: torch.Tensor, dtypes: Sequence[torch.dtype] = GPU_PRECISIONS) -> bool:
    """Whether the GPU kernels can take these tensors (one or more): on one GPU, of one such dtype, eager."""
    first = tensors[0]
    if not on_gpu(first) or first.dtype not in dtypes:
        return False
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    for tensor in tensors:
        if type(tensor) not in _PLAIN or tensor.device != first.device or tensor.dtype != first.dtype:
            return False
    return kernels.gpu() is not None


def on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.is_cuda


def place(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the number of a GPU tensor's device and the address of that device's current stream."""
    return tensor.get_device(), torch.cuda.current_stream(tensor.device).cuda_stream


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor from CPU memory to a device; the CPU does not wait for a GPU."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def name_of(dtype: torch.dtype) -> str:
    """Return the GPU kernels' name of a dtype: "float32", "float16" or "bfloat16"."""
    return str(dtype).removeprefix("torch.")
