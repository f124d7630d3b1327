"""The kernels for GPUs, each beside its reference and torch.compile: what tools/gpu_steps.py times."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from destseg.model.normalisation import IMAGENET_MEAN, IMAGENET_STD
from destseg.ops.corruption import corrupt, corrupt_ref
from destseg.ops.similarity import similarity_input, similarity_input_ref
from destseg.training.synthesis import draw_corruption

if TYPE_CHECKING:
    from gpu_steps import Job

Call = Callable[[], Any]


class Case(NamedTuple):
    """One kernel on certain inputs."""

    moved: int  # bytes that must be read or written
    ours: Call
    eager: Call
    compiled: Callable[[], Call] | None  # makes the reference compiled by torch; None: it is not asked for
    check: Callable[[], str | None]  # returns how ours differs from the reference, or None


def cases(job: "Job") -> Iterator[tuple[dict[str, Any], Case]]:
    """Yield the names of a case, and the case."""
    for batch in (job.batch, 1):
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            precision = str(dtype).removeprefix("torch.")
            name = {"kernel": "segmentation input", "precision": precision, "pictures": batch}
            yield name, _similarity(job, dtype, batch)
    yield {"kernel": "corruption", "precision": "uint8", "pictures": job.batch}, _corruption(job)


def _similarity(job: "Job", dtype: torch.dtype, batch: int) -> Case:
    shapes = [
        (channels, job.side // cut, job.side // cut) for channels, cut in ((64, 4), (128, 8), (256, 16))
    ]
    torch.manual_seed(0)
    taught, learnt = (
        [
            torch.randn(batch, *shape, device=job.device).relu().to(dtype, memory_format=torch.channels_last)
            for shape in shapes
        ]
        for _ in range(2)
    )
    found = similarity_input(taught, learnt, dtype)
    close = 1e-5 if dtype == torch.float32 else 2e-2

    def compiled() -> Call:
        torch._dynamo.reset()
        backend = "eager" if job.dry else "inductor"
        function = torch.compile(similarity_input_ref, dynamic=False, backend=backend)
        return lambda: function(taught, learnt, dtype)

    used = ((1, torch.float16), (job.batch, torch.bfloat16))  # in scoring and in training
    return Case(
        _bytes(*taught, *learnt, found),
        lambda: similarity_input(taught, learnt, dtype),
        lambda: similarity_input_ref(taught, learnt, dtype),
        compiled if (batch, dtype) in used else None,
        lambda: _difference(found, similarity_input_ref(taught, learnt, dtype), close),
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
        return _difference(found.masked_fill(~same, 0), expected.masked_fill(~same, 0), 1e-5)

    moved = _bytes(pictures, textures, found, masks)
    return Case(moved, lambda: corrupt(*arguments), lambda: corrupt_ref(*arguments), None, check)


def _bytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _difference(found: torch.Tensor, expected: torch.Tensor, close: float) -> str | None:
    try:
        torch.testing.assert_close(found, expected, rtol=close, atol=close)
    except AssertionError as error:
        return " ".join(str(error).split())[:200]
    return None
