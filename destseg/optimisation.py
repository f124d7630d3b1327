"""How the stages of training descend: their optimisers, and the average of what they pass by."""

from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.swa_utils import AveragedModel

from destseg.networks import DeSTSegNet

STUDENT_RATE = 0.4
RESIDUAL_RATE, HEAD_RATE = 0.1, 0.01  # of the segmentation network
LIGHT_HEAD_RATE = 0.1  # of the light one, whose head learns too little at the published rate


def student_optimizer(network: DeSTSegNet) -> Optimizer:
    return _descent([(network.student_net, STUDENT_RATE)])


def segmentation_optimizer(network: DeSTSegNet) -> Optimizer:
    assert network.segmentation_net is not None  # the trainer skips the stage without it
    head_rate = LIGHT_HEAD_RATE if network.light else HEAD_RATE
    return _descent(
        [(network.segmentation_net.res, RESIDUAL_RATE), (network.segmentation_net.head, head_rate)]
    )


def _descent(parts: list[tuple[nn.Module, float]]) -> Optimizer:
    """Return the optimiser of some parts of a network, each at a rate of its own."""
    groups: list[dict[str, Any]] = [{"params": list(part.parameters()), "lr": rate} for part, rate in parts]
    on_gpu = groups[0]["params"][0].is_cuda
    return SGD(groups, momentum=0.9, weight_decay=1e-4, fused=on_gpu or None)


@torch.no_grad()
def count_in(average: AveragedModel, network: nn.Module) -> None:
    """Count a network's weights and buffers in, as `update_parameters` does, which would wait for a GPU."""
    average.n_averaged += 1  # in CPU memory
    kept, new = average.module.state_dict(keep_vars=True), network.state_dict(keep_vars=True)
    floats = [name for name, value in kept.items() if value.is_floating_point()]
    share = 1 / int(average.n_averaged)
    torch._foreach_lerp_([kept[name] for name in floats], [new[name] for name in floats], share)
    for name in kept.keys() - set(floats):  # how many batches there were
        kept[name].copy_(new[name])
