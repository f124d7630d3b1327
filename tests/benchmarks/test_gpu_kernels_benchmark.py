"""The kernels for GPUs beside the floor that memory sets, eager torch and torch.compile, all in one run.

Each entry first checks that all agree, then is timed. The floor counts every input read once and every output
written once, at the bandwidth that a copy reaches in the same run; `extra_info` gives it with the ratios.
"""

import numpy as np
import pytest
import torch
from gpu import copy_bandwidth, milliseconds

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

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SHAPES = ((64, 64, 64), (128, 32, 32), (256, 16, 16))  # (c, h, w) of each level of a 256 x 256 picture
ORDERS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


@pytest.fixture(scope="module")
def bandwidth() -> float:
    return copy_bandwidth()


def bytes_of(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def gradients(distances_of):
    def run(taught, learnt):
        levels = [level.detach().requires_grad_() for level in learnt]
        return torch.autograd.grad(cosine_loss(distances_of(taught, levels)), levels)

    return run


OPERATIONS = {  # ours and the reference
    "segmentation input": (
        lambda t, s: [similarity_input(t, s, t[0].dtype)],
        lambda t, s: [similarity_input_ref(t, s, t[0].dtype)],
    ),
    "distances": (cosine_distances, cosine_distances_ref),
    "loss and gradients": (gradients(cosine_distances), gradients(cosine_distances_ref)),
}


def report(benchmark, bandwidth, moved, ours, rivals):
    """Time ours and its rivals, and write down what the comparison asks for."""
    taken = milliseconds(ours)
    benchmark.extra_info |= {
        "GPU": torch.cuda.get_device_name(),
        "copy, GB/s": round(bandwidth / 1e9),
        "ms": round(taken, 4),
        "floor, ms": round(moved / bandwidth * 1e3, 4),
        "share of the copy's bandwidth": round(moved / bandwidth * 1e3 / taken, 3),
    }
    for name, rival in rivals.items():
        benchmark.extra_info[f"{name} takes times as long"] = round(milliseconds(rival) / taken, 2)
    benchmark.pedantic(lambda: (ours(), torch.cuda.synchronize()), rounds=50, warmup_rounds=5)


@pytest.mark.parametrize("batch", [1, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_similarity(benchmark, bandwidth, operation, order, dtype, batch):
    ours, reference = OPERATIONS[operation]
    torch.manual_seed(0)
    taught, learnt = (
        [torch.randn(batch, *s, device="cuda").relu().to(dtype, memory_format=ORDERS[order]) for s in SHAPES]
        for _ in range(2)
    )
    rivals = {"eager": reference}
    if operation != "loss and gradients":
        torch._dynamo.reset()
        rivals["torch.compile"] = torch.compile(reference, dynamic=False)
    found, expected = ours(taught, learnt), reference(taught, learnt)
    close = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(list(found), list(expected), rtol=close, atol=close)
    # The gradient's pass reads the features a second time: nothing but they is kept for it.
    passes = 2 if operation == "loss and gradients" else 1
    calls = {name: lambda rival=rival: rival(taught, learnt) for name, rival in rivals.items()}
    moved = passes * bytes_of(*taught, *learnt) + bytes_of(*found)
    report(benchmark, bandwidth, moved, lambda: ours(taught, learnt), calls)


@pytest.mark.parametrize("batch", [1, 32])
def test_destmap(benchmark, bandwidth, batch):
    distances = [torch.rand(batch, 1, h, w, device="cuda") for _, h, w in SHAPES]
    found = destmap(distances, (256, 256))
    torch.testing.assert_close(found, destmap_ref(distances, (256, 256)), rtol=1e-5, atol=1e-5)
    rivals = {"eager": lambda: destmap_ref(distances, (256, 256))}
    moved = bytes_of(found, *distances)
    report(benchmark, bandwidth, moved, lambda: destmap(distances, (256, 256)), rivals)


def test_corruption_of_a_batch(benchmark, bandwidth):
    random = np.random.default_rng(0)
    corruptions = [draw_corruption(random) for _ in range(32)]
    pictures, textures = (
        torch.randint(0, 256, (32, 256, 256, 3), dtype=torch.uint8, device="cuda") for _ in range(2)
    )
    arguments = (pictures, textures, corruptions, IMAGENET_MEAN, IMAGENET_STD)
    (found, masks), (expected, expected_masks) = corrupt(*arguments), corrupt_ref(*arguments)
    same = masks == expected_masks
    assert same.float().mean() > 0.9999
    assert (found - expected).abs().masked_fill(~same, 0).max() < 1e-5
    moved = bytes_of(pictures, textures, found, masks)
    report(
        benchmark, bandwidth, moved, lambda: corrupt(*arguments), {"eager": lambda: corrupt_ref(*arguments)}
    )
