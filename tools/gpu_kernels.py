"""The kernels for GPUs, each beside its reference and torch.compile: what tools/gpu_steps.py times."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from destseg.model.normalisation import IMAGENET_MEAN, IMAGENET_STD
from destseg.ops.corruption import corrupt, corrupt_ref
from destseg.ops.destmap import destmap, destmap_ref
from destseg.ops.similarity import (
    cosine_distances,
    cosine_distances_ref,
    similarity_input,
    similarity_input_ref,
)
from destseg.training.losses import cosine_loss
from destseg.training.synthesis import draw_corruption

if TYPE_CHECKING:
    from gpu_steps import Job

Call = Callable[[], Any]

ORDERS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}


class Case(NamedTuple):
    """One kernel on certain inputs."""

    moved: int  # bytes that must be read or written
    ours: Call
    eager: Call
    compiled: Callable[[], Call] | None  # makes the reference compiled by torch; None: it is not asked for
    check: Callable[[], str | None]  # returns how ours differs from the reference, or None


def cases(job: "Job") -> Iterator[tuple[dict[str, Any], Case]]:
    """Yield the names of a case, and the case; those that training and scoring use come first."""
    for order in ORDERS:
        for batch in (job.batch, 1):
            for dtype in (torch.bfloat16, torch.float16, torch.float32):
                for operation in OPERATIONS:
                    precision = str(dtype).removeprefix("torch.")
                    name = {"kernel": operation, "order": order, "precision": precision, "pictures": batch}
                    yield name, _similarity(job, operation, order, dtype, batch)
    for batch in (job.batch, 1):
        yield (
            {"kernel": "DeST map", "order": "", "precision": "float32", "pictures": batch},
            _destmap(job, batch),
        )
    name = {"kernel": "corruption", "order": "", "precision": "uint8", "pictures": job.batch}
    yield name, _corruption(job)


def _gradients(distances_of: Callable[..., Any]) -> Callable[..., Any]:
    def run(taught: list[torch.Tensor], learnt: list[torch.Tensor]) -> Any:
        levels = [level.detach().requires_grad_() for level in learnt]
        return torch.autograd.grad(cosine_loss(distances_of(taught, levels)), levels)

    return run


OPERATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {  # ours and the reference
    "segmentation input": (
        lambda t, s: [similarity_input(t, s, t[0].dtype)],
        lambda t, s: [similarity_input_ref(t, s, t[0].dtype)],
    ),
    "distances": (cosine_distances, cosine_distances_ref),
    "loss and gradients": (_gradients(cosine_distances), _gradients(cosine_distances_ref)),
}


def _compile(job: "Job", function: Callable[..., Any]) -> Callable[..., Any]:
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False, backend="eager" if job.dry else "inductor")


def _similarity(job: "Job", operation: str, order: str, dtype: torch.dtype, batch: int) -> Case:
    ours, reference = OPERATIONS[operation]
    shapes = [
        (channels, job.side // cut, job.side // cut) for channels, cut in ((64, 4), (128, 8), (256, 16))
    ]
    torch.manual_seed(0)
    taught, learnt = (
        [
            torch.randn(batch, *shape, device=job.device).relu().to(dtype, memory_format=ORDERS[order])
            for shape in shapes
        ]
        for _ in range(2)
    )
    found = ours(taught, learnt)
    # The gradient's pass reads the features a second time: nothing but they is kept for it.
    passes = 2 if operation == "loss and gradients" else 1
    close = 1e-5 if dtype == torch.float32 else 2e-2

    def compiled() -> Call:
        if operation == "loss and gradients":
            function = _gradients(_compile(job, cosine_distances_ref))
        else:
            function = _compile(job, reference)
        return lambda: function(taught, learnt)

    used = ((1, torch.float16), (job.batch, torch.bfloat16))  # in scoring and in training
    return Case(
        passes * _bytes(*taught, *learnt) + _bytes(*found),
        lambda: ours(taught, learnt),
        lambda: reference(taught, learnt),
        compiled if order == "channels last" and (batch, dtype) in used else None,
        lambda: _difference(found, reference(taught, learnt), close),
    )


def _destmap(job: "Job", batch: int) -> Case:
    size = (job.side, job.side)
    distances = [
        torch.rand(batch, 1, job.side // cut, job.side // cut, device=job.device) for cut in (4, 8, 16)
    ]
    found = destmap(distances, size)

    def compiled() -> Call:
        function = _compile(job, destmap_ref)
        return lambda: function(distances, size)

    return Case(
        _bytes(found, *distances),
        lambda: destmap(distances, size),
        lambda: destmap_ref(distances, size),
        compiled,
        lambda: _difference([found], [destmap_ref(distances, size)], 1e-5),
    )


def _corruption(job: "Job") -> Case:
    random = np.random.default_rng(0)
    corruptions = [draw_corruption(random) for _ in range(job.batch)]
    pictures, textures = (
        torch.randint(0, 256, (job.batch, job.side, job.side, 3), dtype=torch.uint8, device=job.device)
        for _ in range(2)
    )
    arguments = (pictures, textures, corruptions, IMAGENET_MEAN, IMAGENET_STD)
    found, masks = corrupt(*arguments)

    def check() -> str | None:
        expected, expected_masks = corrupt_ref(*arguments)
        same = masks == expected_masks
        if same.float().mean() <= 0.999:  # all but ties
            return f"masks differ in {(~same).float().mean():.2g} of the pixels"
        return _difference([found.masked_fill(~same, 0)], [expected.masked_fill(~same, 0)], 1e-5)

    moved = _bytes(pictures, textures, found, masks)
    return Case(moved, lambda: corrupt(*arguments), lambda: corrupt_ref(*arguments), None, check)


def _bytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _difference(found: Any, expected: Any, close: float) -> str | None:
    try:
        torch.testing.assert_close(list(found), list(expected), rtol=close, atol=close)
    except AssertionError as error:
        return " ".join(str(error).split())[:200]
    return None
