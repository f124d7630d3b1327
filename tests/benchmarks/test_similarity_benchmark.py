"""Similarity of a 256 x 256 picture's features beside its reference, eager and through torch.compile.

Each entry first checks that all agree, then is timed; `extra_info` says how many times as long the rivals'
median call takes, theirs and ours in turn.
"""

import pytest
import torch

from destseg.ops.destmap import destmap_of_features, destmap_of_features_ref
from destseg.ops.similarity import (
    cosine_distances,
    cosine_distances_ref,
    similarity_input,
    similarity_input_ref,
)
from destseg.training.losses import cosine_loss

SHAPES = ((64, 64, 64), (128, 32, 32), (256, 16, 16))  # (c, h, w) of each level
ORDERS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def loss_and_gradients(distances_of):
    def run(taught, learnt):
        learnt = [level.detach().requires_grad_() for level in learnt]
        loss = cosine_loss(distances_of(taught, learnt))
        return (loss.detach(), *torch.autograd.grad(loss, learnt))

    return run


OPERATIONS = {  # ours and the reference
    "segmentation input": (similarity_input, similarity_input_ref),
    "distances": (cosine_distances, cosine_distances_ref),
    "destmap at 256 x 256": (
        lambda taught, learnt: destmap_of_features(taught, learnt, (256, 256)),
        lambda taught, learnt: destmap_of_features_ref(taught, learnt, (256, 256)),
    ),
    "loss and gradients": (loss_and_gradients(cosine_distances), loss_and_gradients(cosine_distances_ref)),
}


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_similarity(benchmark, compare, operation, order, batch, threads):
    benchmark.group = f"{operation}, {order}, batch of {batch}, {threads} threads"
    ours, reference = OPERATIONS[operation]
    torch.manual_seed(0)
    taught, learnt = (
        [torch.randn(batch, *shape).relu().contiguous(memory_format=ORDERS[order]) for shape in SHAPES]
        for _ in range(2)
    )
    rivals = {"reference": reference}
    if threads == 2 and operation != "loss and gradients":
        torch._dynamo.reset()
        rivals["torch.compile"] = torch.compile(reference, dynamic=False)

    expected = reference(taught, learnt)
    for candidate in (ours, *rivals.values()):
        torch.testing.assert_close(candidate(taught, learnt), expected, rtol=1e-5, atol=1e-5)
    for name, rival in rivals.items():
        compare(name, lambda: ours(taught, learnt), lambda rival=rival: rival(taught, learnt))
    benchmark.pedantic(ours, (taught, learnt), rounds=100, warmup_rounds=5)
